"""CORECT: a relational temporal graph over all modalities beside pairwise cross-modal attention."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_choice, check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike
from fusionzoo.kernels.bands import Band, BandAttention, ModalBandConv
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.grouped_attention import MULT_NAMES, GroupedTransformer, Tokens
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import copy_reference_parts
from fusionzoo_adapters.parts.classifier import Head
from fusionzoo_adapters.parts.sequence_encoder import (
    UNUSED_CLASSIFIER,
    Highway,
    SequenceEncoder,
    rename_transformers,
    scored_by_seven,
)
from fusionzoo_adapters.parts.streams import Dialogues, StreamHost
from fusionzoo_adapters.parts.window import check_window


class Corect(StreamHost):
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
    Cross-Modality Interaction", EMNLP 2023; official code leson502/CORECT_EMNLP2023 @96ad0127f2.

    Where `variant="default"` differs from `official`:

    - edges bring the neighbours to the centre, so that `window_past` is the receiver's past, and `window_future` is the
      last step included; officially they run the other way and the last step is left out, so that 1 is the utterance
      alone and 0 takes its edge to itself away;
    - no attention, in the encoder or across modalities, reads padding; officially all do;
    - the encoder's transformer has norms before its blocks and the width `hidden`; officially norms after them, the
      width of the features and a feed-forward block of 2048;
    - a layer norm after the graph; officially a batch norm, which in training makes an output depend on the batch;
    - modalities that were not recorded are neither nodes nor keys; officially they are like others.

    The official code hands text and audio on under each other's name, which changes nothing but the names.

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late` (the fusion of what leaves graph and attention), `early` (the fusion of the features, then one
        modality), or `pre-graph` (the fusion of the encodings joins the others as one more modality).
    base : encoder of the first modality: `transformer`, `lstm`, `gru` or `mlp`; the others have `mlp`.
    hidden : width of encodings, convolution, head of the attentions, and classifier. layers : of the encoder.
    inner : width of the encoder's transformer; None is `hidden`, with `official` that of the features.
    graph : False leaves the graph out. temporal, across : its edges within and across modalities.
    window_past, window_future : neighbours on each side; None for all.
    graph_attention, heads : whether attention follows the convolution, and its heads; None is 2, with `official` 7.
    crossmodal : False leaves the cross-modal attention out. crossmodal_layers, crossmodal_heads : of every
        :math:`T_{mn}`. memory_layers, memory_heads : of every :math:`T_m`.
    speaker_embedding : add a learnt vector of the speaker to the encodings. highway : a layer before the classifier.
    dropout : in the encoder and the classifier, and by default in the cross-modal transformers and on the encodings.
    input_dropout : on the features; None is 0.2, with `official` 0.
    fusion_width : width of what the fusion returns; None is the anchor's if it comes early, `hidden` before the
        graph, the summed width if late.
    text_views : how many views lie side by side in the first modality (4 of RoBERTa's layers, in COSMIC's features); they
        are normalised and averaged. views_norm : `layer`, `batch` or `none`.
    variant : `default` or `official`, see above.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; attention `graph` `(B, M, heads, T, T)`, within modalities.
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
        heads: int | None = None,
        crossmodal: bool = True,
        crossmodal_layers: int = 2,
        crossmodal_heads: int = 2,
        memory_layers: int = 3,
        memory_heads: int = 2,
        speaker_embedding: bool = True,
        highway: bool = False,
        dropout: float = 0.4,
        input_dropout: float | None = None,
        fusion_width: int | None = None,
        text_views: int = 1,
        views_norm: str = "layer",
        variant: str = "default",
    ):
        official = check_choice(variant, self.variants, "variant", self) == "official"
        noise = (0.0 if official else 0.2) if input_dropout is None else input_dropout
        super().__init__(
            dims,
            num_classes,
            num_speakers,
            fusion,
            placement,
            input_dropout=noise,
            dropout=dropout,
            text_views=text_views,
            views_norm=views_norm,
            reads_padding=official,
        )
        self.variant, self.official = variant, official
        self.hidden = check_positive(hidden, "hidden", self)
        self.context_dropout = Dropout(0.0 if official else dropout)
        self.encoder_options = {"base": base, "layers": layers, "inner": inner or (None if official else hidden)}
        self.relations = {"temporal": temporal, "across": across}
        self.window = check_window(window_past, "window_past"), check_window(window_future, "window_future")
        self.has_graph, self.has_crossmodal, self.has_attention = graph, crossmodal, graph_attention
        self.heads = check_positive(heads or (7 if official else 2), "heads", self)
        self.depths = {"cross": crossmodal_layers, "memory": memory_layers}
        self.head_counts = {"cross": crossmodal_heads, "memory": memory_heads}
        width = self._build(hidden, fusion_width)
        self.speakers = nn.Embedding(self.num_speakers, hidden) if speaker_embedding else None
        self.highway = Highway(width) if highway else None
        self.head = Head(width, hidden, self.num_classes, dropout)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _build_encoders(self, widths: list[int]) -> None:
        first: dict[str, Any] = {**self.encoder_options, "dropout": self.dropout}
        others: dict[str, Any] = {"base": "mlp"}
        self.encoders = nn.ModuleList(
            SequenceEncoder(w, self.hidden, official=self.official, **(others if i else first))
            for i, w in enumerate(widths)
        )

    def _build_relations(self) -> int:
        hidden, modalities, after = self.hidden, len(self.nodes), 0
        self.convolution: ModalBandConv | None = None
        self.attention: BandAttention | None = None
        self.norm: nn.Module | None = None
        self.cross: GroupedTransformer | None = None
        self.memory: GroupedTransformer | None = None
        if self.has_graph:
            self.convolution = ModalBandConv(hidden, hidden, modalities, **self.relations)
            after = hidden
            if self.has_attention:
                self.attention = BandAttention(hidden, hidden, self.heads)
                after = hidden * self.heads
                self.norm = nn.BatchNorm1d(after) if self.official else nn.LayerNorm(after)
        if self.has_crossmodal and modalities > 1:
            others = hidden * (modalities - 1)
            dropout = 0.0 if self.official else self.dropout

            def transformer(kind: str, groups: int, width: int) -> GroupedTransformer:
                heads, depth = self.head_counts[kind], self.depths[kind]
                if width % check_positive(heads, f"{kind} heads", self):
                    option = "crossmodal_heads" if kind == "cross" else "memory_heads"
                    raise OptionError(f"Corect: {option}={heads} does not divide the width {width}")
                return GroupedTransformer(groups, width, depth, heads=heads, scaled=True, dropout=dropout)

            self.cross = transformer("cross", modalities * (modalities - 1), hidden)
            self.memory = transformer("memory", modalities, others)
            after += others
            reader, read = zip(*permutations(range(modalities), 2), strict=True)
            self.pairs: Tensor
            self.register_buffer("pairs", torch.tensor([reader, read]), persistent=False)
        return after or hidden

    # -- forward -------------------------------------------------------------------------------------------------------

    def _encode(self, inputs: list[Tensor | None], dialogues: Dialogues) -> list[Tensor | None]:
        tokens = Tokens(dialogues.layout, stand_in=self.official)
        return [
            None if x is None else self.context_dropout(encoder(x, dialogues.layout, dialogues.mask, tokens))
            for encoder, x in zip(self.encoders, inputs, strict=True)
        ]

    def _relate(self, nodes: list[Tensor], dialogues: Dialogues) -> list[Tensor]:
        layout = dialogues.layout
        tokens = Tokens(layout, stand_in=self.official)
        present = None if self.official else dialogues.node_presence()
        x = torch.stack([tokens.pack(node) for node in nodes])
        if self.speakers is not None:
            # At padding the first speaker, as in the official batches.
            x = x + self.speakers(tokens.pack(torch.where(dialogues.mask, dialogues.speakers, 0)))
        if present is not None:
            x = torch.where(present.unsqueeze(-1), x, 0.0)
        out = []
        if self.convolution is not None:
            out.append(self._graph(tokens.utterances(x), present, dialogues))
        if self.cross is not None:
            out.append(tokens.utterances(self._across(x, tokens, None if present is None else dialogues.present)))
        related = [layout.unpack(y) for y in (torch.cat(out, -1) if out else tokens.utterances(x))]
        if present is None:
            return related
        return [zero_padded(y, p) for y, p in zip(related, dialogues.present, strict=True)]

    def _graph(self, x: Tensor, present: Tensor | None, dialogues: Dialogues) -> Tensor:
        """Nodes `(M, N, hidden)` to `(M, N, .)`."""
        past, future = self.window
        itself = True
        if self.official:
            # Messages run from the centre of a window to its neighbours: the receiver sees the window mirrored.
            itself = future is None or future > 0
            past, future = None if future is None else max(future - 1, 0), past
        if not self.relations["temporal"]:
            past, future, itself = 0, 0, True
        assert self.convolution is not None
        band = Band(dialogues.layout, past, future, itself)
        x = self.convolution(x, band, present)
        if self.attention is None or self.norm is None:
            return x
        x, maps = self.attention(x, band, present, self.relations["across"], dialogues.keep)
        if maps is not None:
            dialogues.attention["graph"] = maps.transpose(0, 1)
        return F.leaky_relu(self.norm(x.flatten(0, 1)).view(x.shape))

    def _across(self, x: Tensor, tokens: Tokens, present: list[Tensor] | None) -> Tensor:
        """Tokens `(M, N, hidden)` to `(M, N, (M - 1) hidden)`."""
        assert self.cross is not None
        assert self.memory is not None
        modalities = len(x)
        reader, read = self.pairs
        own = None if present is None else torch.stack(present)
        mask = None if own is None else own.index_select(0, read)
        pairs = self.cross(x.index_select(0, reader), tokens, x.index_select(0, read), mask)
        # The pairs of a reader lie one after another.
        x = pairs.unflatten(0, (modalities, modalities - 1)).transpose(1, 2).flatten(2)
        return self.memory(x, tokens, None, own)

    def _read(self, x: Tensor) -> Tensor:
        return self.head(x if self.highway is None else self.highway(x))

    # -- official weights ----------------------------------------------------------------------------------------------

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load an official `CORECT`: `graph=False` is `no_gnn`, `crossmodal=False` no `use_crossmodal`, and so on.

        Needs `variant="official"`, the modalities among text, audio and visual in this order, and the fusion `concat`,
        late. An official model without text needs `base="mlp"`.
        """
        order = self._official_order("tav")
        state = dict(state_dict)
        scored_by_seven(state, self.num_classes)
        # Official names of the streams: the order is text, audio, visual, the letters are handed out in the order a, t, v.
        letters = sorted(order, key="atv".index)
        official = {"t": "text", "a": "audio", "v": "vision"}
        parts: dict[str, nn.Module] = {}
        for letter, encoder in zip(order, self.encoders, strict=True):
            assert isinstance(encoder, SequenceEncoder)
            names = {"transformer": "transformer_encoder", "out": "transformer_out", "rnn": "lstm"}
            parts |= encoder.rename(state, f"encoder.{official[letter]}_encoder.", names)
        ignored = [f"encoder.{name}_encoder." for letter, name in official.items() if letter not in order]
        if self.speakers is None:
            ignored.append("speaker_embedding.")
        else:
            parts["speaker_embedding."] = self.speakers
        if self.convolution is not None:
            parts["graph_model.gnn.conv1."] = self.convolution
        if self.attention is not None and self.norm is not None:
            parts |= {"graph_model.gnn.conv2.": self.attention, "graph_model.gnn.bn.": self.norm}
        if self.cross is not None and self.memory is not None:
            pairs = [f"crossmodal.layers.{j}{k}." for j, k in permutations(letters, 2)]
            memories = [f"crossmodal.layers.mem_{j}." for j in letters]
            for transformer, prefixes, prefix in ((self.cross, pairs, "pairs."), (self.memory, memories, "memories.")):
                rename_transformers(state, transformer, prefixes, prefix, MULT_NAMES, ("version",))
                parts[prefix] = transformer
        parts |= {"clf.lin1.": self.head.hidden, "clf.lin2.": self.head.out}
        if self.highway is not None:
            parts |= {f"clf.highway.{k}": v for k, v in self.highway.reference_parts().items()}
        self._reorder(state)
        copy_reference_parts(parts, state, (*ignored, *UNUSED_CLASSIFIER))

    def _reorder(self, state: dict[str, Tensor]) -> None:
        """Columns of the official classifier, graph of all modalities then attention of all, as ours: by modality."""
        modalities = len(self.nodes)
        graph = 0 if self.convolution is None else self.hidden * (self.heads if self.attention is not None else 1)
        others = 0 if self.cross is None else self.hidden * (modalities - 1)
        if not graph or not others:
            return
        columns = torch.arange(modalities * (graph + others))
        first, second = columns.split([modalities * graph, modalities * others])
        order = torch.cat([first.view(modalities, -1), second.view(modalities, -1)], 1).flatten()
        rows = [k for k in state if k.startswith("clf.highway.") and len(state[k]) == len(order)]
        for key in ("clf.lin1.weight", *(k for k in rows if k.endswith("weight"))):
            if key in state and state[key].shape[-1] == len(order):
                state[key] = state[key][:, order.to(state[key].device)]
        for key in rows:
            state[key] = state[key][order.to(state[key].device)]


fusionzoo_register = fusionzoo.plugin(
    Corect,
    summary="relational temporal graph over all modalities beside pairwise cross-modal attention",
    paper="Conversation Understanding using Relational Temporal Graph Neural Networks with Auxiliary Cross-Modality "
    "Interaction, EMNLP 2023, https://arxiv.org/abs/2311.04507",
    code="https://github.com/leson502/CORECT_EMNLP2023/tree/96ad0127f2",
    level="dialogue",
)
