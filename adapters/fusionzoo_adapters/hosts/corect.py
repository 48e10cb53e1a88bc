"""CORECT: a relational temporal graph over all modalities beside pairwise cross-modal attention."""

from __future__ import annotations

from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike, Host
from fusionzoo.kernels.bands import Band, BandAttention, ModalBandConv
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.grouped_attention import GroupedTransformer, Tokens
from fusionzoo.kernels.packing import Packing
from fusionzoo.numerics import zero_padded
from fusionzoo.seams import Dialogues, Streams
from fusionzoo_adapters.parts.classifier import Head
from fusionzoo_adapters.parts.sequence_encoder import Highway, SequenceEncoder
from fusionzoo_adapters.parts.streams import as_nodes, node_presence
from fusionzoo_adapters.parts.text_views import averaged, views_of, widths_of
from fusionzoo_adapters.parts.window_graph import check_window


class Corect(Host):
    r"""Encoders, relational temporal graph and pairwise cross-modal attention side by side, fusion, classifier.

    Every modality m of every utterance i is a node :math:`x^m_i`, the encoding plus a vector of the speaker. The graph
    knows who comes before and after within the window, and the other modalities of the utterance:

    .. math::
        h^m_i = W x^m_i + b + W_{m,<} \overline{x^m_{<i}} + W_{m,>} \overline{x^m_{>i}} + W_{m,=} x^m_i
            + \sum_{n \ne m} W_{nm} x^n_i, \qquad
        z^m_i = \operatorname{LeakyReLU}\Big(\operatorname{Norm}\big(W_1 h^m_i + \sum_{j, n} \alpha\, V h^n_j\big)\Big)

    with multi-head attention weights over all of a node's neighbours. Beside it every modality attends to each other
    one's dialogue, :math:`c^m = T_m([T_{mn}(x^m, x^n)]_{n \ne m})`, with transformers T. A modality leaves as
    :math:`[z^m; c^m]`; the fusion of the modalities goes to a two-layer classifier.

    Source: Nguyen et al., "Conversation Understanding using Relational Temporal Graph Neural Networks with Auxiliary
    Cross-Modality Interaction", EMNLP 2023; code leson502/CORECT_EMNLP2023 @96ad0127f2.

    `variant="official"` computes what that code does: `hosts/official/corect.py` says what it does differently.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late` (the fusion of what leaves graph and attention), `early` (the fusion of the features, then one
        modality), or `pre-graph` (the fusion of the encodings joins the others as one more modality).
    base : encoder of the first modality: `transformer`, `lstm`, `gru` or `mlp`; the others have `mlp`.
    hidden : width of encodings, convolution, head of the attentions, and classifier.
    layers : of the encoder.
    inner : width of the encoder's transformer; None is `hidden`.
    graph : False leaves the graph out.
    temporal, across : its edges within and across modalities.
    window_past, window_future : neighbours on each side; None for all.
    graph_attention : whether attention follows the convolution.
    heads : of that attention.
    crossmodal : False leaves the cross-modal attention out.
    crossmodal_layers, crossmodal_heads : of every :math:`T_{mn}`.
    memory_layers, memory_heads : of every :math:`T_m`.
    speaker_embedding : add a learnt vector of the speaker to the encodings.
    highway : a layer before the classifier.
    dropout : in the encoder, the cross-modal transformers and the classifier, and on the encodings.
    input_dropout : on the features.
    fusion_width : width of what the fusion returns; None is the anchor's if it comes early, `hidden` before the
        graph, the summed width if late.
    text_views : how many views lie side by side in the first modality (4 of RoBERTa's layers, in COSMIC's features); they
        are normalised and averaged.
    views_norm : `layer`, `batch` or `none`.
    variant : see above.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; attention `graph` `(B, M, heads, T, T)`, within modalities.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.corect:OfficialCorect"}
    placements: ClassVar[tuple[str, ...]] = ("late", "early", "pre-graph")
    graph_norm: ClassVar[type[nn.Module]] = nn.LayerNorm

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "concat",
        placement: str | None = None,
        *,
        base: str = "transformer",
        hidden: int = 100,
        layers: int = 2,
        inner: int | None = None,
        graph: bool = True,
        temporal: bool = True,
        across: bool = True,
        window_past: int | None = 11,
        window_future: int | None = 5,
        graph_attention: bool = True,
        heads: int = 2,
        crossmodal: bool = True,
        crossmodal_layers: int = 2,
        crossmodal_heads: int = 2,
        memory_layers: int = 3,
        memory_heads: int = 2,
        speaker_embedding: bool = True,
        highway: bool = False,
        dropout: float = 0.4,
        input_dropout: float = 0.2,
        fusion_width: int | None = None,
        text_views: int = 1,
        views_norm: str = "layer",
        variant: str = "default",
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement, fusion_width=fusion_width)
        self.views = views_of(self, text_views, views_norm)
        self.input_dropout = Dropout(check_probability(input_dropout, "input_dropout", self))
        self.dropout = check_probability(dropout, "dropout", self)
        self.hidden = check_positive(hidden, "hidden", self)
        self.context_dropout = Dropout(dropout)
        self.temporal, self.across = temporal, across
        self.window = check_window(window_past, "window_past"), check_window(window_future, "window_future")
        widths = self.seam("early", widths_of(self.views, self.dims))
        nodes = self.seam("pre-graph", dict.fromkeys(widths, hidden), hidden, kind="beside")
        first: dict[str, Any] = {"base": base, "layers": layers, "dropout": self.dropout, "inner": inner}
        others: dict[str, Any] = {"base": "mlp"}
        self.encoders = nn.ModuleList(
            self.build_encoder(w, **(others if i else first)) for i, w in enumerate(widths.values())
        )
        self.convolution: ModalBandConv | None = None
        self.attention: BandAttention | None = None
        self.norm: nn.Module | None = None
        self.cross: GroupedTransformer | None = None
        self.memory: GroupedTransformer | None = None
        after = self.build_graph(len(nodes), check_positive(heads, "heads", self), graph_attention) if graph else 0
        if crossmodal and len(nodes) > 1:
            depths = crossmodal_layers, memory_layers
            after += self.build_crossmodal(len(nodes), depths, (crossmodal_heads, memory_heads))
        width = sum(self.seam("late", dict.fromkeys(nodes, after or hidden), "sum").values())
        self.speakers = nn.Embedding(self.num_speakers, hidden) if speaker_embedding else None
        self.highway = Highway(width) if highway else None
        self.head = Head(width, hidden, self.num_classes, dropout)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def build_encoder(self, width: int, *, inner: int | None = None, **options: Any) -> SequenceEncoder:
        """The encoder of one stream."""
        return SequenceEncoder(width, self.hidden, inner=inner or self.hidden, **options)

    def build_graph(self, modalities: int, heads: int, attention: bool) -> int:
        """Convolution and attention; returned is the width of a node afterwards."""
        self.convolution = ModalBandConv(
            self.hidden, self.hidden, modalities, temporal=self.temporal, across=self.across
        )
        if not attention:
            return self.hidden
        self.attention = BandAttention(self.hidden, self.hidden, heads)
        self.norm = self.graph_norm(self.hidden * heads)
        return self.hidden * heads

    def build_crossmodal(self, modalities: int, depths: tuple[int, int], heads: tuple[int, int]) -> int:
        """The transformers of pairs and of what a modality read; returned is the width of the latter."""
        others = self.hidden * (modalities - 1)
        for option, count, width in zip(
            ("crossmodal_heads", "memory_heads"), heads, (self.hidden, others), strict=True
        ):
            if width % check_positive(count, option, self):
                raise OptionError(f"Corect: {option}={count} does not divide the width {width}")
        options: dict[str, Any] = {"scaled": True, "dropout": self.crossmodal_dropout()}
        pairs = modalities * (modalities - 1)
        self.cross = GroupedTransformer(pairs, self.hidden, depths[0], heads=heads[0], **options)
        self.memory = GroupedTransformer(modalities, others, depths[1], heads=heads[1], **options)
        reader, read = zip(*permutations(range(modalities), 2), strict=True)
        self.pairs: Tensor
        self.register_buffer("pairs", torch.tensor([reader, read]), persistent=False)
        return others

    def crossmodal_dropout(self) -> float:
        """What is dropped in the cross-modal transformers."""
        return self.dropout

    # -- forward -------------------------------------------------------------------------------------------------------

    def run(self, streams: dict[str, Tensor | None], dialogues: Dialogues) -> Tensor:
        streams = self.fuse_at("early", averaged(self.views, streams, dialogues.present), dialogues)
        encoded = self.fuse_at("pre-graph", self.encoded(streams, dialogues), dialogues)
        related = self.relate(encoded, dialogues)
        x = torch.cat(list(self.fuse_at("late", related, dialogues).values()), -1)  # type: ignore[arg-type]
        dialogues.show({**related, "context": x})
        return self.head(x if self.highway is None else self.highway(x))

    def encoded(self, streams: Streams, dialogues: Dialogues) -> dict[str, Tensor | None]:
        """What the encoders make of as many streams."""
        packing, tokens = dialogues.packing, self.tokens(dialogues.packing)
        streams = {m: None if x is None else self.input_dropout(x) for m, x in streams.items()}
        return {
            m: None if x is None else self.context_dropout(encode(x, packing, dialogues.mask, tokens))
            for encode, (m, x) in zip(self.encoders, streams.items(), strict=True)
        }

    def relate(self, streams: Streams, dialogues: Dialogues) -> dict[str, Tensor]:
        """What the modalities are after graph and attention, `(B, T, .)` each."""
        names, packing, tokens = list(streams), dialogues.packing, self.tokens(dialogues.packing)
        present = self.presence(names, dialogues)
        x = torch.stack([tokens.pack(node) for node in self.nodes(streams, dialogues)])
        if self.speakers is not None:
            # At padding the first speaker.
            x = x + self.speakers(tokens.pack(torch.where(dialogues.mask, dialogues.speakers, 0)))
        if present is not None:
            x = torch.where(present.unsqueeze(-1), x, 0.0)
        out = []
        if self.convolution is not None:
            out.append(self.graph(tokens.utterances(x), present, dialogues))
        if self.cross is not None:
            own = None if present is None else torch.stack([dialogues.present[m] for m in names])
            out.append(tokens.utterances(self.crossmodal(x, tokens, own)))
        related = [packing.unpack(y) for y in (torch.cat(out, -1) if out else tokens.utterances(x))]
        if present is not None:
            related = [zero_padded(y, dialogues.present[m]) for m, y in zip(names, related, strict=True)]
        return dict(zip(names, related, strict=True))

    def graph(self, x: Tensor, present: Tensor | None, dialogues: Dialogues) -> Tensor:
        """Nodes `(M, N, hidden)` to `(M, N, .)`."""
        assert self.convolution is not None
        band = self.band(dialogues.packing) if self.temporal else Band(dialogues.packing, 0, 0)
        x = self.convolution(x, band, present)
        if self.attention is None or self.norm is None:
            return x
        x, maps = self.attention(x, band, present, self.across, dialogues.keep_attention)
        dialogues.show_attention(graph=None if maps is None else maps.transpose(0, 1))
        return F.leaky_relu(self.norm(x.flatten(0, 1)).view(x.shape))

    def crossmodal(self, x: Tensor, tokens: Tokens, present: Tensor | None) -> Tensor:
        """Tokens `(M, N, hidden)` to `(M, N, (M - 1) hidden)`; present : bool `(M, B, T)`."""
        assert self.cross is not None
        assert self.memory is not None
        modalities = len(x)
        reader, read = self.pairs
        mask = None if present is None else present.index_select(0, read)
        pairs = self.cross(x.index_select(0, reader), tokens, x.index_select(0, read), mask)
        # The pairs of a reader lie one after another.
        x = pairs.unflatten(0, (modalities, modalities - 1)).transpose(1, 2).flatten(2)
        return self.memory(x, tokens, None, present)

    def band(self, packing: Packing) -> Band:
        """Who is a neighbour of whom within a modality."""
        return Band(packing, *self.window)

    def tokens(self, packing: Packing) -> Tokens:
        """The utterances that attention reads."""
        return Tokens(packing)

    def nodes(self, streams: Streams, dialogues: Dialogues) -> list[Tensor]:
        """The encodings, zero where a modality is missing."""
        return as_nodes(streams, dialogues.present)

    def presence(self, names: list[str], dialogues: Dialogues) -> Tensor | None:
        """bool `(M, N)` of the real utterances, None where every modality is there."""
        return node_presence(names, dialogues)


fusionzoo_register = fusionzoo.plugin(
    Corect,
    summary="relational temporal graph over all modalities beside pairwise cross-modal attention",
    paper="Conversation Understanding using Relational Temporal Graph Neural Networks with Auxiliary Cross-Modality "
    "Interaction, EMNLP 2023, https://arxiv.org/abs/2311.04507",
    code="https://github.com/leson502/CORECT_EMNLP2023/tree/96ad0127f2",
    level="dialogue",
)
