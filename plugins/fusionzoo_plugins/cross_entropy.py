"""Cross-entropy over the labelled utterances, optionally class-weighted and smoothed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import fusionzoo
from fusionzoo.errors import OptionError
from fusionzoo.objective import IGNORE, Objective

WEIGHTINGS = ("balanced", "sqrt")


class CrossEntropy(Objective):
    r"""Mean negative log-likelihood of the labelled utterances.

    .. math:: L = -\frac{1}{\sum_i w_{y_i}} \sum_i w_{y_i} \log \operatorname{softmax}(l_i)_{y_i}

    Options
    -------
    class_weights : None for none; `"balanced"` for weights inverse to the training frequency, with mean one over the
        training utterances (the field's published IEMOCAP weights are these up to a factor); `"sqrt"` for their square
        roots; or a sequence of C non-negative numbers.
    label_smoothing : share of the target spread evenly over the classes, in [0, 1).

    A batch without a labelled utterance gives zero. Class without training utterances: weight zero.
    Source: the masked NLL of declare-lab/conv-emotion, without its quirk of dividing by padded steps.

    Shapes: logits `(B, T, C)`, labels `(B, T)` -> scalar.
    """

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        class_weights: str | list[float] | None = None,
        label_smoothing: float = 0.0,
    ):
        super().__init__(num_classes, class_counts)
        if isinstance(label_smoothing, bool) or not 0 <= label_smoothing < 1:
            raise OptionError(f"CrossEntropy: label_smoothing must be in [0, 1), not {label_smoothing!r}")
        self.label_smoothing = float(label_smoothing)
        self.weight: Tensor | None
        self.register_buffer("weight", self._weights(class_weights, class_counts), persistent=False)

    def _weights(self, class_weights: str | list[float] | None, counts: Tensor | None) -> Tensor | None:
        if class_weights is None or class_weights == "none":
            return None
        if isinstance(class_weights, str):
            if class_weights not in WEIGHTINGS:
                raise OptionError(
                    f"CrossEntropy: class_weights={class_weights!r} is not one of {', '.join(WEIGHTINGS)}, None or a list"
                )
            if counts is None:
                raise OptionError(f"CrossEntropy: class_weights={class_weights!r} needs the training class counts")
            counts = counts.float()
            weight = torch.where(counts > 0, counts.sum() / counts.clamp(min=1), 0.0)
            weight = weight.sqrt() if class_weights == "sqrt" else weight
            return weight * counts.sum() / (weight * counts).sum().clamp(min=1e-12)
        weight = torch.as_tensor(class_weights, dtype=torch.float32)
        if weight.shape != (self.num_classes,) or not bool((weight >= 0).all()):
            raise OptionError(
                f"CrossEntropy: class_weights must be {self.num_classes} non-negative numbers, got {class_weights!r}"
            )
        return weight

    def forward(self, out, batch) -> Tensor:
        logits = out.logits.flatten(0, 1).float()
        weight = None if self.weight is None else self.weight.float()
        labels = batch.labels.flatten()
        losses = F.cross_entropy(
            logits, labels, weight, ignore_index=IGNORE, reduction="sum", label_smoothing=self.label_smoothing
        )
        labelled = labels != IGNORE
        if weight is None:
            total = labelled.sum()
        else:
            total = torch.where(labelled, weight[labels.clamp(min=0)], 0.0).sum()
        # clamp keeps a batch without labelled utterances finite: zero over a tiny number is zero.
        return losses / total.clamp(min=1e-6)


fusionzoo_register = fusionzoo.plugin(
    CrossEntropy,
    summary="cross-entropy over labelled utterances, class weights and label smoothing optional",
)
