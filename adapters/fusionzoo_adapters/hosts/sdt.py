"""SDT: transformers within and between modalities, gates, and a fusion of what each modality makes of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike, Host
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.grouped_attention import Tokens
from fusionzoo.kernels.packing import Packing
from fusionzoo.layers import pick_heads
from fusionzoo.numerics import zero_padded
from fusionzoo.seams import Dialogues
from fusionzoo.transformer import DialogueTransformer, sinusoidal_positions
from fusionzoo_adapters.parts.published_fusion import with_options

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

    def __init__(self, packing: Packing):
        self.tokens = Tokens(packing)

    def pack(self, x: Tensor) -> Tensor:
        return self.tokens.pack(x).unsqueeze(0)

    def unpack(self, x: Tensor) -> Tensor:
        """Zero at padded steps."""
        return self.tokens.packing.unpack(x[0])

    def positions(self, like: Tensor) -> Tensor:
        batch, steps = self.tokens.packing.size
        return self.pack(sinusoidal_positions(like.new_empty(1, steps, like.shape[-1])).expand(batch, -1, -1))


def _packed(x: Tensor | None, real: Real | None) -> Tensor | None:
    return x if x is None or real is None else real.pack(x)


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

        x : the modality, `(B, T, width)`.
        others : the further sources, None where one is missing for the whole batch.
        masks : bool `(B, T)` for x and each of the others, True where they are there.
        offset : added to all of them.
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
    variant : see above.

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
        # Its unimodal gates are those of the views.
        named = fusion if placement == "early" else with_options(fusion, FUSION, unimodal="none")
        super().__init__(dims, num_classes, num_speakers, named, placement, fusion_width=fusion_width)
        self.width = check_positive(width, "width", self)
        dropout = check_probability(dropout, "dropout", self)
        check_choice(gate, GATES, "gate", self)
        encoder = {
            "heads": pick_heads(width, heads, self),
            "hidden": hidden,
            "layers": check_positive(layers, "layers", self),
            "dropout": dropout,
        }
        self.input_dropout = Dropout(check_probability(input_dropout, "input_dropout", self))
        self.speaker_embedding = self.build_speakers() if speaker_embedding else None
        widths = self.seam("early", self.dims)
        seen = self.seam("late", dict.fromkeys(widths, width), width)
        (joined,) = self.seam("intra", seen, width).values()
        self.projections = nn.ModuleList(nn.Linear(d, width, bias=False) for d in widths.values())
        sources = len(widths) if self.placement == "late" else 1
        self.views = nn.ModuleList(View(width, sources, gate, **encoder) for _ in widths)
        alone = self.names if students and len(widths) > 1 else ()
        self.students = nn.ModuleList(nn.Linear(width, self.num_classes) for _ in alone)
        self.dropout = Dropout(dropout)
        self.student_dropout = Dropout(dropout)
        self.classifier = nn.Linear(joined, self.num_classes)

    def build_speakers(self) -> nn.Embedding:
        """A vector per speaker."""
        return nn.Embedding(self.num_speakers, self.width)

    def run(self, streams: dict[str, Tensor | None], dialogues: Dialogues) -> Tensor:
        streams = self.fuse_at("early", streams, dialogues)
        views = self.see(streams, dialogues)
        joined = self.fuse_at("late", views, dialogues)
        (z,) = self.fuse_at("intra", joined, dialogues).values()
        assert z is not None
        dialogues.show({"context": z, "fused": z} if len(views) == 1 else views)
        logits = self.classifier(self.dropout(z))
        for m, student in zip(self.names, self.students, strict=False):
            if (view := views[m]) is not None:
                dialogues.show({f"{m}.logits": student(self.student_dropout(F.relu(view)))})
        return logits

    def see(self, streams: Mapping[str, Tensor | None], dialogues: Dialogues) -> dict[str, Tensor | None]:
        """Every stream as it sees itself and, late, the others.

        Only real utterances go through the layers, unless the maps are wanted, which are padded, or the padding too is to be
        filled, or a compiler wants shapes that do not depend on the lengths.
        """
        names = list(streams)
        # One stream alone is read everywhere: it is zero where its modality was not recorded.
        masks = [dialogues.mask] if len(names) == 1 else [dialogues.present[m] for m in names]
        padded = self.fills_padding or dialogues.keep_attention or torch.compiler.is_compiling()
        real = None if padded else Real(dialogues.packing)
        offset, *tensors = [_packed(x, real) for x in (self.said(dialogues), *streams.values())]
        xs = [None if x is None else p(self.input_dropout(x)) for p, x in zip(self.projections, tensors, strict=True)]
        out: dict[str, Tensor | None] = {}
        for i, name in enumerate(names):
            x = xs[i]
            if x is not None:
                order = [i, *(n for n in range(len(xs)) if n != i)] if self.placement == "late" else [i]
                sources, seen = [xs[n] for n in order[1:]], [masks[n] for n in order]
                x, weights = self.views[i](x, sources, seen, offset, dialogues.keep_attention, real)
                dialogues.show_attention(**{f"{name}<-{names[n]}": w for n, w in zip(order, weights, strict=True)})
                x = x if real is None else real.unpack(x)
                x = x if self.fills_padding else zero_padded(x, masks[i])
            out[name] = x
        return out

    def said(self, dialogues: Dialogues) -> Tensor | None:
        """The speakers' embedding, `(B, T, width)`."""
        if self.speaker_embedding is None:
            return None
        nobody = self.speaker_embedding.padding_idx or 0
        return self.speaker_embedding(torch.where(dialogues.mask, dialogues.speakers, nobody))


fusionzoo_register = fusionzoo.plugin(
    SDT,
    summary="transformers within and between modalities, gates, and a fusion of what each modality makes of all",
    paper="A Transformer-Based Model With Self-Distillation for Multimodal Emotion Recognition in Conversations, "
    "https://arxiv.org/abs/2310.20494",
    code="https://github.com/butterfliesss/SDT/tree/60af921823",
    level="dialogue",
)
