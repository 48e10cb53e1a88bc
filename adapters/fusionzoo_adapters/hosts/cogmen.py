"""COGMEN: a transformer over the fused utterances, then a relational graph and a graph transformer over a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Dims, Fusion, MaskLike
from fusionzoo.host import FusionLike, Host, HostOutput
from fusionzoo.kernels.bands import Band, BandAttention
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.grouped_attention import Tokens
from fusionzoo.kernels.packing import Layout
from fusionzoo.reference import copy_reference_parts
from fusionzoo_adapters.parts.classifier import Head
from fusionzoo_adapters.parts.frontend import named_for
from fusionzoo_adapters.parts.sequence_encoder import UNUSED_CLASSIFIER, Highway, SequenceEncoder, scored_by_seven
from fusionzoo_adapters.parts.text_views import Views, mask_of
from fusionzoo_adapters.parts.window import check_window

if TYPE_CHECKING:
    from fusionzoo.batch import Batch


class Cogmen(Host):
    r"""Fusion, transformer over the dialogue, relational convolution and graph attention over a window, classifier.

    With contexts :math:`g_i` and the window :math:`N(i)` of `window_past` utterances before to `window_future` after i:

    .. math::
        h_i = W_0 g_i + b + \sum_r \frac{1}{|N_r(i)|} \sum_{j \in N_r(i)} W_r g_j, \qquad
        z_i = \operatorname{LeakyReLU}\Big(\operatorname{Norm}\big(W_1 h_i + \sum_{j \in N(i)} \alpha_{ij} V h_j\big)\Big)

    with relations r of :math:`2 P^2`, both speakers and whether j comes before i, and attention weights
    :math:`\alpha_{ij} = \operatorname{softmax}_j (Q h_i)^\top K h_j / \sqrt d` a head; then a two-layer classifier.

    Source: Joshi et al., "COGMEN: COntextualized GNN based Multimodal Emotion recognitioN", NAACL 2022; official code
    Exploration-Lab/COGMEN @8c00c9bfec.

    Where `variant="default"` differs from `official`:

    - edges bring the neighbours to the centre, so that `window_past` is the receiver's past; officially they run the
      other way, so that unequal windows are swapped;
    - the transformer does not attend to padding; officially it does;
    - the transformer has norms before its blocks and the width `inner`; officially norms after them, the width of the
      joined features (1380) and a feed-forward block of 2048;
    - a layer norm after the graph; officially a batch norm, which in training makes an output depend on the batch;
    - contexts know who speaks (`speaker_embedding`), and the classifier reads `[g; z]`; officially z alone.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late` (an encoder per modality, then the fusion, then the graph) or `early` (the fusion, then one encoder;
        the published form, with `concat` of audio, text and visual).
    base : encoder of a dialogue: `transformer`, `lstm`, `gru`, or `mlp` for none.
    hidden : width of convolution, head of the attention, and classifier. context_width : of the contexts; None is
        `hidden`, with `official` 200 if recurrent. layers : of the encoder. inner : width of the
        transformer; None is `hidden`, with `official` the width of what it reads.
    heads : of the graph attention. window_past, window_future : neighbours on each side; None for all.
    joined : the classifier reads contexts and graph; None is True, with `official` False (`concat_gin_gout`).
    highway : a highway layer before the classifier.
    dropout : in the encoders, on what the fusion returns, on the contexts and in the classifier; officially in encoder
        and classifier. input_dropout : on the features; None is 0.2, with `official` 0.
    speaker_embedding : add a learnt vector of the speaker to the contexts; never with `official`.
    fusion_width : width of what the fusion returns; None is the summed width, of contexts if late.
    text_views : how many views lie side by side in the first modality (4 of RoBERTa's layers, in COSMIC's features); they
        are normalised and averaged. views_norm : `layer`, `batch` or `none`.
    variant : `default` or `official`, see above.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; attention `graph` `(B, heads, T, T)`.
    """

    variants = ("default", "official")
    placements: ClassVar[tuple[str, ...]] = ("late", "early")

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
        joined: bool | None = None,
        highway: bool = False,
        dropout: float = 0.4,
        input_dropout: float | None = None,
        speaker_embedding: bool = True,
        fusion_width: int | None = None,
        text_views: int = 1,
        views_norm: str = "layer",
        variant: str = "default",
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        self.variant = check_choice(variant, self.variants, "variant", self)
        official = variant == "official"
        check_positive(hidden, "hidden", self)
        noise = (0.0 if official else 0.2) if input_dropout is None else input_dropout
        self.input_dropout = Dropout(check_probability(noise, "input_dropout", self))
        self.context_dropout = Dropout(0.0 if official else check_probability(dropout, "dropout", self))
        self.window = check_window(window_past, "window_past"), check_window(window_future, "window_future")
        self.joined = not official if joined is None else joined
        anchor = self.names[0]
        self.views = None if text_views == 1 else Views(self.dims[anchor], text_views, views_norm)
        widths = self.dims if self.views is None else {**self.dims, anchor: self.views.width}
        if fusion_width is not None:
            check_positive(fusion_width, "fusion_width", self)

        recurrent = 200 if official and base in ("lstm", "gru") else hidden
        context = check_positive(context_width or recurrent, "context_width", self)

        def encoder(width: int) -> SequenceEncoder:
            chosen = inner or (None if official else hidden)
            options = {"layers": layers, "dropout": dropout, "inner": chosen, "official": official}
            return SequenceEncoder(width, context, base, **options)

        free = isinstance(fusion, Fusion)
        self.fusion: Fusion | None = None
        self.encoders = nn.ModuleList()
        width = context
        if len(self.dims) == 1:
            del self.fusion_like
            self.encoders.append(encoder(*widths.values()))
        elif self.placement == "late":
            self.encoders.extend(encoder(w) for w in widths.values())
            total = context * len(widths)
            self.fusion = self.make_fusion(dict.fromkeys(widths, context), fusion_width or (None if free else total))
            width = self.fusion.out_dim
        else:
            self.fusion = self.make_fusion(widths, fusion_width or (None if free else sum(widths.values())))
            self.encoders.append(encoder(self.fusion.out_dim))
        self.speakers = nn.Embedding(self.num_speakers, width) if speaker_embedding and not official else None
        # Here and not above: torch-geometric is slow to import and the card of this host must not wait for it.
        from fusionzoo_adapters.parts.window_graph import WeightedRGCNConv

        self.convolution = WeightedRGCNConv(width, hidden, 2 * self.num_speakers**2, None)
        self.attention = BandAttention(hidden, hidden, check_positive(heads, "heads", self))
        after = hidden * heads
        self.norm: nn.Module = nn.BatchNorm1d(after) if official else nn.LayerNorm(after)
        read = after + width * self.joined
        self.highway = Highway(read) if highway else None
        self.head = Head(read, hidden, self.num_classes, dropout)

    def encode(self, features: dict[str, Tensor | None], mask: MaskLike, batch: Batch) -> HostOutput:
        layout = Layout.of(batch)
        # The surplus of a dialogue with more speakers than the host was built for shares the last one's parameters, and
        # padding may carry any number.
        speakers = batch.speakers.clamp(0, self.num_speakers - 1)
        tensors = [features.get(m) for m in self.names]
        if self.views is not None and tensors[0] is not None:
            tensors[0] = self.views(tensors[0], mask_of(mask, self.names[0], batch.mask))
        tensors = [None if x is None else self.input_dropout(x) for x in tensors]
        fused = None
        if self.fusion is None:
            (x,) = self._encode(tensors, layout, batch.mask)
        elif self.placement == "late":
            fused = self._fuse(self._encode(tensors, layout, batch.mask), mask)
            x = fused.fused
        else:
            fused = self._fuse(tensors, mask)
            (x,) = self._encode([fused.fused], layout, batch.mask)
        assert x is not None
        contexts = layout.pack(self.context_dropout(x))
        packed = layout.pack(speakers)
        if self.speakers is not None:
            contexts = contexts + self.speakers(packed)
        nodes, maps = self._graph(contexts, packed, layout)
        if self.joined:
            nodes = torch.cat([contexts, nodes], -1)
        if self.highway is not None:
            nodes = self.highway(nodes)
        logits = layout.unpack(self.head(nodes))
        out = HostOutput(logits) if fused is None else self.fused_output(fused, logits)
        out.streams["context"] = layout.unpack(contexts)
        if maps is not None:
            out.attention["graph"] = maps
        return out

    def _graph(self, contexts: Tensor, speakers: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None]:
        """Packed contexts and speakers to `(N, heads * hidden)`, and the attention weights if they are wanted."""
        from fusionzoo_adapters.parts.window_graph import relation_types, window_edges

        past, future = self.window
        if self.variant == "official":
            # Messages run from the centre of a window to its neighbours: the receiver sees the window mirrored.
            past, future = future, past
        edges = window_edges(layout, past, future)
        types = relation_types(edges.neighbour, edges.centre, speakers, self.num_speakers)
        x = self.convolution(contexts, torch.stack([edges.neighbour, edges.centre]), types)
        x, maps = self.attention(x.unsqueeze(0), Band(layout, past, future), need_weights=self.keep_attention)
        return F.leaky_relu(self.norm(x[0])), None if maps is None else maps[0]

    def _encode(self, tensors: list[Tensor | None], layout: Layout, mask: Tensor) -> list[Tensor | None]:
        tokens = Tokens(layout, stand_in=self.variant == "official")
        return [
            None if x is None else encoder(x, layout, mask, tokens)
            for encoder, x in zip(self.encoders, tensors, strict=True)
        ]

    def _fuse(self, tensors: list[Tensor | None], mask: MaskLike):
        assert self.fusion is not None
        return self.fusion.fuse(tensors, named_for(self.fusion, self.names, mask), attention=self.keep_attention)

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load an official `COGMEN`; `concat_gin_gout` is `joined=True`, `use_highway` is `highway=True`.

        Needs `variant="official"` and one encoder: a single modality or `early`. The official order of the joined
        features is audio, text, visual; give `dims` in that order with `concat`, whose own weights are left as they are.
        """
        if self.variant != "official" or len(self.encoders) != 1 or self.encoders[0].base == "mlp":
            raise ReferenceWeightsError(
                "Cogmen: official weights fit variant='official' with one encoder (placement='early' or one modality) "
                f"that is no mlp; this host has {self.variant!r} and {self.placement!r}"
            )
        state, (encoder,) = dict(state_dict), self.encoders
        scored_by_seven(state, self.num_classes)
        assert isinstance(encoder, SequenceEncoder)
        names = {"transformer": "transformer_encoder", "out": "transformer_out", "rnn": "rnn"}
        parts = encoder.rename(state, "rnn.", names)
        parts |= {"gcn.conv1.": self.convolution, "gcn.conv2.": self.attention, "gcn.bn.": self.norm}
        parts |= {"clf.lin1.": self.head.hidden, "clf.lin2.": self.head.out}
        if self.highway is not None:
            parts |= {f"clf.highway.{k}": v for k, v in self.highway.reference_parts().items()}
        copy_reference_parts(parts, state, ("rnn.encoding_layer.", "rnn.LayerNorm.", *UNUSED_CLASSIFIER))


fusionzoo_register = fusionzoo.plugin(
    Cogmen,
    summary="transformer over the dialogue, then relational convolution and graph attention over a window",
    paper="COGMEN: COntextualized GNN based Multimodal Emotion recognitioN, https://aclanthology.org/2022.naacl-main.306",
    code="https://github.com/Exploration-Lab/COGMEN/tree/8c00c9bfec",
    level="dialogue",
)
