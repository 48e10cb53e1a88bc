"""SDT: transformers within and between modalities, gates, and a fusion of what each modality makes of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.fusion import Dims, Fused, Fusion, MaskLike
from fusionzoo.host import FusionLike, Host, HostOutput
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.grouped_attention import Tokens
from fusionzoo.kernels.packing import Layout
from fusionzoo.layers import pick_heads
from fusionzoo.numerics import zero_padded
from fusionzoo.transformer import DialogueTransformer, sinusoidal_positions
from fusionzoo_adapters.parts.frontend import named_for
from fusionzoo_adapters.parts.published_fusion import with_options
from fusionzoo_adapters.parts.text_views import mask_of

if TYPE_CHECKING:
    from fusionzoo.batch import Batch

GATES = ("learned", "identity", "none")
FUSION = "sdt-gate"


class Gate(nn.Module):
    """A stream gates itself: `sigmoid(W x) * x`; with `learned=False` W stays as it was loaded, at first the identity."""

    def __init__(self, width: int, learned: bool = True):
        super().__init__()
        self.fc = nn.Linear(width, width, bias=False)
        if not learned:
            del self.fc.weight
            self.fc.register_buffer("weight", torch.eye(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc(x)) * x


class Real:
    """The real utterances of a batch alone, `(1, N, d)` in the place of `(B, T, d)`."""

    def __init__(self, batch: Batch):
        self.tokens = Tokens(Layout.of(batch))

    def pack(self, x: Tensor) -> Tensor:
        return self.tokens.pack(x).unsqueeze(0)

    def unpack(self, x: Tensor) -> Tensor:
        """Zero at padded steps."""
        return self.tokens.layout.unpack(x[0])

    def positions(self, like: Tensor) -> Tensor:
        batch, steps = self.tokens.layout.size
        return self.pack(sinusoidal_positions(like.new_empty(1, steps, like.shape[-1])).expand(batch, -1, -1))


class View(nn.Module):
    """One modality as seen with each of several sources: an encoder and a gate per source, and a linear map of them all.

    Parameters
    ----------
    width, heads, hidden, layers, dropout : of every `DialogueTransformer`.
    sources : how many, the modality itself first.
    gate : `"learned"`, `"identity"` or `"none"`.
    """

    def __init__(self, width: int, sources: int, gate: str, **encoder):
        super().__init__()
        self.encoders = nn.ModuleList(DialogueTransformer(width, **encoder) for _ in range(sources))
        self.gates = nn.ModuleList(
            nn.Identity() if gate == "none" else Gate(width, gate == "learned") for _ in range(sources)
        )
        self.reduce = nn.Linear(sources * width, width) if sources > 1 else None

    def forward(
        self,
        x: Tensor,
        others: Sequence[Tensor | None],
        masks: Sequence[Tensor],
        offset: Tensor | None,
        need_weights: bool = False,
        real: Real | None = None,
    ) -> tuple[Tensor, list[Tensor | None]]:
        """`(B, T, width)`, and per source the attention weights `(B, heads, T, T)` if asked for.

        x : the modality, `(B, T, width)`. others : the further sources, None where one is missing for the whole batch.
        masks : bool `(B, T)` for x and each of the others, True where they are there. offset : added to all of them.
        real : where the streams and the offset are packed, `(1, N, width)`; there are no weights then.
        """
        how: dict[str, Any] = {"need_weights": need_weights}
        if real is not None:
            how = {"positions": real.positions(x), "through": real.tokens.attend}
        seen, maps = [], []
        for i, (encode, gate) in enumerate(zip(self.encoders, self.gates, strict=True)):
            memory, weights = (None if i == 0 else others[i - 1]), None
            if i and memory is None:
                seen.append(torch.zeros_like(x))
            else:
                key_mask, somewhere = masks[i], masks[i].any(1)[:, None, None]
                if real is not None:
                    key_mask, somewhere = key_mask.unsqueeze(0), real.pack(somewhere.expand(*key_mask.shape, 1))
                stream, weights = encode(x, memory, key_mask, offset, **how)
                # A dialogue without the source is one of a batch without it.
                seen.append(gate(stream if i == 0 else torch.where(somewhere, stream, 0.0)))
            maps.append(weights)
        return (seen[0] if self.reduce is None else self.reduce(torch.cat(seen, -1))), maps


class SDT(Host):
    r"""Transformers within and between modalities, a gate per stream, and the fusion of the modalities' views.

    With :math:`x^m = P_m u^m` and one transformer for every ordered pair of modalities (queries m, keys and values n;
    sinusoidal positions and a speaker embedding are added to both):

    .. math::
        s^{mn} &= \operatorname{Transformer}_{mn}(x^m, x^n), &
        g^{mn} &= \sigma(W_{mn} s^{mn}) \odot s^{mn}, \\
        h^m &= R_m\,[g^{mm}; g^{mn_1}; g^{mn_2}; \dots] + r_m, &
        y &= W \operatorname{fusion}(h^1, \dots, h^M) + b

    Published with the fusion `sdt-gate` (`unimodal="none"`, for its unimodal gates are those of :math:`g^{mn}`) and the
    objectives `cross-entropy` and `self-distillation`. The latter finds :math:`h^m` in the streams named like the
    modalities and builds upon them the published classifiers of single modalities, or, with `students=True`, finds their
    logits in the streams `"<modality>.logits"`.

    Source: Ma et al., "A Transformer-Based Model With Self-Distillation for Multimodal Emotion Recognition in
    Conversations", IEEE TMM 26, 2024, arXiv 2310.20494; code butterfliesss/SDT@60af921823, `model.py`.

    `variant="official"` computes what that code does: `hosts/official/sdt.py` says what it does differently.

    Parameters
    ----------
    dims, num_classes, num_speakers : as for every host.
    fusion : as for every host; `sdt-gate` by name is built with `unimodal="none"`.
    placement : `late` (all transformers, then the fusion in the place of the last gate), `intra` (the transformers within
        the modalities alone, then the fusion, so that nothing else joins modalities), or `early` (the fusion of the
        features, then one transformer).
    width : of the transformers.
    heads : None for the largest of 8, 4, 2, 1 that divides the width.
    hidden : of the feed-forward blocks; None for `width`.
    layers : of every transformer.
    gate : `learned`; `identity`, W fixed, as published for MELD; or `none`.
    dropout : in the transformers, on what the fusion returns and in the students.
    input_dropout : on the features.
    speaker_embedding : False leaves it out.
    students : classifiers of the single modalities in the host. Prediction does without.
    fusion_width : width of what the fusion returns; None for `width`, or if it comes early the anchor's.
    variant : `"default"` or `"official"`, see above.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; streams `fused`, one per modality `(B, T, width)`; attention
    `"text<-audio"` `(B, heads, T, T)`: what text reads of audio.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.sdt:OfficialSDT"}
    placements: ClassVar[tuple[str, ...]] = ("late", "intra", "early")
    #: Whether the layers make something of padded utterances too.
    fills_padding: ClassVar[bool] = False

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = FUSION,
        placement: str | None = None,
        *,
        width: int = 128,
        heads: int | None = None,
        hidden: int | None = None,
        layers: int = 1,
        gate: str = "learned",
        dropout: float = 0.3,
        input_dropout: float = 0.2,
        speaker_embedding: bool = True,
        students: bool = False,
        fusion_width: int | None = None,
        variant: str = "default",
    ):
        late = placement != "early"
        super().__init__(
            dims,
            num_classes,
            num_speakers,
            with_options(fusion, FUSION, unimodal="none") if late else fusion,
            placement,
        )
        self.width = check_positive(width, "width", self)
        dropout = check_probability(dropout, "dropout", self)
        check_choice(gate, GATES, "gate", self)
        if fusion_width is not None:
            check_positive(fusion_width, "fusion_width", self)
        encoder = {
            "heads": pick_heads(width, heads, self),
            "hidden": hidden,
            "layers": check_positive(layers, "layers", self),
            "dropout": dropout,
        }
        self.input_dropout = Dropout(check_probability(input_dropout, "input_dropout", self))
        self.speaker_embedding = self.build_speakers() if speaker_embedding else None
        self.fusion: Fusion | None = None
        inputs, joined = list(self.dims.values()), width
        if len(self.dims) == 1:
            del self.fusion_like
        elif self.placement == "early":
            self.fusion = self.make_fusion(self.dims, fusion_width)
            inputs = [self.fusion.out_dim]
        else:
            # An instance brings its own width; its dims and out_dim are checked where they must fit.
            free = None if isinstance(fusion, Fusion) else width
            self.fusion = self.make_fusion(dict.fromkeys(self.dims, width), fusion_width or free)
            joined = self.fusion.out_dim
        self.projections = nn.ModuleList(nn.Linear(d, width, bias=False) for d in inputs)
        sources = len(inputs) if self.placement == "late" else 1
        self.views = nn.ModuleList(View(width, sources, gate, **encoder) for _ in inputs)
        self.students = nn.ModuleList()
        if students and self.fusion is not None and self.placement != "early":
            self.students.extend(nn.Linear(width, self.num_classes) for _ in inputs)
        self.dropout = Dropout(dropout)
        self.student_dropout = Dropout(dropout)
        self.classifier = nn.Linear(joined, self.num_classes)

    def build_speakers(self) -> nn.Embedding:
        """A vector per speaker."""
        return nn.Embedding(self.num_speakers, self.width)

    def encode(self, features: dict[str, Tensor | None], mask: MaskLike, batch: Batch) -> HostOutput:
        tensors = [features[m] for m in self.names]
        maps: dict[str, Tensor] = {}
        if self.fusion is None or self.placement == "early":
            fused = None if self.fusion is None else self.fuse_streams(self.fusion, tensors, mask)
            tensors = tensors if fused is None else [fused.fused]
            masks = [batch.mask]
            (z,) = self._views(tensors, masks, batch, self.names[:1] if fused is None else ("fused",), maps)
            assert z is not None
            streams = {"context": z}
        else:
            masks = [mask_of(mask, m, batch.mask) for m in self.names]
            xs = self._views(tensors, masks, batch, self.names, maps)
            fused = self.fuse_streams(self.fusion, xs, mask)
            streams = {m: x for m, x in zip(self.names, xs, strict=True) if x is not None}
            z = fused.fused
        logits = self.classifier(self.dropout(z))
        out = HostOutput(logits, {"fused": z}) if fused is None else self.fused_output(fused, logits)
        out.streams = {**streams, **out.streams}
        for m, student in zip(self.names, self.students, strict=False):
            if m in streams:
                out.streams[f"{m}.logits"] = student(self.student_dropout(F.relu(streams[m])))
        if self.keep_attention:
            out.attention |= maps
        return out

    def _offset(self, batch: Batch) -> Tensor | None:
        """The speakers' embedding, `(B, T, width)`."""
        if self.speaker_embedding is None:
            return None
        # The surplus of a dialogue with more speakers than the host was built for shares the last one's parameters.
        speakers = batch.speakers.clamp(0, self.num_speakers - 1)
        return self.speaker_embedding(torch.where(batch.mask, speakers, self.speaker_embedding.padding_idx or 0))

    def _views(
        self,
        tensors: Sequence[Tensor | None],
        masks: Sequence[Tensor],
        batch: Batch,
        names: Sequence[str],
        maps: dict[str, Tensor],
    ) -> list[Tensor | None]:
        """Every stream as it sees itself and, late, the others; attention weights go into `maps`.

        Only real utterances go through the layers, unless the maps are wanted, which are padded, or the padding too is to be
        filled, or a compiler wants shapes that do not depend on the lengths.
        """
        offset = self._offset(batch)
        padded = self.fills_padding or self.keep_attention or torch.compiler.is_compiling()
        real = None if padded else Real(batch)
        if real is not None:
            tensors = [None if x is None else real.pack(x) for x in tensors]
            offset = None if offset is None else real.pack(offset)
        xs = [None if x is None else p(self.input_dropout(x)) for p, x in zip(self.projections, tensors, strict=True)]
        out: list[Tensor | None] = []
        for i, (view, x) in enumerate(zip(self.views, xs, strict=True)):
            if x is not None:
                order = [i, *(n for n in range(len(xs)) if n != i)] if self.placement == "late" else [i]
                sources, seen = [xs[n] for n in order[1:]], [masks[n] for n in order]
                x, weights = view(x, sources, seen, offset, self.keep_attention, real)
                x = x if real is None else real.unpack(x)
                maps |= {f"{names[i]}<-{names[n]}": w for n, w in zip(order, weights, strict=True) if w is not None}
                x = x if self.fills_padding else zero_padded(x, masks[i])
            out.append(x)
        return out

    def fuse_streams(self, fusion: Fusion, tensors: Sequence[Tensor | None], mask: MaskLike) -> Fused:
        """The fusion of features or views."""
        return fusion.fuse(list(tensors), named_for(fusion, self.names, mask), attention=self.keep_attention)


fusionzoo_register = fusionzoo.plugin(
    SDT,
    summary="transformers within and between modalities, gates, and a fusion of what each modality makes of all",
    paper="A Transformer-Based Model With Self-Distillation for Multimodal Emotion Recognition in Conversations, "
    "https://arxiv.org/abs/2310.20494",
    code="https://github.com/butterfliesss/SDT/tree/60af921823",
    level="dialogue",
)
