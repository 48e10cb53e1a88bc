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
    union = {p for s in site.operands for p in s.lead.split("+") if p}
    score = 300.0 * _share(site, union) + 100.0 * len(union) / max(1, site.total) + site.join.weight + 25.0 * late
    against = (
        (30.0, site.op in ("sub", "div")),  # a distance or a norm more often than a fusion
        (6.0 * math.log2(site.calls), True),  # in a loop over steps, say
        (120.0, any(set(s.lead.split("+")) >= union for s in site.operands)),  # one holds all the others: a residual
        (1000.0, not site.live),
        (150.0, site.live and not main),
        (30.0, site.how != "rewrite"),
        (40.0, site.layout == "(..., d)"),
        (80.0, all(site.stream_width(s.shape) == 1 for s in site.operands)),
    )
    for points, holds in against:
        score -= points * holds
    return score


def _share(site: Site, union: set[str]) -> float:
    """How much of all modalities meets at the site, each as a stream of its own or nearly so; from 0 to 1."""
    total = max(1, site.total)
    leads = {s.lead for s in site.operands if s.lead}
    parts = [set(lead.split("+")) for lead in leads]
    share = sum("+" not in lead for lead in leads) / total
    if len(union) != total:
        return share
    if len(parts) > 1 and sum(map(len, parts)) == total:  # completes what earlier joins began
        return max(share, 0.9)
    if len(parts) > 2 and not any(p >= union for p in parts):
        return max(share, 0.75 * min(len(parts), total) / total)  # all gated pairs rather than one of them
    return share
