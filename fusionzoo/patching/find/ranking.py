"""Which site is the most likely to be what a fusion should replace."""

from __future__ import annotations

import math

from fusionzoo.patching.sites import Site


def score(site: Site, late: float, main: bool, weighs: bool) -> float:
    """How likely a site is the one.

    Parameters
    ----------
    site : Site
        What was found.
    late : float
        Where in the forward it is, from 0 to 1.
    main : bool
        Whether what it computes reaches the model's first output.
    weighs : bool
        Whether that comes of it as the weights of other tensors only.
    """
    union = {p for s in site.operands for p in s.lead.split("+") if p}
    score = 300.0 * _share(site, union) + 100.0 * len(union) / max(1, site.total) + site.join.weight + 25.0 * late
    against = (
        (30.0, site.op in ("sub", "div")),  # a distance or a norm more often than a fusion
        (6.0 * math.log2(site.calls), True),  # in a loop over steps, say
        (120.0, _adds_to_all(site, union)),
        (25.0, site.kind == "product" and _broadcasts(site)),  # weights of an attention, or one gate for many
        (1000.0, not site.live),
        (150.0, site.live and not main),
        (150.0, weighs),
        (30.0, site.how != "rewrite"),
        (40.0, site.layout == "(..., d)"),
        (80.0, all(site.stream_width(s.shape) == 1 for s in site.operands)),
    )
    for points, holds in against:
        score -= points * holds
    return score


def _adds_to_all(site: Site, union: set[str]) -> bool:
    """Whether one operand holds all modalities already, and what stands beside it is a residual of some of them."""
    holds = [set(s.lead.split("+")) >= union for s in site.operands if s.lead]
    return any(holds) and not (site.join.listed and len(holds) >= site.total)


def _broadcasts(site: Site) -> bool:
    """Whether one operand has a single row or feature for several of another."""
    shapes = {s.shape[1:] for s in site.operands if s.lead and len(s.shape) == len(site.result)}
    return len(shapes) > 1


def _share(site: Site, union: set[str]) -> float:
    """How much of all modalities meets at the site, each as a stream of its own or nearly so; from 0 to 1."""
    total = max(1, site.total)
    parts = [set(s.lead.split("+")) for s in site.operands if s.lead]
    pure = {name for p in parts if len(p) == 1 for name in p}
    mixed = sorted((p for p in parts if len(p) > 1), key=len)
    distinct = {frozenset(p) for p in parts}
    if len(union) == total == sum(map(len, distinct)) and mixed and len(distinct) > 1:
        return 0.9  # completes what earlier joins began
    if len(parts) == 2 and not pure and parts[0] == parts[1]:
        return 0.3  # two glimpses of one mixture rather than two modalities
    covered = set(pure)
    for p in mixed:  # a mixed stream stands for one of the modalities that nobody else brings in
        covered |= set(sorted(p - covered)[:1])
    return (len(pure) + 0.8 * len(covered - pure)) / total
