"""Broken fusions: earlier calls, torch's settings, options, sizes, losses, training, names of maps and streams."""

from __future__ import annotations

import torch
from sound_fusions import SPEC, Sound, SoundLosses, breaks

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Fused
from fusionzoo.numerics import masked_softmax, zero_padded

LOSSES = {"handles": SPEC.handles | {"losses"}}

# -- calls before --------------------------------------------------------------------------------------------------------


@breaks("calls_of_one_shape")
class KeepsMasks(Sound):
    """The softmax's mask by shape."""

    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        self.masks = {}

    def weigh(self, scores, mask):
        if scores.device.type == "meta" or mask is None or self.training:
            return super().weigh(scores, mask)
        kept = self.masks.setdefault(tuple(mask.shape), mask.tolist())
        return super().weigh(scores, torch.tensor(kept))


@breaks("weights_followed")
class FoldsOnce(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        self.folded = None

    def tokens(self, streams):
        u = super().tokens(streams)
        if self.training or torch.is_grad_enabled() or u.device.type == "meta":
            return u
        if self.folded is None:
            self.folded = float(self.query.bias.mean())
        return u + zero_padded(torch.full_like(u, self.folded - float(self.query.bias.mean())), streams.mask)


@breaks("copies_after_a_call")
class KeepsTheGraph(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        if self.training:
            self.last = result.fused
        return result


_TABLES: dict[int, torch.Tensor] = {}


@breaks("trains_after_inference")
class TablesOfTheModule(Sound):
    """Positions in a table of the module's file."""

    def tokens(self, streams):
        u = super().tokens(streams)
        if u.device.type == "meta" or u.dtype != torch.float32:
            return u
        table = _TABLES.setdefault(u.shape[1], torch.ones(u.shape[1], 1))
        return u * table


@breaks("trains_step_after_step", "training_follows_seed")
class RemembersTheLastStep(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        if self.training:
            before = self.__dict__.get("before")
            self.__dict__["before"] = result.fused.exp().mean()
            if before is not None:
                result.fused = zero_padded(result.fused + before.square(), streams.mask)
        return result

    def __deepcopy__(self, memo):
        self.__dict__.pop("before", None)
        new = type(self)(self.dims, self.out_dim, width=self.width, missing=self.missing)
        new.load_state_dict(self.state_dict())
        return new.train(self.training)

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "before"}


@breaks("global_state_kept")
class WatchesForAnomalies(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        torch.autograd.set_detect_anomaly(True)


@breaks("random_state_drawn_from")
class SeedsEverybody(Sound):
    def combine(self, streams):
        if self.training:
            torch.manual_seed(0)
        return super().combine(streams)


@breaks("dropout_drops", "options_act", keep_doc=True)
class NeverDrops(Sound):
    __doc__ = f"{Sound.__doc__} dropout: of nothing."

    def __init__(self, dims, out_dim=None, *, width=6, dropout=0.1, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        if not 0 <= dropout <= 1:
            raise ValueError(dropout)


# -- options -------------------------------------------------------------------------------------------------------------


@breaks("impossible_options_refused", keep_doc=True)
class AnyForm(Sound):
    __doc__ = f"{Sound.__doc__} form: sum, or anything else for a mean."

    def __init__(self, dims, out_dim=None, *, width=6, form="sum", missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        self.form = form


@breaks("options_act", keep_doc=True)
class TakesRankForNothing(Sound):
    __doc__ = f"{Sound.__doc__} rank: of nothing."

    def __init__(self, dims, out_dim=None, *, width=6, rank=3, missing="zero"):
        if rank < 1 or rank != int(rank):
            raise ValueError(rank)
        super().__init__(dims, out_dim, width=width, missing=missing)


# -- sizes ---------------------------------------------------------------------------------------------------------------


@breaks("long_sequences")
class TableOf128(Sound):
    def tokens(self, streams):
        u = super().tokens(streams)
        places = torch.linspace(0, 1, 128, device=u.device, dtype=u.dtype)
        return zero_padded(u + places[torch.arange(u.shape[1], device=u.device)].unsqueeze(1), streams.mask)


@breaks("more_modalities")
class ReadsThree(Sound):
    def tokens(self, streams):
        if len(self.names) == 3:
            return super().tokens(streams)
        parts = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        return torch.stack(parts[:3], -1).mean(-1)


@breaks("equal_widths")
class ProjectsByWidth(Sound):
    def tokens(self, streams):
        widths = list(self.dims.values())
        maps = [self.project[widths.index(x.shape[-1])] for x in streams.x]
        parts = [zero_padded(p(x), m) for p, x, m in zip(maps, streams.x, streams.present, strict=True)]
        count = streams.presence()
        total = torch.stack(parts, -1).sum(-1)
        return total / (len(parts) if count is None else count.sum(-1).clamp(min=1).unsqueeze(-1).to(total.dtype))


@breaks("narrow_anchor")
class WidestIsTheAnchor(Sound):
    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        widths = dims.values() if hasattr(dims, "values") else dims
        whole = all(isinstance(w, int) and w > 0 for w in widths)
        super().__init__(dims, out_dim or (max(widths) if whole and widths else None), width=width, missing=missing)


@breaks("names_are_free")
class SortsNames(Sound):
    def tokens(self, streams):
        u = super().tokens(streams)
        return u * (1.0 + 0.1 * sorted(self.names).index(self.anchor))


# -- auxiliary losses ----------------------------------------------------------------------------------------------------


@breaks("losses_finite", spec=LOSSES, keep_doc=True)
class DeviatesOverItems(SoundLosses):
    __doc__ = SoundLosses.__doc__

    def loss(self, parts, masks):
        return torch.stack([p.sum(1) for p in parts]).std(1).mean()


@breaks("losses_skip_padding", spec=LOSSES, keep_doc=True)
class MeansOverPadding(SoundLosses):
    __doc__ = SoundLosses.__doc__

    def loss(self, parts, masks):
        return (parts[0] - parts[1]).square().mean()


@breaks("losses_ignore_order", spec=LOSSES, keep_doc=True)
class CouplesNeighbours(SoundLosses):
    __doc__ = SoundLosses.__doc__

    def loss(self, parts, masks):
        weights = torch.arange(1, 1 + len(parts[0]), device=parts[0].device).view(-1, 1, 1)
        return super().loss([p * weights for p in parts], masks)


@breaks("losses_without_maps", spec=LOSSES, keep_doc=True)
class LosesWithoutMaps(SoundLosses):
    __doc__ = SoundLosses.__doc__

    def combine(self, streams):
        result = super().combine(streams)
        return result if streams.attention else Fused(result.fused, result.streams)


@breaks("losses_teach", spec=LOSSES, keep_doc=True)
class DetachesItsLoss(SoundLosses):
    __doc__ = SoundLosses.__doc__

    def loss(self, parts, masks):
        return super().loss([p.detach() for p in parts], masks)


# -- training ------------------------------------------------------------------------------------------------------------


@breaks("training_skips_padding")
class ShiftsByPadding(Sound):
    def forward(self, streams, mask=None):
        out = super().forward(streams, mask)
        if not self.training or mask is None:
            return out
        first = next(iter(streams.values() if hasattr(streams, "values") else streams))
        return torch.where((out != 0) & (first.nan_to_num().detach().abs().max() > 100), out + 1, out)


@breaks("training_zero_at_padding")
class FillsPaddingInTraining(Sound):
    def forward(self, streams, mask=None):
        out = super().forward(streams, mask)
        return out + 1e-3 if self.training else out


@breaks("training_keeps_inputs", "training_zero_at_padding", "training_follows_seed")
class DropsInPlace(Sound):
    def combine(self, streams):
        if self.training:
            with torch.no_grad():
                for m in streams.present:
                    if m is not None:
                        m[:, 1:2] = True
        return super().combine(streams)


@breaks("large_values_masked")
class FillsWithAThousand(Sound):
    def weigh(self, scores, mask):
        return scores.softmax(-1) if mask is None else scores.masked_fill(~mask.unsqueeze(1), -1e3).softmax(-1)


@breaks("zeros_are_values")
class AbsentWhereZero(Sound):
    def tokens(self, streams):
        parts = [
            zero_padded(p(x) * (x.detach().abs().sum(-1, keepdim=True) != 0), m)
            for p, x, m in zip(self.project, streams.x, streams.present, strict=True)
        ]
        count = streams.presence()
        total = torch.stack(parts, -1).sum(-1)
        return total / (len(parts) if count is None else count.sum(-1).clamp(min=1).unsqueeze(-1).to(total.dtype))


# -- streams and maps ----------------------------------------------------------------------------------------------------


class WithParts(Sound):
    """Reports what each modality became, and attention from the anchor to each."""

    def combine(self, streams):
        result = super().combine(streams)
        parts = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        result.streams = dict(zip(self.labels(), parts, strict=True))
        if streams.attention:
            result.attention |= {
                f"{self.anchor}->{n}": w for n, w in zip(self.names, self.maps(parts, streams), strict=True)
            }
        return result

    def labels(self):
        return self.names

    def maps(self, parts, streams):
        masks = [None if m is None else m.unsqueeze(1) for m in streams.present]
        scores = [parts[0] @ p.transpose(1, 2) for p in parts]
        return [masked_softmax(s, m) / len(parts) for s, m in zip(scores, masks, strict=True)]


@breaks("streams_as_named")
class MixesUpLabels(WithParts):
    def labels(self):
        return self.names[1:] + self.names[:1]


@breaks("maps_as_named")
class LastMapUnderAll(WithParts):
    def maps(self, parts, streams):
        return [super().maps(parts, streams)[-1]] * len(parts)


@breaks("maps_in_order")
class MapBackwards(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        if streams.attention and streams.mask is None:
            result.attention = {"self": result.attention["self"].flip(1)}
        return result


# -- persistence ---------------------------------------------------------------------------------------------------------


@breaks("reference_refuses_parts")
class TakesWhatFits(Sound):
    def load_reference(self, state):
        fits = {k: v for k, v in state.items() if k in self.state_dict()}
        if not fits:
            raise ReferenceWeightsError("weights of something else")
        self.load_state_dict(fits, strict=False)
