"""A small objective that keeps every rule, and one that breaks each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from fusionzoo.errors import OptionError
from fusionzoo.objective import IGNORE, Objective
from fusionzoo.specs import Spec


class SoundObjective(Objective):
    """Mean negative log-likelihood over the labelled utterances, with a learnt temperature.

    Options: none. Source: written for the tests of fusionzoo, 2025.
    Shapes: logits `(B, T, C)`, labels `(B, T)` -> scalar.
    """

    def __init__(self, num_classes, class_counts=None):
        super().__init__(num_classes, class_counts)
        self.temperature = nn.Parameter(torch.tensor(0.1))

    def forward(self, out, batch):
        return self.reduce(self.each(out, batch), batch.labels != IGNORE)

    def each(self, out, batch):
        """Loss per utterance, `(B, T)`, zero where unlabelled."""
        logits = self.logits(out, batch).float() * self.temperature.float().exp()
        return F.cross_entropy(logits.transpose(1, 2), batch.labels, ignore_index=IGNORE, reduction="none")

    def logits(self, out, batch):
        return out.logits

    def reduce(self, losses, labelled):
        return losses.sum() / labelled.sum().clamp(min=1)


SPEC = Spec(name="sound", kind="objective", target="objective_breakers:SoundObjective", summary="cross-entropy")
BREAKERS: dict[str, tuple[type, frozenset[str], dict[str, Any] | None]] = {}


def breaks(check: str, *also: str):
    def collect(cls):
        cls.__doc__ = SoundObjective.__doc__
        assert check not in BREAKERS
        BREAKERS[check] = (cls, frozenset(also), None)
        return cls

    return collect


@breaks("constructs")
class NeedsCounts(SoundObjective):
    def __init__(self, num_classes, class_counts=None):
        super().__init__(num_classes, class_counts)
        if class_counts is None:
            raise OptionError("class counts are needed")


@breaks("runs")
class PerUtterance(SoundObjective):
    def reduce(self, losses, labelled):
        return losses


@breaks("no_labels")
class DividesByNothing(SoundObjective):
    def reduce(self, losses, labelled):
        return losses.sum() / labelled.sum()


@breaks("no_labels_backward")
class NoGraph(SoundObjective):
    def reduce(self, losses, labelled):
        return super().reduce(losses, labelled) if bool(labelled.any()) else torch.zeros(())


@breaks("one_label", "single_utterance")
class Deviation(SoundObjective):
    def reduce(self, losses, labelled):
        count = labelled.sum()
        spread = losses.sum() * 0 / (count - 1) if int(count) else 0.0
        return super().reduce(losses, labelled) + spread


@breaks("one_class")
class NeedsContrast(SoundObjective):
    def forward(self, out, batch):
        found = batch.labels[batch.labels != IGNORE].unique()
        scale = torch.where(
            torch.tensor(len(found) == 1 and batch.mask.sum() > 1 and int((batch.labels != IGNORE).sum()) > 1),
            torch.nan,
            1.0,
        )
        return super().forward(out, batch) * scale


@breaks("single_utterance")
class Neighbours(SoundObjective):
    def forward(self, out, batch):
        return super().forward(out, batch) + 0 * out.logits[:, :2].std(1).mean() * (batch.labels.numel() == 1)


@breaks("empty_class")
class InverseCounts(SoundObjective):
    def each(self, out, batch):
        weight = (
            1.0 if self.class_counts is None else (1 / self.class_counts)[batch.labels.clamp(0, self.num_classes - 1)]
        )
        return super().each(out, batch) * weight


@breaks("extreme_logits")
class LogOfSoftmax(SoundObjective):
    def each(self, out, batch):
        p = (self.logits(out, batch).float() * self.temperature.float().exp()).softmax(-1)
        picked = p.gather(-1, batch.labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return -torch.where(batch.labels == IGNORE, 1.0, picked).log()


@breaks("equal_logits")
class UnitLength(SoundObjective):
    def logits(self, out, batch):
        norm = torch.where(batch.mask.unsqueeze(-1), out.logits.norm(dim=-1, keepdim=True), 1.0)
        return out.logits / norm


@breaks("two_classes")
class ThreeClasses(SoundObjective):
    def each(self, out, batch):
        assert out.logits.shape[-1] == 3
        return super().each(out, batch)


@breaks("padding_values")
class PenalisesPadding(SoundObjective):
    def forward(self, out, batch):
        return super().forward(out, batch) + torch.where(batch.mask, 0.0, out.logits.float().square().mean(-1)).sum()


@breaks("padding_length", "padding_values", "unlabelled_values", "no_labels")
class MeanOverAll(SoundObjective):
    def forward(self, out, batch):
        return super().forward(out, batch) + 0.01 * out.logits.float().square().mean()


@breaks("unlabelled_values", "no_labels")
class LearnsFromUnlabelled(SoundObjective):
    def forward(self, out, batch):
        entropy = torch.where(batch.mask, out.logits.float().square().mean(-1), 0.0)
        return super().forward(out, batch) + 0.01 * entropy.sum()


@breaks("batch_order")
class FirstCountsDouble(SoundObjective):
    def each(self, out, batch):
        losses = super().each(out, batch)
        return torch.cat([2 * losses[:1], losses[1:]])


@breaks("gradient_to_logits")
class FirstStepOnly(SoundObjective):
    def each(self, out, batch):
        losses = super().each(out, batch)
        return torch.cat([losses[:, :1], losses[:, 1:].detach()], 1) if losses.shape[1] > 2 else losses


@breaks("labels_used")
class LabelsNoMatter(SoundObjective):
    def each(self, out, batch):
        fixed = torch.where(batch.labels == IGNORE, IGNORE, 0)
        return super().each(out, replace(batch, labels=fixed))


@breaks("prefers_truth")
class WrongSign(SoundObjective):
    def reduce(self, losses, labelled):
        return -super().reduce(losses, labelled)


class Flip(torch.autograd.Function):
    """Turns the gradient round."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients):
        return -gradients[0]


@breaks("descends", "gradcheck")
class TurnsGradient(SoundObjective):
    def logits(self, out, batch):
        return Flip.apply(out.logits)


@breaks("inputs_untouched")
class ClipsInPlace(SoundObjective):
    def logits(self, out, batch):
        logits = out.logits.clamp(-2, 2)
        out.logits.data.clamp_(-2, 2)
        return logits


@breaks("half_precision")
class ExactDtypes(SoundObjective):
    def logits(self, out, batch):
        if out.logits.dtype == torch.bfloat16:
            raise RuntimeError("expected Float but found BFloat16")
        return out.logits


@breaks("gradcheck")
class HalvesGradient(SoundObjective):
    def logits(self, out, batch):
        return 0.5 * out.logits + 0.5 * out.logits.detach()
