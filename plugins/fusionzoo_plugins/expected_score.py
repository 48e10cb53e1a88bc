"""The expected score of the classes against a score: regression beside classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

import fusionzoo
from fusionzoo.errors import OptionError
from fusionzoo.objective import IGNORE, Objective

LOSSES = ("l1", "l2", "smooth-l1")


class ExpectedScore(Objective):
    r"""Regression through the classes: the expected value of what they are worth, against the score.

    .. math:: L = \frac1N \sum_i d\Big(s_i, \sum_c \operatorname{softmax}(l_i)_c\, v_c\Big)

    The score of an utterance is its `score` in the data; where there is none, the value of its class. Beside cross-entropy
    (`objective.also`) the classes stay what they are called; alone, only their expected value is trained.

    Options
    -------
    values : what the classes are worth; default their names, where those are numbers (`fusionzoo data convert --score-classes`
        makes such classes), else whole steps around 0.
    distance : `"l1"`, as the field trains on scores of sentiment, `"l2"` or `"smooth-l1"`.

    A batch without a score or a label gives zero. The prediction lies between the smallest and the largest value.
    Source: expected values of binned targets, Rothe et al. 2018 (DEX).

    Shapes: logits `(B, T, C)`, scores `(B, T)`, labels `(B, T)` -> scalar.
    """

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        values: Sequence[float] | None = None,
        distance: str = "l1",
    ):
        super().__init__(num_classes, class_counts)
        if distance not in LOSSES:
            raise OptionError(f"ExpectedScore: distance={distance!r} is not one of {', '.join(LOSSES)}")
        self.distance = distance
        given = torch.arange(num_classes) - (num_classes - 1) / 2 if values is None else torch.tensor(list(values))
        if given.shape != (num_classes,) or not bool(torch.isfinite(given.float()).all()):
            raise OptionError(f"ExpectedScore: values must be {num_classes} finite numbers, got {values!r}")
        self.values = [float(v) for v in given]
        self.worth: Tensor
        self.register_buffer("worth", given.float(), persistent=False)

    def forward(self, out, batch) -> Tensor:
        # Half precision resolves a score of 3 to two hundredths.
        logits = out.logits.float() if out.logits.dtype in (torch.bfloat16, torch.float16) else out.logits
        worth = self.worth.to(logits.dtype)
        expected = logits.softmax(-1) @ worth
        labelled = batch.labels != IGNORE
        target = worth[batch.labels.clamp(min=0)]
        if batch.scores is not None:
            scored = torch.isfinite(batch.scores)
            target = torch.where(scored, batch.scores.to(logits.dtype), target)
            labelled = labelled | scored
        distance = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth-l1": F.smooth_l1_loss}[self.distance]
        # Where nothing is known both are 0, so that neither value nor gradient comes from there.
        losses = distance(torch.where(labelled, expected, 0.0), torch.where(labelled, target, 0.0), reduction="sum")
        return losses / labelled.sum().clamp(min=1)


fusionzoo_register = fusionzoo.plugin(
    ExpectedScore,
    summary="regression of scores: the expected value of the classes, beside cross-entropy or alone",
    paper="Rothe, Timofte and Van Gool, DEX, IJCV 2018",
)
