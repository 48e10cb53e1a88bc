"""M3NET: a hypergraph and a multi-frequency graph over the modalities of a dialogue."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims
from fusionzoo.graphs import FrequencyConv, HypergraphConv, ModalHypergraph, weighted_hypergraph
from fusionzoo.host import FusionLike, Host
from fusionzoo.kernels.dropout import Dropout, dropout
from fusionzoo.kernels.grouped_attention import GroupedTransformer, Tokens
from fusionzoo.kernels.packing import Packing
from fusionzoo.numerics import zero_padded
from fusionzoo.seams import Dialogues, Streams
from fusionzoo_adapters.parts.context_encoder import ContextEncoder
from fusionzoo_adapters.parts.streams import as_nodes
from fusionzoo_adapters.parts.text_views import Views, averaged, widths_of

BASES = ("gru", "lstm", "transformer")
NORMS = ("layer", "batch", "dialogue", "none")


class DialogueViews(Views):
    """`Views`, each at first brought to mean zero and deviation one over all steps and features of a dialogue."""

    def __init__(self, width: int, views: int):
        super().__init__(width, views, "none")

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x.unflatten(-1, (self.views, -1))
        there, count = mask[..., None, None], (mask.sum(1) * x.shape[-1]).clamp(min=1).view(-1, 1, 1, 1)
        centred = torch.where(there, x - torch.where(there, x, 0.0).sum((1, 3), keepdim=True) / count, 0.0)
        normed = centred * (centred.square().sum((1, 3), keepdim=True) / count + 1e-5).rsqrt()
        return super().forward(normed.flatten(-2), mask)


class M3Net(Host):
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
    Recognition in Conversation", CVPR 2023; code feiyuchen7/M3NET @4d0fa88cd4, `model.py` and `model_hyper.py`
    (`graph_type="hyper"`, `att_type="concat_DHT"`, the ones that run).

    A hyperedge is a weighted mean of its nodes and a node a mixture of its two hyperedges, with learnt weights that depend
    on the nodes. `variant="official"` computes what that code does: `hosts/official/m3net.py` says what it does
    differently.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late` (the fusion of what leaves the graphs), `early` (the fusion of the features, then one modality), or
        `pre-graph` (the fusion of the encodings joins the graphs as one more modality).
    base : encoder of the first modality after its linear map: `gru`, `lstm` (two layers, bidirectional) or `transformer`
        (one layer, 4 heads).
    encode_all : the others have one too, not only a linear map.
    hidden : width of the encodings.
    graph_width : of each branch; None is `hidden`.
    hyper_layers, frequency_layers : L and K, 0 for a branch that is the map alone.
    residue : put the encoding beside the branches.
    speaker_embedding : add a learnt vector of the speaker.
    modal_embedding : add one of the modality.
    anchor_map : False leaves out the first modality's linear map, which must then have the width `hidden` (published so
        for MELD).
    dropout : on the nodes, between recurrent layers and before the classifier.
    input_dropout : on the features.
    fusion_width : width of what the fusion returns; None is the anchor's if it comes early, `hidden` before the
        graph, the summed width if late.
    text_views : how many views lie side by side in the first modality (4 of RoBERTa's layers, in COSMIC's features); they
        are normalised and averaged.
    views_norm : `layer`, `batch`, `dialogue` (over all of a dialogue, without learnt parameters) or `none`.
    variant : see above.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`. Attention: `context` `(B, M, T)`, the weights of each modality's
    hyperedge over utterances, and `cross` `(B, M, T)`, of each utterance's over modalities.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.m3net:OfficialM3Net"}
    placements: ClassVar[tuple[str, ...]] = ("late", "early", "pre-graph")
    #: Whether recurrent encoders run over padding.
    reads_padding: ClassVar[bool] = False
    #: Feed-forward width of the transformer; None for four times its own.
    feed_forward: ClassVar[int | None] = None

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
        hidden: int = 256,
        graph_width: int | None = None,
        hyper_layers: int = 3,
        frequency_layers: int = 4,
        residue: bool = True,
        speaker_embedding: bool = True,
        modal_embedding: bool = False,
        anchor_map: bool = True,
        dropout: float = 0.4,
        input_dropout: float = 0.2,
        fusion_width: int | None = None,
        text_views: int = 1,
        views_norm: str = "layer",
        variant: str = "default",
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement, fusion_width=fusion_width)
        self.views = self.build_views(text_views, check_choice(views_norm, NORMS, "views_norm", self))
        self.input_dropout = Dropout(check_probability(input_dropout, "input_dropout", self))
        self.dropout = check_probability(dropout, "dropout", self)
        self.base = check_choice(base, BASES, "base", self)
        self.hidden = check_positive(hidden, "hidden", self)
        width = check_positive(graph_width or hidden, "graph_width", self)
        if hidden % 2 or (base == "transformer" and hidden % 4):
            raise OptionError(f"hidden={hidden} must be even, and a multiple of 4 with base='transformer'")
        self.residue = residue
        self.speakers = self.build_speakers(speaker_embedding)
        widths = self.seam("early", widths_of(self.views, self.dims))
        nodes = self.seam("pre-graph", dict.fromkeys(widths, hidden), hidden, kind="beside")
        self.build_encoders(list(widths.values()), anchor_map, encode_all)
        self.node_map = nn.Linear(hidden, width)
        self.modes = nn.Embedding(len(nodes), hidden) if modal_embedding else None
        self.hyper = nn.ModuleList(HypergraphConv(width) for _ in range(_depth(hyper_layers, "hyper_layers")))
        depth = _depth(frequency_layers, "frequency_layers")
        self.frequency = nn.ModuleList(FrequencyConv(width) for _ in range(depth))
        if hyper_layers:
            self.build_weights(width, len(nodes))
        after = self.seam("late", dict.fromkeys(nodes, 2 * width + residue * hidden), "sum")
        self.out = nn.Linear(sum(after.values()), self.num_classes)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def build_views(self, count: int, norm: str) -> Views | None:
        """What averages the views of the first modality."""
        if count == 1:
            return None
        width = self.dims[self.names[0]]
        return DialogueViews(width, count) if norm == "dialogue" else Views(width, count, norm)

    def build_speakers(self, wanted: bool) -> nn.Embedding | None:
        """A vector per speaker."""
        return nn.Embedding(self.num_speakers, self.hidden) if wanted else None

    def build_encoders(self, widths: list[int], anchor_map: bool, every: bool) -> None:
        """A linear map per stream, and an encoder of the first one or of `every` one."""
        if not anchor_map and widths[0] != self.hidden:
            raise OptionError(
                f"anchor_map=False needs hidden={widths[0]}, the width of the first modality, not {self.hidden}"
            )
        self.maps = nn.ModuleList(
            nn.Linear(w, self.hidden) if i or anchor_map else nn.Identity() for i, w in enumerate(widths)
        )
        self.encoders = nn.ModuleList(self.build_encoder() for _ in (widths if every else widths[:1]))

    def build_encoder(self) -> nn.Module:
        """The encoder of one stream."""
        if self.base == "transformer":
            # Dropout and the place of the norms as torch's layer has them.
            options = {"heads": 4, "hidden": self.feed_forward}
            return GroupedTransformer(1, self.hidden, 1, norm="post", dropout=0.1, **options)
        width = self.hidden // 2
        return ContextEncoder(self.hidden, width, self.base, dropout=self.dropout, reads_padding=self.reads_padding)

    def build_weights(self, width: int, modalities: int) -> None:
        """What weighs nodes and hyperedges: plain means to begin with."""
        self.score = nn.Linear(width, 2, bias=False)
        nn.init.zeros_(self.score.weight)
        self.share = nn.Parameter(torch.zeros(modalities))

    # -- forward -------------------------------------------------------------------------------------------------------

    def run(self, streams: dict[str, Tensor | None], dialogues: Dialogues) -> Tensor:
        streams = self.fuse_at("early", self.averaged_views(streams, dialogues), dialogues)
        encoded = self.fuse_at("pre-graph", self.encoded(streams, dialogues), dialogues)
        related = self.relate(encoded, dialogues)
        joined = self.fuse_at("late", related, dialogues)
        x = torch.cat(list(joined.values()), -1)  # type: ignore[arg-type]
        dialogues.show({**related, "context": x})
        x = dropout(x, self.dropout, self.training)
        decided = self.placement == "late" and self.fusion is not None and self.fusion.decides
        return self.out(x if decided else F.relu(x))

    def averaged_views(self, streams: Streams, dialogues: Dialogues) -> dict[str, Tensor | None]:
        """The streams, the views of the first one averaged."""
        return averaged(self.views, streams, dialogues.present)

    def encoded(self, streams: Streams, dialogues: Dialogues) -> dict[str, Tensor | None]:
        """The encodings of as many streams."""
        streams = {m: None if x is None else self.input_dropout(x) for m, x in streams.items()}
        return {
            m: None if x is None else self.encode_stream(i, x, dialogues) for i, (m, x) in enumerate(streams.items())
        }

    def encode_stream(self, number: int, x: Tensor, dialogues: Dialogues) -> Tensor:
        """The encoding of one stream, `(B, T, hidden)`."""
        x = self.maps[number](x)
        return self.context(number, x if self.speakers is None else x + self.speakers(dialogues.speakers), dialogues)

    def context(self, number: int, x: Tensor, dialogues: Dialogues) -> Tensor:
        """What the encoder of a stream, if it has one, makes of it."""
        if number >= len(self.encoders):
            return x
        encoder = self.encoders[number]
        if isinstance(encoder, GroupedTransformer):
            tokens = self.tokens(dialogues.packing)
            return tokens.packing.unpack(encoder(tokens.pack(x).unsqueeze(0), tokens)[0])
        return encoder(x, dialogues.packing, dialogues.mask, dialogues.speakers)

    def relate(self, streams: Streams, dialogues: Dialogues) -> dict[str, Tensor]:
        """What the modalities are after both branches, `(B, T, .)` each."""
        presence = self.presence(list(streams), dialogues)
        x = torch.stack(self.nodes(streams, dialogues), 1)
        if self.modes is not None:
            x = x + self.modes.weight[:, None]
        x = self.drop_nodes(x)
        first = self.node_map(x)
        hyper = frequency = first
        if len(self.hyper):
            hypergraph = self.hypergraph(first, presence, dialogues)
            for conv in self.hyper:
                hyper = conv(hyper, hypergraph)
        for conv in self.frequency:
            frequency = frequency + conv(frequency, presence)
        out = torch.cat([*([x] if self.residue else []), hyper, frequency], -1)
        return {
            m: zero_padded(y, presence[..., i]) for i, (m, y) in enumerate(zip(streams, out.unbind(1), strict=True))
        }

    def hypergraph(self, nodes: Tensor, presence: Tensor, dialogues: Dialogues) -> ModalHypergraph:
        """The weights of hyperedges and nodes."""
        context, cross = self.score(nodes).unbind(-1)
        hypergraph = weighted_hypergraph(context, cross, self.share.sigmoid(), presence)
        dialogues.show_attention(context=hypergraph.gather_context, cross=hypergraph.gather_cross)
        return hypergraph

    def tokens(self, packing: Packing) -> Tokens:
        """The utterances that a transformer reads."""
        return Tokens(packing)

    def nodes(self, streams: Streams, dialogues: Dialogues) -> list[Tensor]:
        """The encodings, zero where a modality is missing."""
        return as_nodes(streams, dialogues.present)

    def presence(self, names: list[str], dialogues: Dialogues) -> Tensor:
        """bool `(B, T, M)`: what is a node."""
        return torch.stack([dialogues.present[m] for m in names], -1)

    def drop_nodes(self, x: Tensor) -> Tensor:
        """Dropout on the nodes."""
        return dropout(x, self.dropout, self.training)


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
