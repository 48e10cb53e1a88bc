"""Central moment discrepancy: the modalities' shared streams get one distribution."""

from __future__ import annotations

from torch import Tensor

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.objective import Objective
from fusionzoo_plugins import _misa_losses
from fusionzoo_plugins._objective_tools import (
    check_names,
    counted,
    exact,
    full_precision,
    modality_streams,
    pairs,
    same_width,
    total,
)


class CMD(Objective):
    r"""Central moment discrepancy between every two shared streams, MISA's similarity loss.

    .. math:: L = \frac{1}{|\text{pairs}|} \sum_{m < n} \Big( \|\mathrm E\,s_m - \mathrm E\,s_n\|_2
              + \sum_{k=2}^{K} \|C_k(s_m) - C_k(s_n)\|_2 \Big), \qquad C_k(s) = \mathrm E\,(s - \mathrm E\,s)^k

    over the labelled utterances at which both modalities were recorded. Meant for streams within [0, 1], as MISA's
    are (sigmoid): higher moments of unbounded ones grow fast.

    Options
    -------
    streams : names, all of one width; default `"<modality>.shared"`, which the fusion misa reports.
    moments : K.

    Parameters: none.
    Source: Zellinger et al., "Central Moment Discrepancy (CMD) for Domain-Invariant Representation Learning", ICLR 2017;
    Hazarika et al., "MISA", ACM MM 2020, equation 9.

    The fusion misa brings the same along in `Fused.losses`, which training adds by itself (`objective.auxiliary`): switch that
    off there (`similarity=0`) when this objective takes its place.

    Shapes: streams `(B, T, d)` -> scalar. The labels say only which utterances count.
    """

    uses_labels = False

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        streams: list[str] | None = None,
        moments: int = 5,
    ):
        super().__init__(num_classes, class_counts)
        self.streams = check_names(streams, self)
        self.moments = check_positive(moments, "moments", self)

    def forward(self, out, batch) -> Tensor:
        streams = modality_streams(out, batch, self, self.streams, "shared")
        same_width(streams, self)
        losses = []
        for m, n in pairs(streams):
            with full_precision(out.logits):
                x, y = exact(streams[m]), exact(streams[n])
                losses.append(_misa_losses.cmd(x, y, counted(batch, m, n), self.moments))
        return total(losses, out) / max(len(losses), 1)


fusionzoo_register = fusionzoo.plugin(
    CMD,
    summary="central moment discrepancy: shared streams get one distribution",
    paper="Zellinger et al., Central Moment Discrepancy (CMD) for Domain-Invariant Representation Learning, ICLR 2017",
    code="thuiar/MMSA@a94e65d07f",
    diagram="""
    t["text, shared"] --> mt["mean and moments"]
    a["audio, shared"] --> ma["mean and moments"]
    mt --> L["distance"]
    ma --> L
    """,
)
