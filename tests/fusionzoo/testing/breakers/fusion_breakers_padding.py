"""Broken fusions: padding and batch, missing modalities."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from sound_fusions import Sound, breaks

from fusionzoo.numerics import zero_padded


def steps_of(mask, x):
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask


class ReadsRaw(Sound):
    """Adds something computed from the streams before the base class has cleaned them."""

    def extra(self, raw, step):
        raise NotImplementedError

    def _stand_in(self, tensors, masks, step, attention):
        like = next(x for x in tensors if x is not None)
        self._extra = self.extra(like, step) if all(x is not None for x in tensors) else None
        return super()._stand_in(tensors, masks, step, attention)

    def combine(self, streams):
        result = super().combine(streams)
        extra, self._extra = self._extra, None
        if extra is not None:
            result.fused = result.fused + extra
        return result


# -- padding and batch -------------------------------------------------------------------------------------------


@breaks("padding_output_zero", "fully_masked_row", "mask_gap")
class BiasAfterMask(Sound):
    def _run(self, streams, mask, attention):
        result = super()._run(streams, mask, attention)
        result.fused = result.fused + 0.1
        return result


@breaks("padding_poison", "padding_poison_gradient", "mask_gap", "missing_call_equals_items", "missing_values_unread")
class MultipliesByMask(ReadsRaw):
    def extra(self, raw, step):
        return (raw * steps_of(step, raw).unsqueeze(-1)).sum((1, 2), keepdim=True) * 0.1


@breaks("padding_poison_gradient", "mask_gap", "missing_call_equals_items", "missing_values_unread")
class MasksTooLate(ReadsRaw):
    def extra(self, raw, step):
        return zero_padded(raw.square().mean(-1, keepdim=True), step)


@breaks("padding_content")
class LooksForOutliers(ReadsRaw):
    def extra(self, raw, step):
        return (raw.nan_to_num(0.0).abs().amax((1, 2), keepdim=True) > 100).to(raw.dtype)


@breaks("padding_length")
class MeanOverPadding(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        result.fused = result.fused + zero_padded(self.tokens(streams), streams.mask).mean(1, keepdim=True)
        return result


@breaks("mask_gap")
class CountsSteps(Sound):
    def combine(self, streams):
        if streams.mask is not None:
            steps = torch.arange(streams.mask.shape[1], device=streams.mask.device)
            streams.mask = steps < streams.mask.sum(1, keepdim=True)
        result = super().combine(streams)
        result.fused = zero_padded(result.fused, streams.mask)
        return result


@breaks("full_mask")
class MaskChangesScale(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        if streams.mask is None:
            result.fused = result.fused * 1.01
        return result


@breaks("mask_mapping", "missing_call_equals_items")
class MappingChangesScale(Sound):
    def forward(self, streams, mask=None):
        return super().forward(streams, mask) * (1.01 if isinstance(mask, Mapping) else 1.0)


@breaks("fully_masked_row")
class FillsEmptyRows(Sound):
    def _run(self, streams, mask, attention):
        result = super()._run(streams, mask, attention)
        if isinstance(mask, torch.Tensor) and mask.dim() == 2 and result.fused.dim() == 3:
            result.fused = torch.where(mask.any(1)[:, None, None], result.fused, torch.nan)
        return result


@breaks("fully_masked_gradient")
class SoftmaxOfInfinity(Sound):
    def weigh(self, scores, mask):
        return scores.softmax(-1) if mask is None else scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)


@breaks("batch_independence", "batch_size", "batch_gradient", "padding_length", "missing_items_independent")
class BatchLeak(Sound):
    def tokens(self, streams):
        u = super().tokens(streams)
        return u + 0.1 * zero_padded(u, streams.mask).mean((0, 1), keepdim=True)


@breaks("batch_size", "padding_length")
class DividesByBatch(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        result.fused = result.fused / streams.shape[0]
        return result


@breaks("batch_order", "batch_size", "padding_length")
class NumbersItems(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        numbers = torch.arange(streams.shape[0], device=result.fused.device, dtype=result.fused.dtype)
        result.fused = result.fused + numbers[:, None, None]
        return result


@breaks("batch_gradient", "gradcheck")
class GradientLeak(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        mean = result.fused.mean(0)
        result.fused = result.fused + (mean - mean.detach())
        return result


@breaks("level_as_declared", spec={"level": "utterance"})
class ClaimsUtterance(Sound):
    pass


# -- missing modalities ------------------------------------------------------------------------------------------


def absent(streams):
    return [m for m in ("text", "audio", "visual") if isinstance(streams, Mapping) and streams.get(m) is None]


@breaks("missing_any", "missing_call_equals_items")
class NeedsAnchor(Sound):
    def forward(self, streams, mask=None):
        if mask is not None and absent(streams) == ["text"]:
            raise KeyError("text")
        return super().forward(streams, mask)


@breaks("missing_all_but_one")
class NeedsTwo(Sound):
    def forward(self, streams, mask=None):
        if len(absent(streams)) == 2:
            raise RuntimeError("nothing to fuse")
        return super().forward(streams, mask)


@breaks("missing_every_refused")
class ZerosForNothing(Sound):
    def forward(self, streams, mask=None):
        return torch.zeros(1) if streams == {} else super().forward(streams, mask)


@breaks("missing_none_equals_absent")
class NoneIsSpecial(Sound):
    def forward(self, streams, mask=None):
        special = isinstance(streams, Mapping) and any(x is None for x in streams.values())
        return super().forward(streams, mask) * (1.01 if special else 1.0)


@breaks("missing_call_equals_items", "names_are_free")
class RescalesForAbsent(Sound):
    def forward(self, streams, mask=None):
        return super().forward(streams, mask) * (1.5 if absent(streams) and streams != {} else 1.0)


@breaks("missing_items_independent")
class OneFlagForTheBatch(Sound):
    def combine(self, streams):
        result, presence = super().combine(streams), streams.presence()
        if presence is not None and streams.mask is not None:
            complete = (presence | ~streams.mask.unsqueeze(-1)).all()
            result.fused = torch.where(complete, result.fused, result.fused * 0.5)
        return result


@breaks("missing_values_unread", "missing_call_equals_items")
class ReadsMissing(ReadsRaw):
    def extra(self, raw, step):
        return zero_padded(raw, step).sum((1, 2), keepdim=True)


@breaks("missing_noticed", "modalities_used", "gradient_to_parameters", "gradient_to_modalities", "missing_learned")
class DeafToVisual(Sound):
    def combine(self, streams):
        streams.x[-1] = torch.zeros_like(streams.x[-1])
        # Counted as present, so that its absence goes unnoticed too.
        streams.present[-1] = streams.mask
        return super().combine(streams)


@breaks("missing_learned")
class IgnoresLearned(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing="zero" if missing == "learned" else missing)


@breaks("missing_learned_idle")
class AlwaysAddsStandIns(Sound):
    def tokens(self, streams):
        u = super().tokens(streams)
        return u + self.stand_ins[0].sum() if len(self.stand_ins) else u


@breaks("missing_error")
class ForgivesMissing(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing="zero" if missing == "error" else missing)
