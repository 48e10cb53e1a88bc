"""A small host that keeps every rule, and one that breaks each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn

from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Fusion
from fusionzoo.host import Host, HostOutput, build_fusion
from fusionzoo.numerics import masked_softmax, zero_padded
from fusionzoo.specs import Spec


class SoundHost(Host):
    """One attention over the dialogue before or after a fusion, and a linear classifier.

    Source: written for the tests of fusionzoo, 2025. Options: width of the context.
    Shapes: features `(B, T, d_m)` -> logits `(B, T, C)`.
    """

    placements = ("early", "late")

    without_effect: ClassVar[dict[str, str]] = {"width": "of placement='late' alone"}

    def __init__(self, dims, num_classes, num_speakers, fusion="concat", placement=None, *, width: int = 6):
        check_positive(width, "width", self)
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        if len(self.dims) < 2:
            raise OptionError(f"SoundHost fuses two modalities or more, got {self.names}")
        late = self.placement == "late"
        self.project = nn.ModuleList(nn.Linear(d, width) for d in self.dims.values()) if late else None
        self.fusion = self.make_fusion(dict.fromkeys(self.names, width) if late else self.dims, None)
        self.context = nn.Linear(self.fusion.out_dim, self.fusion.out_dim)
        self.speaker = nn.Embedding(self.num_speakers, self.fusion.out_dim)
        self.head = nn.Linear(self.fusion.out_dim, self.num_classes)

    def streams(self, features: Any, batch: Any) -> list[Any]:
        tensors = [features.get(m) for m in self.names]
        if self.project is None:
            return tensors
        return [None if x is None else p(x) for x, p in zip(tensors, self.project, strict=True)]

    def mask(self, batch):
        return batch.mask

    def speakers(self, batch):
        return batch.speakers.clamp(max=self.num_speakers - 1)

    def encode(self, features, mask, batch):
        fused = self.fusion.fuse(dict(zip(self.fusion.names, self.streams(features, batch), strict=True)), mask)
        x = torch.tanh(fused.fused + zero_padded(self.speaker(self.speakers(batch)), batch.mask).to(fused.fused.dtype))
        keys = self.mask(batch)
        weights = masked_softmax(self.context(x) @ x.transpose(1, 2), None if keys is None else keys.unsqueeze(1))
        return self.finish(fused, x + weights @ x, batch)

    def finish(self, fused, x, batch):
        return self.fused_output(fused, self.head(x))


SPEC = Spec(
    name="sound-host",
    kind="host",
    target="host_breakers:SoundHost",
    summary="attention over the dialogue",
    paper="none; written for the tests",
    placements=SoundHost.placements,
)
BREAKERS: dict[str, tuple[type, Spec, frozenset[str]]] = {}


def breaks(check: str, *also: str, spec: dict[str, Any] | None = None):
    def collect(cls):
        cls.__doc__ = SoundHost.__doc__
        assert check not in BREAKERS
        own = replace(SPEC, target=f"host_breakers:{cls.__qualname__}")
        BREAKERS[check] = (cls, replace(own, **(spec or {})), frozenset(also))
        return cls

    return collect


@breaks("constructs")
class NeedsMore(SoundHost):
    def __init__(self, dims, num_classes, num_speakers, fusion="concat", placement=None, *, width):
        super().__init__(dims, num_classes, num_speakers, fusion, placement, width=width)


@breaks("runs")
class ReturnsATensor(SoundHost):
    def forward(self, batch):
        return super().forward(batch).logits


@breaks("output_contents")
class UnbatchedStream(SoundHost):
    def finish(self, fused, x, batch):
        out = super().finish(fused, x, batch)
        out.streams["extra"] = x[0]
        return out


@breaks("class_counts")
class ThreeClasses(SoundHost):
    def __init__(self, dims, num_classes, num_speakers, fusion="concat", placement=None, *, width=6):
        super().__init__(dims, num_classes, num_speakers, fusion, placement, width=width)
        self.head = nn.Linear(self.fusion.out_dim, 3)


@breaks("placements", spec={"placements": ("early",)})
class UndeclaredPlacement(SoundHost):
    pass


@breaks("takes_any_fusion", "fusion_forms")
class OnlyConcat(SoundHost):
    def make_fusion(self, dims, out_dim=None):
        if self.fusion_like != "concat":
            raise KeyError(self.fusion_like)
        return super().make_fusion(dims, out_dim)


@breaks("fusion_forms")
class CopiesInstances(SoundHost):
    def make_fusion(self, dims, out_dim=None):
        if isinstance(self.fusion_like, Fusion):
            return build_fusion("concat", dims, self.fusion_like.out_dim)
        return super().make_fusion(dims, out_dim)


@breaks("fusion_called", "gradient_to_modalities", "gradient_to_parameters", "missing_modality", "statistics_travel")
class IgnoresFusion(SoundHost):
    def finish(self, fused, x, batch):
        return self.fused_output(fused, self.head(self.speaker(self.speakers(batch))))


@breaks("fusion_losses_kept")
class DropsLosses(SoundHost):
    def finish(self, fused, x, batch):
        return HostOutput(self.head(x))


@breaks("single_modality", spec={"modalities": (1, None)})
class ClaimsOne(SoundHost):
    pass


@breaks("more_speakers")
class IndexesSpeakers(SoundHost):
    def speakers(self, batch):
        return batch.speakers


@breaks("unknown_modality_refused")
class DropsUnknown(SoundHost):
    def _check(self, batch):
        for m in [m for m in batch.features if m not in self.dims]:
            del batch.features[m]
        super()._check(batch)


@breaks("wrong_width_refused")
class Crops(SoundHost):
    def forward(self, batch):
        features = {m: x[..., : self.dims.get(m)] for m, x in batch.features.items()}
        return super().forward(replace(batch, features=features))


@breaks("padding_output_zero")
class BiasAfterMask(SoundHost):
    def forward(self, batch):
        out = super().forward(batch)
        out.logits = out.logits + 0.1
        return out


@breaks("padding_poison", "padding_gradient", "missing_items")
class MultipliesByMask(SoundHost):
    def finish(self, fused, x, batch):
        raw = batch.features.get(self.names[0])
        if raw is not None and batch.present is None:
            x = x + (raw * batch.mask.unsqueeze(-1)).mean((1, 2), keepdim=True) * batch.mask.shape[1]
        return super().finish(fused, x, batch)


@breaks("padding_gradient", "missing_items")
class MasksTooLate(SoundHost):
    def finish(self, fused, x, batch):
        raw = batch.features.get(self.names[0])
        if raw is not None and batch.present is None:
            x = x + zero_padded(self.speaker.weight.mean() * raw.mean(-1, keepdim=True), batch.mask)
        return super().finish(fused, x, batch)


@breaks("padding_length", "batch_size")
class AttendsToPadding(SoundHost):
    def mask(self, batch):
        return None


@breaks("padding_speakers")
class CountsSpeakers(SoundHost):
    def finish(self, fused, x, batch):
        return super().finish(fused, x + 0.1 * self.speakers(batch).sum(1)[:, None, None], batch)


@breaks("batch_independence", "batch_size", "missing_items")
class BatchLeak(SoundHost):
    def finish(self, fused, x, batch):
        return super().finish(fused, x + zero_padded(x, batch.mask).sum((0, 1)) / batch.mask.sum(), batch)


@breaks("batch_size")
class DividesByBatch(SoundHost):
    def finish(self, fused, x, batch):
        return super().finish(fused, x / batch.mask.shape[0], batch)


@breaks("batch_order", "batch_size")
class NumbersDialogues(SoundHost):
    def finish(self, fused, x, batch):
        return super().finish(fused, x + torch.arange(len(x)).to(x)[:, None, None], batch)


@breaks("labels_unread")
class PeeksInTraining(SoundHost):
    def finish(self, fused, x, batch):
        if self.training:
            x = x + 0.1 * batch.labels.clamp(min=0).unsqueeze(-1).to(x.dtype)
        return super().finish(fused, x, batch)


@breaks("lengths_optional")
class NeedsLengths(SoundHost):
    def finish(self, fused, x, batch):
        return super().finish(fused, x, batch) if batch.lengths is not None else HostOutput(self.head(x) * 0)


@breaks("inputs_untouched")
class WritesSpeakers(SoundHost):
    def finish(self, fused, x, batch):
        out = super().finish(fused, x, batch)
        batch.labels[batch.mask] = 0
        return out


@breaks("single_item")
class BatchNorm(SoundHost):
    def __init__(self, dims, num_classes, num_speakers, fusion="concat", placement=None, *, width=6):
        super().__init__(dims, num_classes, num_speakers, fusion, placement, width=width)
        self.norm = nn.BatchNorm1d(self.fusion.out_dim, affine=False)

    def finish(self, fused, x, batch):
        return super().finish(fused, self.norm(x.transpose(1, 2)).transpose(1, 2), batch)


@breaks("missing_modality")
class NeedsAll(SoundHost):
    def streams(self, features, batch):
        return [x * 1.0 for x in super().streams(features, batch)]


@breaks("missing_items")
class FillsMissing(SoundHost):
    def encode(self, features, mask, batch):
        return super().encode(
            features, batch.mask if batch.present is None else dict.fromkeys(self.names, batch.mask), batch
        )

    def forward(self, batch):
        # Features as they came, standardised but not cleaned where a modality is missing.
        if batch.present is None:
            return super().forward(batch)
        return super().forward(replace(batch, present=None))


@breaks("gradient_to_modalities")
class DetachesAudio(SoundHost):
    def streams(self, features, batch):
        return [x.detach() if i == 1 and x is not None else x for i, x in enumerate(super().streams(features, batch))]


@breaks("statistics_travel")
class OwnFeatures(SoundHost):
    def encode(self, features, mask, batch):
        clean = {m: None if x is None else zero_padded(batch.features[m], batch.mask) for m, x in features.items()}
        if isinstance(mask, dict):
            clean = {m: x if x is None or m not in mask else zero_padded(x, mask[m]) for m, x in clean.items()}
        return super().encode(clean, mask, batch)


@breaks("autocast")
class CopiesByIndex(SoundHost):
    def finish(self, fused, x, batch):
        mixed = self.context(x)
        rows = torch.arange(mixed.shape[1])
        out = torch.zeros(mixed.shape, dtype=self.head.weight.dtype)
        return super().finish(fused, out.index_copy_(1, rows, mixed), batch)
