"""Supervised contrastive loss: utterances of one emotion come together, others go apart."""

from __future__ import annotations

from torch import Tensor

import fusionzoo
from fusionzoo.objective import IGNORE, Objective
from fusionzoo_plugins._contrastive import check_chunk, contrast
from fusionzoo_plugins._objective_tools import check_number, counted, full_precision, rows, stream, unit


class SupCon(Objective):
    r"""Supervised contrastive loss over the labelled utterances of the batch.

    .. math:: L = -\frac{1}{|A|} \sum_{i \in A} \frac{1}{|P_i|} \sum_{j \in P_i}
              \log \frac{\exp(\langle z_i, z_j\rangle / \tau)}{\sum_{k \ne i} \exp(\langle z_i, z_k\rangle / \tau)}

    with the stream at unit length, :math:`P_i` the other utterances with the label of i, and A the utterances that have
    any; without one the loss is zero. The mean over anchors, not the sum, so that it does not grow with the batch. Each
    process of a distributed run contrasts its own utterances.

    Options
    -------
    stream : name of the stream to shape.
    temperature : :math:`\tau`.
    chunk : anchors at a time, default as many as suit the device; memory is linear in the number of utterances.

    Parameters: none.
    Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 2 (the form with the sum outside).

    Shapes: stream `(B, T, d)`, labels `(B, T)` -> scalar.
    """

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        stream: str = "fused",
        temperature: float = 0.1,
        chunk: int | None = None,
    ):
        super().__init__(num_classes, class_counts)
        self.stream = stream
        self.temperature = check_number(temperature, "temperature", self, open_low=True)
        self.chunk = check_chunk(chunk, self)

    def forward(self, out, batch) -> Tensor:
        x, mask = stream(out, self.stream, self), counted(batch)
        labels = batch.labels.flatten()
        with full_precision(x):
            z = unit(rows(x, mask))
            anchors = (labels != IGNORE) & (_members(labels, self.num_classes) > 1)
            weight = anchors.to(z) / anchors.sum().clamp(min=1)
            return -contrast(z, z, labels, 1 / self.temperature, weight, chunk=self.chunk)


def _members(labels: Tensor, classes: int) -> Tensor:
    """Per utterance the number of those with its label, itself included."""
    count = labels.new_zeros(classes + 1).scatter_add(0, labels.clamp(min=-1) + 1, labels.new_ones(labels.shape))
    return count[labels.clamp(min=-1) + 1]


fusionzoo_register = fusionzoo.plugin(
    SupCon,
    summary="supervised contrastive loss on a stream",
    paper="Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, arXiv 2004.11362",
    diagram="""
    z["stream, unit length"] --> s(("cosines / tau"))
    y["labels"] --> p["positives of each"]
    s --> l["log-softmax over the others"]
    p --> l
    l --> L["loss"]
    """,
)
