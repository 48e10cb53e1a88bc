"""M3NET: hypergraph convolution and multi-frequency graph convolution over a dialogue, side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import (
    Dims,
    Fused,
    Fusion,
    Streams,
    projection,
)
from fusionzoo.graphs import FrequencyConv, HypergraphConv, ModalHypergraph, weighted_hypergraph
from fusionzoo.numerics import zero_padded


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

    The node weights :math:`\gamma_e` are a softmax over the hyperedge of a learned score of v, zero at first,
    and :math:`\omega_m` is a learned share per modality, one half at first: so an untrained model is the published one.

    Departures from the published code: nodes without neighbours are kept (there NaN), modalities of another
    width are projected. Speaker embeddings are the host's.

    Options
    -------
    width : of x; default the anchor's.
    hidden : of the branches; default `width`.
    hyper_layers, frequency_layers : depth of the branches, 0 for none.
    residue : put x beside them; published False.
    variant : see `variants`.
    edges, incidences : sizes of the published code's tables, which the default has not.

    Parameters: projections, :math:`(w + 1) h + L h + K (2 h + 1)` for width w and hidden h, :math:`2 h + M` for the
    weights, and the output map from :math:`M (w + 2 h)`.

    Source: Chen et al., "Multivariate, Multi-Frequency and Multimodal: Rethinking Graph Neural Networks for Emotion
    Recognition in Conversation", CVPR 2023; code feiyuchen7/M3NET@4d0fa88cd4, `model_hyper.py:HyperGCN`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.attention["context:text"]` is `(B, 1, T)`,
    the weights of the text hyperedge over utterances, and `Fused.attention["cross"]` `(B, T, M)`, those over
    modalities.

    >>> HypergraphFusion({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.hypergraph:OfficialHypergraphFusion"}

    without_effect: ClassVar[dict[str, str]] = {
        "edges": "a size of the table of variant='official' alone",
        "incidences": "a size of the table of variant='official' alone",
    }

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
        self.build_weights(hidden, check_positive(edges, "edges", self), check_positive(incidences, "incidences", self))
        self.set_width(len(self.dims) * (2 * hidden + residue * self.width))

    def build_weights(self, hidden: int, edges: int, incidences: int) -> None:
        """What weighs the nodes and hyperedges."""
        if self.hyperconvs:
            self.score = nn.Linear(hidden, 2, bias=False)
            nn.init.zeros_(self.score.weight)
            self.share = nn.Parameter(torch.zeros(len(self.dims)))

    def nodes_present(self, streams: Streams) -> list[Tensor | None]:
        """Where each modality has a node."""
        return streams.present

    def combine(self, streams: Streams) -> Fused:
        present = self.nodes_present(streams)
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        x = rearrange(xs, "m b t w -> b m t w")
        first = self.fc1(x)
        presence = replace(streams, present=present).presence()
        hypergraph = self.hypergraph(first, streams.mask, presence) if self.hyperconvs else None
        hyper = frequencies = first
        for conv in self.hyperconvs:
            hyper = conv(hyper, hypergraph)
        for conv in self.convs:
            frequencies = frequencies + conv(frequencies, presence)
        out = torch.cat([*([x] if self.residue else []), hyper, frequencies], -1)
        per_modality = [zero_padded(h, m) for h, m in zip(out.unbind(1), present, strict=True)]
        maps = {} if hypergraph is None or not streams.attention else self.attention_maps(hypergraph)
        return Fused(torch.cat(per_modality, -1), dict(zip(self.names, per_modality, strict=True)), maps)

    def hypergraph(self, nodes: Tensor, mask: Tensor | None, presence: Tensor | None) -> ModalHypergraph:
        """The hyperedges over nodes `(B, M, T, h)`; mask bool `(B, T)`, presence bool `(B, T, M)`."""
        context, cross = self.score(nodes).unbind(-1)
        return weighted_hypergraph(context, cross, self.share.sigmoid(), presence)

    def attention_maps(self, hypergraph: ModalHypergraph) -> dict[str, Tensor]:
        """The weights of the nodes within each hyperedge."""
        maps = {f"context:{m}": w for m, w in zip(self.names, hypergraph.gather_context.split(1, 1), strict=True)}
        return maps | {"cross": rearrange(hypergraph.gather_cross, "b m t -> b t m")}


def _check_depth(value: int, option: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"HypergraphFusion: {option} must be an integer from 0 upwards, not {value!r}")
    return value


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
