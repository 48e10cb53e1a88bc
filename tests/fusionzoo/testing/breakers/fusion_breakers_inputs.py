"""Broken fusions: registration, construction, inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from sound_fusions import SPEC, Sound, SoundUnaligned, breaks
from torch import nn

from fusionzoo.fusion import MISSING
from fusionzoo.numerics import masked_softmax

# -- registration ------------------------------------------------------------------------------------------------


@breaks("subclasses_base")
class NotAFusion(nn.Module):
    pass


@breaks("spec_target", spec={"target": "somewhere:Other"})
class OtherTarget(Sound):
    pass


@breaks("spec_summary", spec={"summary": ""})
class NoSummary(Sound):
    pass


@breaks("spec_source", spec={"paper": "", "code": ""})
class NoPaper(Sound):
    pass


@breaks("spec_defaults", spec={"defaults": {"depth": 3}})
class UnknownDefault(Sound):
    pass


@breaks("spec_variants", spec={"variants": ("default", "official")}, keep_doc=True)
class AnyVariant(Sound):
    __doc__ = f"{Sound.__doc__} variant: not looked at."

    def __init__(self, dims, out_dim=None, *, width=6, variant="default", missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)


@breaks("docstring_present", keep_doc=True)
class NoDocstring(Sound):
    pass


@breaks("docstring_source", keep_doc=True)
class NoSource(Sound):
    """Attention over the dialogue of the mean of the projected modalities.

    Options: width of the method. Parameters: one projection per modality.
    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.
    """


@breaks("docstring_shapes", keep_doc=True)
class NoShapes(Sound):
    """Attention over the dialogue of the mean of the projected modalities.

    Options: width of the method. Parameters: one projection per modality. Source: the tests of fusionzoo, 2025.
    """


@breaks("docstring_options", keep_doc=True)
class SilentOption(Sound):
    """Attention over the dialogue of the mean of the projected modalities.

    Parameters: one projection per modality. Source: the tests of fusionzoo, 2025.
    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.
    """


@breaks("docstring_parameters", keep_doc=True)
class SilentCount(Sound):
    """Attention over the dialogue of the mean of the projected modalities.

    Options: width of the method. Source: the tests of fusionzoo, 2025.
    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.
    """


@breaks("unknown_option_refused")
class SwallowsOptions(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero", **ignored):
        super().__init__(dims, out_dim, width=width, missing=missing)


# -- construction ------------------------------------------------------------------------------------------------


@breaks("constructs")
class NeedsMore(Sound):
    def __init__(self, dims, out_dim, width, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)


@breaks("runs")
class DropsSteps(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        result.fused = result.fused[:, :2]
        return result


@breaks("options_from_sequence")
class NeedsMapping(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dict(dims), out_dim, width=width, missing=missing)


@breaks("modality_counts")
class AtMostThree(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        _text, _audio, *visual = self.project
        assert len(visual) < 2


@breaks("modality_count_refused")
class TakesOne(Sound):
    def _check_count(self):
        pass


@breaks("bad_widths_refused")
class RoundsWidths(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        if isinstance(dims, Mapping):
            dims = {m: max(1, int(d)) for m, d in dims.items()}
        super().__init__(dims, out_dim, width=width, missing=missing)


@breaks("missing_choice_refused")
class AnyMissing(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing if missing in MISSING else "zero")


@breaks("out_dim_default")
class OwnDefault(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim or 16, width=width, missing=missing)


@breaks("out_dim_honoured")
class AtLeastSix(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, None if out_dim is None else max(6, out_dim), width=width, missing=missing)


@breaks("any_widths")
class NeedsWidth(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        if min(self.dims.values()) < 2:
            raise ValueError("too narrow for my heads")


@breaks("no_needless_projection")
class AlwaysProjects(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        self.out = nn.Linear(self.width, self.out_dim)


@breaks("parameter_count")
class WrongCount(Sound):
    @classmethod
    def parameter_count(cls, dims, out_dim=None, **options):
        return super().parameter_count(dims, out_dim, **options) + 1


# -- inputs ------------------------------------------------------------------------------------------------------


@breaks("flat_input")
class NeedsSteps(Sound):
    def forward(self, streams, mask=None):
        tensors = streams.values() if isinstance(streams, Mapping) else streams
        if any(x is not None and x.dim() == 2 for x in tensors):
            raise IndexError("Dimension out of range")
        return super().forward(streams, mask)


@breaks("sequence_input")
class ReversesTuples(Sound):
    def forward(self, streams, mask=None):
        return super().forward(list(streams)[::-1] if isinstance(streams, tuple) else streams, mask)


@breaks("key_order")
class GoesByOrder(Sound):
    def forward(self, streams, mask=None):
        if isinstance(streams, Mapping) and set(streams) == set(self.names) and not isinstance(mask, Mapping):
            streams = list(streams.values())
        return super().forward(streams, mask)


@breaks("fuse_equals_call")
class OtherWithMaps(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        if streams.attention:
            result.fused = result.fused * 1.01
        return result


@breaks("fuse_contents")
class NamesStreamsFreely(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        result.streams = {"tokens": result.streams[self.anchor]}
        return result


@breaks("streams_zero_at_padding")
class ShiftsStreams(Sound):
    def fuse(self, streams, mask=None, *, attention=True):
        result = super().fuse(streams, mask, attention=attention)
        result.streams = {m: x + 1 for m, x in result.streams.items()}
        return result


@breaks("capabilities_kept", spec={"handles": SPEC.handles | {"losses"}})
class ClaimsLosses(Sound):
    pass


@breaks("attention_sums_to_one")
class WrongAxis(Sound):
    without_gradient: ClassVar = {"query.bias": "adds one number to all scores of a key, over which this softmax runs"}

    def weigh(self, scores, mask):
        pairs = None if mask is None else mask.unsqueeze(1) & mask.unsqueeze(2)
        return masked_softmax(scores, pairs, dim=-2)


@breaks("attention_not_negative")
class NegativeMaps(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        for name, weights in result.attention.items():
            there = (weights > 0).to(weights.dtype)
            result.attention[name] = 4 * weights - 3 * there / there.sum(-1, keepdim=True).clamp(min=1)
        return result


@breaks("attention_skips_padding")
class UnmaskedMaps(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        u = result.streams[self.anchor]
        if streams.attention:
            result.attention = {"self": (u @ u.transpose(1, 2)).softmax(-1)}
        return result


@breaks("inputs_untouched")
class ClipsInPlace(Sound):
    def combine(self, streams):
        if streams.mask is None:
            for x in streams.x:
                x.data.clamp_(-2, 2)
        streams.x = [x.clamp(-2, 2) for x in streams.x]
        return super().combine(streams)


@breaks("memory_layout")
class Views(Sound):
    def combine(self, streams):
        if streams.mask is None:
            streams.x = [x.view(-1).view(x.shape) for x in streams.x]
        return super().combine(streams)


@breaks("single_step", "flat_input", "training_on_one", "padding_length")
class SqueezesSteps(Sound):
    def combine(self, streams):
        streams.x[0].squeeze(1).shape[2]
        return super().combine(streams)


@breaks("single_item", "training_on_one", "padding_length", "batch_size")
class SqueezesItems(Sound):
    def combine(self, streams):
        streams.x[0].squeeze(0).shape[2]
        return super().combine(streams)


@breaks("training_on_one")
class BatchNorm(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        self.norm = nn.BatchNorm1d(self.width, affine=False)

    def tokens(self, streams):
        return self.norm(super().tokens(streams).transpose(1, 2)).transpose(1, 2)


@breaks("unaligned_lengths", spec={"handles": SPEC.handles | {"unaligned"}})
class CutsUnaligned(SoundUnaligned):
    def combine(self, streams):
        result = super().combine(streams)
        if len({x.shape[1] for x in streams.x}) > 1:
            result.fused = result.fused[:, :2]
        return result


@breaks("unaligned_declared", spec={"handles": SPEC.handles | {"unaligned"}})
class ClaimsUnaligned(Sound):
    pass


class Lenient(Sound):
    """Repairs a stream at the door instead of refusing it."""

    def repair(self, x, width):
        return x

    def _named(self, streams):
        return [
            None if x is None else self.repair(x, d)
            for x, d in zip(super()._named(streams), self.dims.values(), strict=True)
        ]


@breaks("wrong_width_refused")
class Crops(Lenient):
    def repair(self, x, width):
        return x[..., :width]


@breaks("integer_stream_refused")
class Converts(Lenient):
    def repair(self, x, width):
        return x if x.is_floating_point() else x.float()


@breaks("unknown_stream_refused")
class DropsUnknown(Sound):
    def _named(self, streams):
        if isinstance(streams, Mapping):
            streams = {m: x for m, x in streams.items() if m in self.dims}
        return super()._named(streams)


@breaks("float_mask_refused")
class AnyMask(Sound):
    def _check_mask(self, mask, x, flat, name):
        return super()._check_mask(mask.bool(), x, flat, name)


@breaks("wrong_mask_shape_refused")
class AnyMaskShape(Sound):
    def _check_mask(self, mask, x, flat, name):
        if mask.dim() == 2 and mask.shape[1] != x.shape[1] and mask.dtype == torch.bool:
            mask = torch.ones(x.shape[:2], dtype=torch.bool)
        return super()._check_mask(mask, x, flat, name)
