"""Orthogonality: what a modality keeps to itself repeats neither what is shared nor what others keep."""

from __future__ import annotations

from torch import Tensor

import fusionzoo
from fusionzoo.objective import Objective
from fusionzoo_plugins import _misa_losses
from fusionzoo_plugins._objective_tools import (
    counted,
    exact,
    full_precision,
    modality_streams,
    pairs,
    total,
)


class Orthogonality(Objective):
    r"""Soft orthogonality of private and shared streams, MISA's difference loss.

    .. math:: L = \sum_m D(p_m, s_m) + \sum_{m < n} D(p_m, p_n), \qquad
              D(a, b) = \frac{1}{d_a d_b} \big\| \hat A^\top \hat B \big\|_F^2

    with rows centred over the labelled utterances (of a pair: those at which both modalities were recorded) and then of
    unit length. Zero with fewer than two utterances.

    Options: none. It reads `"<modality>.private"` and `"<modality>.shared"`, which the fusion misa reports.

    Parameters: none. Source: Bousmalis et al., "Domain Separation Networks", NeurIPS 2016; Hazarika et al., "MISA",
    ACM MM 2020, equation 10.

    The fusion misa brings the same along in `Fused.losses`, which training adds by itself (`objective.auxiliary`): switch that
    off there (`difference=0`) when this objective takes its place.

    Shapes: streams `(B, T, d)` -> scalar. The labels say only which utterances count.
    """

    uses_labels = False

    def __init__(self, num_classes: int, class_counts: Tensor | None = None):
        super().__init__(num_classes, class_counts)

    def forward(self, out, batch) -> Tensor:
        private = modality_streams(out, batch, self, None, "private", 1)
        shared = modality_streams(out, batch, self, None, "shared", 1)
        both = {**private, **shared}
        own = [(n, s) for n in private if (s := f"{n.partition('.')[0]}.shared") in shared]
        losses = []
        for a, b in [*own, *pairs(private)]:
            with full_precision(out.logits):
                losses.append(_misa_losses.orthogonality(exact(both[a]), exact(both[b]), counted(batch, a, b)))
        return total(losses, out)


fusionzoo_register = fusionzoo.plugin(
    Orthogonality,
    summary="private and shared streams do not repeat each other",
    paper="Hazarika et al., MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment Analysis, "
    "ACM MM 2020",
    code="thuiar/MMSA@a94e65d07f",
    diagram="""
    p["text, private"] --> d1(("cross products"))
    s["text, shared"] --> d1
    p --> d2(("cross products"))
    q["audio, private"] --> d2
    d1 --> L["squared norms"]
    d2 --> L
    """,
)
