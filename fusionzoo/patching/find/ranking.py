"""Which site is the most likely to be what a fusion should replace."""

from __future__ import annotations

import math

from fusionzoo.patching.sites import Site


def score(site: Site, late: float, main: bool) -> float:
    """How likely a site is the one.

    Parameters
    ----------
    site : Site
        What was found.
    late : float
        Where in the forward it is, from 0 to 1.
    main : bool
        Whether what it computes reaches the model's first output.
    """
    pure = {s.lead for s in site.operands if s.lead and "+" not in s.lead}
    union = {p for s in site.operands for p in s.lead.split("+") if p}
    total = max(1, site.total)
    parts = [set(lead.split("+")) for lead in {s.lead for s in site.operands} if lead]
    pure_share = len(pure) / total
    if len(parts) > 1 and len(union) == total == sum(map(len, parts)):  # completes what earlier joins began
        pure_share = max(pure_share, 0.9)
    elif len(parts) > 2 and len(union) == total and not any(p >= union for p in parts):
        pure_share = max(pure_share, 0.75 * min(len(parts), total) / total)  # all gated pairs rather than one of them
    score = 300.0 * pure_share + 100.0 * len(union) / total + site.join.weight + 25.0 * late
    if site.op in ("sub", "div"):  # a distance or a norm more often than a fusion
        score -= 30.0
    score -= 6.0 * math.log2(site.calls)
    if any(set(s.lead.split("+")) >= union for s in site.operands):
        score -= 120.0  # one of the streams holds all the others already: a residual
    if not site.live:
        score -= 1000.0
    elif not main:
        score -= 150.0
    if site.how != "rewrite":
        score -= 30.0
    if site.layout == "(..., d)":
        score -= 40.0
    if all(site.stream_width(s.shape) == 1 for s in site.operands):
        score -= 80.0
    return score
