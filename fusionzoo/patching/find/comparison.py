"""Streams that are only compared: every sample of one with every sample of the other, as a dual encoder scores pairs."""

from __future__ import annotations

from fusionzoo.patching.find.stream_layout import varies_along
from fusionzoo.patching.trace.events import Event


def is_comparison(event: Event) -> bool:
    """Whether a product is the table of scores `(B, d) @ (d, B)`, which holds nothing of either stream's features."""
    streams = [o for o in event.operands if o.bits]
    if event.op != "attention" or event.lifted or len(streams) != 2 or any(len(o.shape) != 2 for o in streams):
        return False
    a, b = streams
    return varies_along(a, 0, 0) and any(
        varies_along(b, k, 0) and (*event.result,) == (a.shape[0], b.shape[k]) and b.shape[1 - k] == a.shape[1]
        for k in (0, 1)
    )
