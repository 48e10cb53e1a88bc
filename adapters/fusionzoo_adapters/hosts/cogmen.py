"""COGMEN: a transformer over the fused utterances, then a relational graph and a graph transformer over a window."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive, check_probability
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike, Host
from fusionzoo.kernels.bands import Band, BandAttention
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.grouped_attention import Tokens
from fusionzoo.kernels.packing import Packing
from fusionzoo.seams import Dialogues
from fusionzoo_adapters.parts.classifier import Head
from fusionzoo_adapters.parts.sequence_encoder import Highway, SequenceEncoder
from fusionzoo_adapters.parts.text_views import averaged, views_of, widths_of
from fusionzoo_adapters.parts.window_graph import check_window, relation_types, window_edges


class Cogmen(Host):
    r"""Fusion, transformer over the dialogue, relational convolution and graph attention over a window, classifier.

    With contexts :math:`g_i` and the window :math:`N(i)` of `window_past` utterances before to `window_future` after i:

    .. math::
        h_i = W_0 g_i + b + \sum_r \frac{1}{|N_r(i)|} \sum_{j \in N_r(i)} W_r g_j, \qquad
        z_i = \operatorname{LeakyReLU}\Big(\operatorname{Norm}\big(W_1 h_i + \sum_{j \in N(i)} \alpha_{ij} V h_j\big)\Big)

    with relations r of :math:`2 P^2`, both speakers and whether j comes before i, and attention weights
    :math:`\alpha_{ij} = \operatorname{softmax}_j (Q h_i)^\top K h_j / \sqrt d` a head; then a two-layer classifier.

    Source: Joshi et al., "COGMEN: COntextualized GNN based Multimodal Emotion recognitioN", NAACL 2022; code
    Exploration-Lab/COGMEN @8c00c9bfec.

    `variant="official"` computes what that code does: `hosts/official/cogmen.py` says what it does differently.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late` (an encoder per modality, then the fusion, then the graph) or `early` (the fusion, then one encoder;
        the published form, with `concat` of audio, text and visual).
    base : encoder of a dialogue: `transformer`, `lstm`, `gru`, or `mlp` for none.
    hidden : width of convolution, head of the attention, and classifier.
    context_width : of the contexts; None is `hidden`.
    layers : of the encoder.
    inner : width of the transformer; None is `hidden`.
    heads : of the graph attention.
    window_past, window_future : neighbours on each side; None for all.
    joined : the classifier reads contexts and graph, not the graph alone.
    highway : a highway layer before the classifier.
    dropout : in the encoders, on what the fusion returns, on the contexts and in the classifier.
    input_dropout : on the features.
    speaker_embedding : add a learnt vector of the speaker to the contexts.
    fusion_width : width of what the fusion returns; None is the summed width, of contexts if late.
    text_views : how many views lie side by side in the first modality (4 of RoBERTa's layers, in COSMIC's features); they
        are normalised and averaged.
    views_norm : `layer`, `batch` or `none`.
    variant : see above.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; attention `graph` `(B, heads, T, T)`.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.cogmen:OfficialCogmen"}
    placements: ClassVar[tuple[str, ...]] = ("late", "early")
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
        context_width: int | None = None,
        layers: int = 2,
        inner: int | None = None,
        heads: int = 1,
        window_past: int | None = 5,
        window_future: int | None = 5,
        joined: bool = True,
        highway: bool = False,
        dropout: float = 0.4,
        input_dropout: float = 0.2,
        speaker_embedding: bool = True,
        fusion_width: int | None = None,
        text_views: int = 1,
        views_norm: str = "layer",
        variant: str = "default",
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement, fusion_width=fusion_width)
        self.hidden = check_positive(hidden, "hidden", self)
        self.input_dropout = Dropout(check_probability(input_dropout, "input_dropout", self))
        self.context_dropout = Dropout(check_probability(dropout, "dropout", self))
        self.window = check_window(window_past, "window_past"), check_window(window_future, "window_future")
        self.joined = joined
        self.views = views_of(self, text_views, views_norm)
        context = check_positive(context_width or hidden, "context_width", self)
        self.encoders = nn.ModuleList()  # before an early fusion, in whose order optimizers know the parameters
        widths = self.seam("early", widths_of(self.views, self.dims), "sum")
        self.encoders.extend(
            self.build_encoder(w, context, base, layers=layers, dropout=dropout, inner=inner) for w in widths.values()
        )
        (width,) = self.seam("late", dict.fromkeys(widths, context), "sum").values()
        self.speakers = nn.Embedding(self.num_speakers, width) if speaker_embedding else None
        # Here and not above: torch-geometric is slow to import and the card of this host must not wait for it.
        from fusionzoo_adapters.parts.relational_convolution import WeightedRGCNConv

        self.convolution = WeightedRGCNConv(width, hidden, 2 * self.num_speakers**2, None)
        self.attention = BandAttention(hidden, hidden, check_positive(heads, "heads", self))
        after = hidden * heads
        self.norm = self.graph_norm(after)
        read = after + width * self.joined
        self.highway = Highway(read) if highway else None
        self.head = Head(read, hidden, self.num_classes, dropout)

    def build_encoder(self, width: int, out: int, base: str, *, inner: int | None, **options: Any) -> SequenceEncoder:
        """The encoder of one stream."""
        return SequenceEncoder(width, out, base, inner=inner or self.hidden, **options)

    def run(self, streams: dict[str, Tensor | None], dialogues: Dialogues) -> Tensor:
        packing, tokens = dialogues.packing, self.tokens(dialogues.packing)
        streams = averaged(self.views, streams, dialogues.present)
        streams = {m: None if x is None else self.input_dropout(x) for m, x in streams.items()}
        streams = self.fuse_at("early", streams, dialogues)
        encoded = {
            m: None if x is None else encode(x, packing, dialogues.mask, tokens)
            for encode, (m, x) in zip(self.encoders, streams.items(), strict=True)
        }
        (x,) = self.fuse_at("late", encoded, dialogues).values()
        assert x is not None
        contexts, speakers = packing.pack(self.context_dropout(x)), packing.pack(dialogues.speakers)
        if self.speakers is not None:
            contexts = contexts + self.speakers(speakers)
        dialogues.streams["context"] = packing.unpack(contexts)
        nodes = self.graph(contexts, speakers, dialogues)
        if self.joined:
            nodes = torch.cat([contexts, nodes], -1)
        if self.highway is not None:
            nodes = self.highway(nodes)
        return packing.unpack(self.head(nodes))

    def graph(self, contexts: Tensor, speakers: Tensor, dialogues: Dialogues) -> Tensor:
        """Packed contexts and speakers to `(N, heads * hidden)`."""
        window = self.neighbours()
        edges = window_edges(dialogues.packing, *window)
        types = relation_types(edges.neighbour, edges.centre, speakers, self.num_speakers)
        x = self.convolution(contexts, torch.stack([edges.neighbour, edges.centre]), types)
        band = Band(dialogues.packing, *window)
        x, maps = self.attention(x.unsqueeze(0), band, need_weights=dialogues.keep_attention)
        dialogues.show_attention(graph=None if maps is None else maps[0])
        return F.leaky_relu(self.norm(x[0]))

    def neighbours(self) -> tuple[int | None, int | None]:
        """How many utterances before and after itself an utterance sees."""
        return self.window

    def tokens(self, packing: Packing) -> Tokens:
        """The utterances that a transformer reads."""
        return Tokens(packing)


fusionzoo_register = fusionzoo.plugin(
    Cogmen,
    summary="transformer over the dialogue, then relational convolution and graph attention over a window",
    paper="COGMEN: COntextualized GNN based Multimodal Emotion recognitioN, https://aclanthology.org/2022.naacl-main.306",
    code="https://github.com/Exploration-Lab/COGMEN/tree/8c00c9bfec",
    level="dialogue",
)
