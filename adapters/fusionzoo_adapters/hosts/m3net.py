"""M3NET: a hypergraph and a multi-frequency graph over the modalities of a dialogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_choice, check_positive
from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo.fusion import Dims
from fusionzoo.graphs import FrequencyConv, HypergraphConv, ModalHypergraph, numbered_hypergraph, weighted_hypergraph
from fusionzoo.host import FusionLike
from fusionzoo.kernels.dropout import dropout
from fusionzoo.kernels.grouped_attention import TORCH_NAMES, GroupedTransformer, Tokens
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import copy_reference_parts
from fusionzoo_adapters.parts.context_encoder import ContextEncoder
from fusionzoo_adapters.parts.streams import Dialogues, StreamHost

BASES = ("gru", "lstm", "transformer")
NORMS = ("layer", "batch", "dialogue", "none")


class M3Net(StreamHost):
    r"""Encoders, a hypergraph and a graph of signed gates over all modalities of a dialogue, fusion, classifier.

    Every modality of every utterance is a node, with :math:`x_i` the linear map of its encoding. Of two branches one
    passes nodes to hyperedges and back L times, a hyperedge holding a modality's nodes in the dialogue or an
    utterance's modalities; the other adds K times what comes along signed gates from the modality's other utterances and
    the utterance's other modalities:

    .. math::
        h^{l} = \operatorname{LeakyReLU}(H_v H_e^\top h^{l-1} + b_l), \qquad
        f^{k}_i = f^{k-1}_i + \sum_{j \in N(i)} \frac{\tanh(w_k [f^{k-1}_i; f^{k-1}_j] + b_k)}{\sqrt{|N(i)| |N(j)|}} f^{k-1}_j

    A modality leaves as :math:`[h^L; f^K]`; the fusion of the modalities is classified by one linear map of its ReLU.

    Source: Chen et al., "Multivariate, Multi-Frequency and Multimodal: Rethinking Graph Neural Networks for Emotion
    Recognition in Conversation", CVPR 2023; official code feiyuchen7/M3NET @4d0fa88cd4, `model.py` and `model_hyper.py`
    (`graph_type="hyper"`, `att_type="concat_DHT"`, the ones that run).

    Where `variant="default"` differs from `official`:

    - a hyperedge is a weighted mean of its nodes and a node a mixture of its two hyperedges, with learnt weights that
      depend on the nodes; officially they are tables indexed by running number in the batch, so that an utterance's
      weights depend on its place there, and a batch is limited to `max_edges` hyperedges and `max_nodes` nodes;
    - recurrent encoders, the transformer and the norms of the views leave padding out; officially they read it;
    - the embedding of the speaker is added to every modality before its encoder; officially to text after it;
    - dropout on the nodes too, nodes beside what the branches make of them (`residue`), and half the widths;
    - modalities that were not recorded are in no graph; officially they are nodes like others.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late` (the fusion of what leaves the graphs), `early` (the fusion of the features, then one modality), or
        `pre-graph` (the fusion of the encodings joins the graphs as one more modality).
    base : encoder of the first modality after its linear map: `gru`, `lstm` (two layers, bidirectional) or `transformer`
        (one layer, 4 heads). encode_all : the others have one too, not only a linear map.
    hidden, graph_width : width of the encodings and of each branch; None is 256, with `official` 512.
    hyper_layers, frequency_layers : L and K, 0 for a branch that is the map alone.
    residue : put the encoding beside the branches; None is True, with `official` False.
    speaker_embedding : add a learnt vector of the speaker. modal_embedding : add one of the modality.
    anchor_map : False leaves out the first modality's linear map, which must then have the width `hidden` (official on
        MELD).
    dropout : on the nodes (not `official`), between recurrent layers and before the classifier.
    input_dropout : on the features.
    fusion_width : width of what the fusion returns; None is the anchor's if it comes early, `hidden` before the
        graph, the summed width if late.
    text_views : how many views lie side by side in the first modality (4 of RoBERTa's layers, in COSMIC's features); they
        are normalised and averaged. views_norm : `layer`, `batch`, `dialogue` (over all of a dialogue, without learnt
        parameters) or `none`.
    max_edges, max_nodes : with `official`, sizes of the tables.
    variant : `default` or `official`, see above.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`. Attention: `context` `(B, M, T)`, the weights of each modality's
    hyperedge over utterances, and `cross` `(B, M, T)`, of each utterance's over modalities.
    """

    variants = ("default", "official")
    placements: ClassVar[tuple[str, ...]] = ("late", "early", "pre-graph")

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "concat",
        placement: str | None = None,
        *,
        base: str = "gru",
        encode_all: bool = False,
        hidden: int | None = None,
        graph_width: int | None = None,
        hyper_layers: int = 3,
        frequency_layers: int = 4,
        residue: bool | None = None,
        speaker_embedding: bool = True,
        modal_embedding: bool = False,
        anchor_map: bool = True,
        dropout: float = 0.4,
        input_dropout: float | None = None,
        fusion_width: int | None = None,
        text_views: int = 1,
        views_norm: str = "layer",
        max_edges: int = 1000,
        max_nodes: int = 5200,
        variant: str = "default",
    ):
        official = check_choice(variant, self.variants, "variant", self) == "official"
        check_choice(views_norm, NORMS, "views_norm", self)
        super().__init__(
            dims,
            num_classes,
            num_speakers,
            fusion,
            placement,
            input_dropout=(0.0 if official else 0.2) if input_dropout is None else input_dropout,
            dropout=dropout,
            text_views=text_views,
            views_norm="none" if views_norm == "dialogue" else views_norm,
            reads_padding=official,
        )
        self.variant, self.views_norm = variant, views_norm
        self.base, self.encode_all = check_choice(base, BASES, "base", self), encode_all
        width = 512 if official else 256
        self.hidden = check_positive(hidden or width, "hidden", self)
        self.graph_width = check_positive(graph_width or hidden or width, "graph_width", self)
        self.depths = (_depth(hyper_layers, "hyper_layers"), _depth(frequency_layers, "frequency_layers"))
        self.residue = not official if residue is None else residue
        self.anchor_map = anchor_map
        self.tables: _Tables | None = None
        if official:
            check_positive(max_edges, "max_edges", self)
            self.tables = _Tables(max_edges, check_positive(max_nodes, "max_nodes", self))
        self.speakers = nn.Embedding(self.num_speakers, self.hidden) if speaker_embedding else None
        self.modal_embedding = modal_embedding
        self.out = nn.Linear(self._build(self.hidden, fusion_width), self.num_classes)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _build_encoders(self, widths: list[int]) -> None:
        hidden, official = self.hidden, self.variant == "official"
        if not self.anchor_map and widths[0] != hidden:
            raise OptionError(
                f"anchor_map=False needs hidden={widths[0]}, the width of the first modality, not {hidden}"
            )
        if hidden % 2 or (self.base == "transformer" and hidden % 4):
            raise OptionError(f"hidden={hidden} must be even, and a multiple of 4 with base='transformer'")
        self.maps = nn.ModuleList(
            nn.Linear(w, hidden) if i or self.anchor_map else nn.Identity() for i, w in enumerate(widths)
        )
        self.encoders = nn.ModuleList()
        for _ in widths if self.encode_all else widths[:1]:
            if self.base == "transformer":
                # Dropout, feed-forward width and the place of the norms as torch's layer has them.
                encoder: nn.Module = GroupedTransformer(
                    1, hidden, 1, heads=4, hidden=2048 if official else None, norm="post", dropout=0.1
                )
            else:
                encoder = ContextEncoder(hidden, hidden // 2, self.base, dropout=self.dropout, bare=official)
            self.encoders.append(encoder)

    def _build_relations(self) -> int:
        width, (hyper, frequency) = self.graph_width, self.depths
        self.node_map = nn.Linear(self.hidden, width)
        self.modes = nn.Embedding(len(self.nodes), self.hidden) if self.modal_embedding else None
        self.hyper = nn.ModuleList(HypergraphConv(width) for _ in range(hyper))
        self.frequency = nn.ModuleList(FrequencyConv(width) for _ in range(frequency))
        if hyper and self.tables is None:
            # Plain means to begin with.
            self.score = nn.Linear(width, 2, bias=False)
            nn.init.zeros_(self.score.weight)
            self.share = nn.Parameter(torch.zeros(len(self.nodes)))
        return 2 * width + self.residue * self.hidden

    # -- forward -------------------------------------------------------------------------------------------------------

    def _view(self, x: Tensor, present: Tensor) -> Tensor:
        assert self.views is not None
        real = torch.ones_like(present) if self.variant == "official" else present
        if self.views_norm == "dialogue":
            x = _dialogue_norm(x.unflatten(-1, (self.views.views, -1)), real).flatten(-2)
        return self.views(x, real)

    def _encode(self, inputs: list[Tensor | None], dialogues: Dialogues) -> list[Tensor | None]:
        layout, official = dialogues.layout, self.variant == "official"
        said = None if self.speakers is None else self.speakers(dialogues.speakers)
        out: list[Tensor | None] = []
        for i, x in enumerate(inputs):
            if x is not None:
                x = self.maps[i](x)
                if said is not None and not official:
                    x = x + said
                if i < len(self.encoders):
                    encoder = self.encoders[i]
                    if isinstance(encoder, GroupedTransformer):
                        tokens = Tokens(layout, stand_in=official)
                        x = tokens.layout.unpack(encoder(tokens.pack(x).unsqueeze(0), tokens)[0])
                    else:
                        x = encoder(x, layout, dialogues.mask, dialogues.speakers)
                if said is not None and official and i == 0:
                    x = x + said
            out.append(x)
        return out

    def _relate(self, nodes: list[Tensor], dialogues: Dialogues) -> list[Tensor]:
        official = self.variant == "official"
        x = torch.stack(nodes, 1)
        if self.modes is not None:
            x = x + self.modes.weight[:, None]
        if not official:
            x = dropout(x, self.dropout, self.training)
        presence = dialogues.presence()
        if official or presence is None:
            presence = dialogues.mask.unsqueeze(-1).expand(-1, -1, len(nodes))
        first = self.node_map(x)
        hyper = frequency = first
        if len(self.hyper):
            hypergraph = self._hypergraph(first, presence, dialogues)
            for conv in self.hyper:
                hyper = conv(hyper, hypergraph)
        for conv in self.frequency:
            frequency = frequency + conv(frequency, presence)
        out = torch.cat([*([x] if self.residue else []), hyper, frequency], -1)
        return [zero_padded(y, presence[..., i]) for i, y in enumerate(out.unbind(1))]

    def _hypergraph(self, nodes: Tensor, presence: Tensor, dialogues: Dialogues) -> ModalHypergraph:
        if self.tables is not None:
            total, modalities = sum(dialogues.layout.lengths), nodes.shape[1]
            self.tables.check(total + modalities * nodes.shape[0], total * modalities)
            shape = (nodes.shape[0], modalities, nodes.shape[2])
            return numbered_hypergraph(self.tables.hyperedge_weight, self.tables.EW_weight, shape, dialogues.mask)
        context, cross = self.score(nodes).unbind(-1)
        hypergraph = weighted_hypergraph(context, cross, self.share.sigmoid(), presence)
        if dialogues.keep:
            dialogues.attention |= {"context": hypergraph.gather_context, "cross": hypergraph.gather_cross}
        return hypergraph

    def _read(self, x: Tensor) -> Tensor:
        x = dropout(x, self.dropout, self.training)
        decided = self.placement == "late" and self.fusion is not None and self.fusion.decides
        return self.out(x if decided else F.relu(x))

    # -- official weights ----------------------------------------------------------------------------------------------

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load an official `Model` (`graph_type="hyper"`, `att_type="concat_DHT"`, modalities `avl`).

        Needs `variant="official"`, text, audio and visual in this order, and the fusion `concat`, late. Parts that exist
        upstream and are not used there are left out.
        """
        letters = self._official_order("lav")
        if len(letters) != 3:
            raise ReferenceWeightsError(f"M3Net: the official model has 3 modalities, this host has {len(letters)}")
        state = dict(state_dict)
        parts: dict[str, nn.Module] = {"smax_fc.": self.out, "graph_model.fc1.": self.node_map}
        ignored = ["hidfc.", "graph_model.hyperedge_attr", *(f"norm{k}N{x}." for k in "BL" for x in "abcd")]
        if self.views is not None:
            kind = {"layer": "L", "batch": "B"}.get(self.views_norm)
            if kind:
                parts |= {k.replace("BN", f"{kind}N"): v for k, v in self.views.reference_parts().items()}
                ignored = [p for p in ignored if p not in parts]
        for i, letter in enumerate(letters):
            if isinstance(self.maps[i], nn.Linear):
                parts[f"linear_{letter}."] = self.maps[i]
            else:
                ignored.append(f"linear_{letter}.")
            prefix = f"{'trans' if self.base == 'transformer' else self.base}_{letter}."
            if i >= len(self.encoders):
                # The transformers of the other modalities exist upstream whether they are used or not.
                ignored += [prefix] if self.base == "transformer" else []
                continue
            encoder = self.encoders[i]
            if isinstance(encoder, GroupedTransformer):
                own = {f"layers.0.{k[len(prefix) :]}": v for k, v in state.items() if k.startswith(prefix)}
                state = {k: v for k, v in state.items() if not k.startswith(prefix)}
                state |= {prefix + k: v for k, v in encoder.renamed([own], TORCH_NAMES).items()}
                state |= {prefix + k: own[k] for k in own.keys() - encoder.official_names(TORCH_NAMES)}
                parts[prefix] = encoder
            else:
                assert isinstance(encoder, ContextEncoder)
                parts[prefix] = encoder.rnn
        for prefix, module in (("speaker_embeddings.", self.speakers), ("modal_embeddings.", self.modes)):
            if module is None:
                ignored.append(f"graph_model.{prefix}")
            else:
                parts[f"graph_model.{prefix}"] = module
        if self.modes is not None and "graph_model.modal_embeddings.weight" in state:
            # The official table is in the order a, v, l.
            state["graph_model.modal_embeddings.weight"] = state["graph_model.modal_embeddings.weight"].roll(1, 0)
        assert self.tables is not None
        parts["graph_model.tables."] = self.tables
        for k in ("hyperedge_weight", "EW_weight"):
            if f"graph_model.{k}" in state:
                state[f"graph_model.tables.{k}"] = state.pop(f"graph_model.{k}")
        for i, conv in enumerate(self.hyper, 1):
            prefix = f"graph_model.hyperconv{i}."
            parts[prefix] = conv
            for k in ("weight", "edgeweight", "edgefc.weight", "edgefc.bias"):
                state.pop(prefix + k, None)
        parts |= {f"graph_model.conv{i}.": conv for i, conv in enumerate(self.frequency, 1)}
        copy_reference_parts(parts, state, ignored)


class _Tables(nn.Module):
    """Weights of hyperedges and nodes by their running number in the batch, under their official names."""

    def __init__(self, edges: int, nodes: int):
        super().__init__()
        self.hyperedge_weight = nn.Parameter(torch.ones(edges))
        self.EW_weight = nn.Parameter(torch.ones(nodes))

    def check(self, edges: int, nodes: int) -> None:
        """Raise `ShapeError` when a batch has more than the tables."""
        if edges > len(self.hyperedge_weight) or nodes > len(self.EW_weight):
            raise ShapeError(
                f"a batch of {edges} hyperedges and {nodes} nodes does not fit the tables of the official M3NET, "
                f"{len(self.hyperedge_weight)} and {len(self.EW_weight)}; take smaller batches, larger max_edges and "
                "max_nodes, or variant='default', which has no such limit"
            )


def _dialogue_norm(x: Tensor, mask: Tensor) -> Tensor:
    """Every view of every dialogue `(B, T, views, d)` to mean zero and deviation one over its steps and features."""
    there = mask[..., None, None]
    count = (mask.sum(1) * x.shape[-1]).clamp(min=1).view(-1, 1, 1, 1)
    centred = torch.where(there, x - torch.where(there, x, 0.0).sum((1, 3), keepdim=True) / count, 0.0)
    return centred * (centred.square().sum((1, 3), keepdim=True) / count + 1e-5).rsqrt()


def _depth(value: int, option: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"M3Net: {option} must be an integer from 0 upwards, not {value!r}")
    return value


fusionzoo_register = fusionzoo.plugin(
    M3Net,
    summary="hypergraph and multi-frequency graph over the modalities of a dialogue",
    paper="Multivariate, Multi-Frequency and Multimodal: Rethinking Graph Neural Networks for Emotion "
    "Recognition in Conversation, CVPR 2023",
    code="https://github.com/feiyuchen7/M3NET/tree/4d0fa88cd4",
    level="dialogue",
)
