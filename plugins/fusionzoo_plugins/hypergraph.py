"""M3NET: hypergraph convolution and multi-frequency graph convolution over a dialogue, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import (
    Dims,
    Fused,
    Fusion,
    Streams,
    projection,
)
from fusionzoo.graphs import FrequencyConv, HypergraphConv, ModalHypergraph, numbered_hypergraph, weighted_hypergraph
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import copy_reference_parts


class HypergraphFusion(Fusion):
    r"""Multivariate and multi-frequency graph fusion (M3NET).

    Every utterance has a node per modality, :math:`v = W x + b`. A hyperedge joins all utterances of a modality
    (context), another all modalities of an utterance. Two branches start from v. Hypergraph convolutions:

    .. math::
        e = \sum_{i \in e} \gamma_e(i)\, v_i, \qquad
        v_i \leftarrow \operatorname{LeakyReLU}\big(\omega_m\, e^{\text{context}} + (1 - \omega_m)\, e^{\text{cross}} + b\big)

    and graph convolutions with signed gates, which keep what differs between neighbours (high frequencies) as well as
    what they share, over all pairs of utterances of a modality and of modalities of an utterance:

    .. math:: v_i \leftarrow v_i + \sum_{j \in N(i)} \frac{\tanh(g\,[v_i; v_j] + c)}{\sqrt{|N(i)|\,|N(j)|}}\; v_j

    The output is [x; hypergraph; frequencies] of every modality, concatenated. All in blocks per dialogue. Absent
    modalities and padding have no node.

    Default: the node weights :math:`\gamma_e` are a softmax over the hyperedge of a learned score of v, zero at first,
    and :math:`\omega_m` is a learned share per modality, one half at first: so an untrained model is the published one.
    `variant="official"`: both are free parameters indexed by the running number of the node or hyperedge in the batch,
    so that the output depends on a dialogue's place in the batch; the hyperedge weight only divides, and hyperedges are
    sums divided by a sum of weights. More nodes than `incidences` or hyperedges than `edges` raise IndexError. Its
    three modalities are in the order text, audio, visual.

    Departures of both from the published code: nodes without neighbours are kept (there NaN), modalities of another
    width are projected. Speaker embeddings are the host's.

    Options
    -------
    width : of x; default the anchor's. hidden : of the branches; default `width`. hyper_layers, frequency_layers :
    depth of the branches, 0 for none. residue : put x beside them; published False. variant : as above. edges,
    incidences : sizes of the tables of the official variant.

    Parameters: projections, :math:`(w + 1) h + L h + K (2 h + 1)` for width w and hidden h, :math:`2 h + M` for the
    weights (official: edges + incidences), and the output map from :math:`M (w + 2 h)`.

    Source: Chen et al., "Multivariate, Multi-Frequency and Multimodal: Rethinking Graph Neural Networks for Emotion
    Recognition in Conversation", CVPR 2023; official code feiyuchen7/M3NET@4d0fa88cd4, `model_hyper.py:HyperGCN`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; in the default `Fused.attention["context:text"]` is `(B, 1, T)`,
    the weights of the text hyperedge over utterances, and `Fused.attention["cross"]` `(B, T, M)`, those over
    modalities.

    >>> HypergraphFusion({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants = ("default", "official")

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        hidden: int | None = None,
        hyper_layers: int = 3,
        frequency_layers: int = 4,
        residue: bool = True,
        variant: str = "default",
        edges: int = 1000,
        incidences: int = 5200,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.variant = check_choice(variant, self.variants, "variant", self)
        self.width = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        hidden = self.width if hidden is None else check_positive(hidden, "hidden", self)
        self.residue = residue
        self.project = nn.ModuleList(projection(d, self.width) for d in self.dims.values())
        self.fc1 = nn.Linear(self.width, hidden)
        self.hyperconvs = nn.ModuleList(
            HypergraphConv(hidden) for _ in range(_check_depth(hyper_layers, "hyper_layers"))
        )
        self.convs = nn.ModuleList(
            FrequencyConv(hidden) for _ in range(_check_depth(frequency_layers, "frequency_layers"))
        )
        if variant == "official":
            if len(self.dims) != 3:
                raise OptionError(
                    f"HypergraphFusion(variant='official') fuses exactly 3 modalities, got {len(self.dims)} "
                    f"({', '.join(self.names)}); the default variant takes any number from two"
                )
            check_positive(edges, "edges", self)
            self.tables = _Tables(edges, check_positive(incidences, "incidences", self))
        elif hyper_layers:
            self.score = nn.Linear(hidden, 2, bias=False)
            nn.init.zeros_(self.score.weight)
            self.share = nn.Parameter(torch.zeros(len(self.dims)))
        self.set_width(len(self.dims) * (2 * hidden + residue * self.width))

    def combine(self, streams: Streams) -> Fused:
        official = self.variant == "official"
        present = [streams.mask] * len(self.dims) if official else streams.present
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        x = torch.stack(xs, 1)
        first = self.fc1(x)
        presence = streams.presence()
        if official:
            presence = None if streams.mask is None else streams.mask.unsqueeze(-1).expand(-1, -1, len(self.dims))
        hypergraph = self._hypergraph(first, streams.mask, presence) if self.hyperconvs else None
        hyper = frequencies = first
        for conv in self.hyperconvs:
            hyper = conv(hyper, hypergraph)
        for conv in self.convs:
            frequencies = frequencies + conv(frequencies, presence)
        out = torch.cat([*([x] if self.residue else []), hyper, frequencies], -1)
        per_modality = [zero_padded(h, m) for h, m in zip(out.unbind(1), present, strict=True)]
        maps: dict[str, Tensor] = {}
        if streams.attention and hypergraph is not None and not official:
            weights = hypergraph.gather_context.split(1, 1)
            maps = {f"context:{m}": w for m, w in zip(self.names, weights, strict=True)}
            maps["cross"] = hypergraph.gather_cross.transpose(1, 2)
        return Fused(torch.cat(per_modality, -1), dict(zip(self.names, per_modality, strict=True)), maps)

    def _hypergraph(self, nodes: Tensor, mask: Tensor | None, presence: Tensor | None) -> ModalHypergraph:
        if self.variant == "official":
            batch, modalities, steps, _ = nodes.shape
            shape = (batch, modalities, steps)
            return numbered_hypergraph(self.tables.hyperedge_weight, self.tables.EW_weight, shape, mask)
        context, cross = self.score(nodes).unbind(-1)
        return weighted_hypergraph(context, cross, self.share.sigmoid(), presence)

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the official `HyperGCN`; its speaker and modality embeddings are the host's, and parts are unused there.

        Only for `variant="official"`, and for modalities of one width: the official module has no projections.
        """
        if self.variant != "official":
            raise OptionError(
                "the official weights are those of HypergraphFusion(variant='official'); build it that way to load them"
            )
        unused = ("weight", "edgeweight", "edgefc.weight", "edgefc.bias")
        parts: dict[str, nn.Module] = {"fc1.": self.fc1, "tables.": self.tables}
        parts |= {f"hyperconv{i}.": conv for i, conv in enumerate(self.hyperconvs, 1)}
        parts |= {f"conv{i}.": conv for i, conv in enumerate(self.convs, 1)}
        dropped = {f"hyperconv{i}.{k}" for i in range(1, len(self.hyperconvs) + 1) for k in unused}
        state = {f"tables.{k}" if k in dict(self.tables.named_parameters()) else k: v for k, v in state_dict.items()}
        state = {k: v for k, v in state.items() if k not in dropped}
        copy_reference_parts(parts, state, ("hyperedge_attr", "modal_embeddings.", "speaker_embeddings."))


def _check_depth(value: int, option: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"HypergraphFusion: {option} must be an integer from 0 upwards, not {value!r}")
    return value


class _Tables(nn.Module):
    """The weights of the official variant, under their official names."""

    def __init__(self, edges: int, incidences: int):
        super().__init__()
        self.hyperedge_weight = nn.Parameter(torch.ones(edges))
        self.EW_weight = nn.Parameter(torch.ones(incidences))


fusionzoo_register = fusionzoo.plugin(
    HypergraphFusion,
    summary="hypergraph and multi-frequency graph convolution over a dialogue",
    paper="Chen et al., Multivariate, Multi-Frequency and Multimodal: Rethinking Graph Neural Networks for "
    "Emotion Recognition in Conversation, CVPR 2023",
    code="feiyuchen7/M3NET@4d0fa88cd4",
    level="dialogue",
    handles={"attention"},
    diagram="""
    text["x_text"] --> nodes["nodes: utterances x modalities"]
    audio["x_audio"] --> nodes
    visual["x_visual"] --> nodes
    nodes --> hyper["hypergraph convolution x L"]
    nodes --> freq["signed graph convolution x K"]
    nodes --> cat(("concat"))
    hyper --> cat
    freq --> cat
    """,
)
