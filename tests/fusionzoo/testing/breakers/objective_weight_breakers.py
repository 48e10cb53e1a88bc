"""Objectives that weigh, divide or need otherwise than they say."""

from __future__ import annotations

import torch
from objective_breakers import SoundObjective, breaks

from fusionzoo.objective import IGNORE


class Weighted(SoundObjective):
    def weights(self):
        return torch.ones(self.num_classes)

    def forward(self, out, batch):
        labelled = batch.labels != IGNORE
        weight = torch.where(labelled, self.weights()[batch.labels.clamp(min=0)], 0.0)
        return (self.each(out, batch) * weight).sum() / weight.sum().clamp(min=1e-6)


@breaks("counts_of_any_type")
class AveragesIntegers(Weighted):
    def weights(self):
        return (
            torch.ones(self.num_classes)
            if self.class_counts is None
            else self.class_counts.mean() / self.class_counts.clamp(min=1)
        )


@breaks("rare_classes_count_no_less")
class FrequentCountsMore(Weighted):
    def weights(self):
        return torch.ones(self.num_classes) if self.class_counts is None else self.class_counts.float()


@breaks("divides_by_what_is_labelled")
class DividesByWhatIsReal(SoundObjective):
    def forward(self, out, batch):
        return self.each(out, batch).sum() / batch.mask.sum().clamp(min=1)


@breaks("unlabelled_is_true")
class SaysItReadsNoLabels(SoundObjective):
    uses_labels = False


@breaks("float16_finite")
class AddsTooLittle(SoundObjective):
    def each(self, out, batch):
        labelled = batch.labels != IGNORE
        logits = torch.where(labelled.unsqueeze(-1), out.logits, 0.0) * self.temperature.exp().to(out.logits.dtype)
        p = logits.softmax(-1).gather(-1, batch.labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return torch.where(labelled, -(p + 1e-8).log(), 0.0)


@breaks("absent_stream_explained")
class NeedsAStream(SoundObjective):
    def each(self, out, batch):
        apart = (out.streams["text"].float() - out.streams["audio"].float()).square().mean(-1)
        return super().each(out, batch) + torch.where(batch.labels != IGNORE, apart, 0.0)


@breaks("counts_of_another_length_refused")
class TakesAnyCounts(SoundObjective):
    def __init__(self, num_classes, class_counts=None):
        super().__init__(num_classes, None)
        self.class_counts = class_counts


@breaks("holds_no_graph")
class QueuesTheGraph(SoundObjective):
    def forward(self, out, batch):
        loss = super().forward(out, batch)
        before, self.__dict__["before"] = self.__dict__.get("before"), out.logits.mean()
        return loss if before is None or not self.training else loss + (out.logits.mean() - before).square()
