"""How else a site may be read: other axes for features, samples and steps, and what tells the real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fusionzoo.patching.altered import Altered
from fusionzoo.patching.find.real_steps import of_padded_shapes, of_rows
from fusionzoo.patching.fuse.contexts import ArgumentContext, Context
from fusionzoo.patching.layouts import PADDED_ROWS, TIMED
from fusionzoo.patching.sites import AnySite, InputSite, Site


@dataclass(frozen=True)
class Reading:
    """One way to read a site."""

    site: AnySite
    context: Context | None

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from others."""
        return self.site.kind, getattr(self.site, "feature_axis", -1), self.site.layout, self.context


def found(site: AnySite, context: Context | None) -> Reading:
    """A site as it was found, or as the caller said."""
    if context is None and site.context is not None:
        context = ArgumentContext(*site.context)
    return Reading(site, context)


def others(
    first: Reading, altered: Altered, padding: Sequence[Context], told: str | None, context: Context | None
) -> Iterator[Reading]:
    """What else it may be, each once, the likeliest first.

    Parameters
    ----------
    first : Reading
        What was tried.
    altered : Altered
        The call.
    padding : sequence of callable
        What of the call may tell which steps are real.
    told : str, optional
        The layout, where the caller says it.
    context : callable, optional
        What tells real steps, where the caller says it.
    """
    seen = {first.key}
    for site in _sites(first.site):
        readings = [Reading(site, c) for c in _contexts(site, first, altered, padding)]
        for reading in readings if context is None else [Reading(site, context)]:
            if reading.key not in seen and told in (None, reading.site.layout):
                seen.add(reading.key)
                yield reading


def _sites(site: AnySite) -> Iterator[AnySite]:
    """The site with other axes of features, samples and steps."""
    if isinstance(site, InputSite):
        taken = site.layout or ("(B, d)" if len(site.shape) == 2 else "(B, T, d)")
        for layout in dict.fromkeys((taken, *TIMED)) if taken in TIMED else (taken,):
            yield replace(site, layout=layout, sure=True)
        return
    for axis in dict.fromkeys((site.feature_axis, *_feature_axes(site))):
        turned = _turned(site, axis)
        for layout in _layouts(turned, site.layout if axis == site.feature_axis else None):
            yield replace(turned, layout=layout)


def _feature_axes(site: Site) -> list[int]:
    """Axes that may hold features: any but the first one, where all operands have as many."""
    ranks = {len(o.shape) for o in site.operands}
    if len(ranks) != 1 or site.join.multiplies or site.join.attends:
        return []
    return [-1 - i for i in range(max(ranks.pop() - 1, 0))]


def _turned(site: Site, axis: int) -> Site:
    """The site with another axis of features."""
    return replace(site, feature_axis=axis, kind=site.join.along(site.axis, axis, len(site.result)).kind)


def _layouts(site: Site, taken: str | None) -> list[str]:
    """Layouts with as many axes as the operands have."""
    shapes = [o.shape for o in site.operands]
    first = next((o.shape for o in site.operands if o.lead), shapes[0])
    axes = len(site.join.step_axes(site.feature_axis, site.axis, site.leading, [first, *shapes]))
    fitting = {1: ("(N, d)", *PADDED_ROWS, "(B, d)"), 2: TIMED}.get(axes, ("(..., d)",))
    return list(dict.fromkeys((*([taken] if taken else []), *fitting)))


def _contexts(site: AnySite, first: Reading, altered: Altered, padding: Sequence[Context]) -> list[Context | None]:
    """What may tell the real steps of this layout, the likeliest first."""
    rows = 0 if isinstance(site, InputSite) else site.operands[next(iter(site.groups.values()))[0]].shape[0]
    if site.layout in TIMED:
        return [first.context if first.site.layout in TIMED else None, *padding]
    if site.layout == "(N, d)":
        return [*of_rows(altered.trace, rows)]
    if site.layout in PADDED_ROWS:
        one = next((c for c in padding if isinstance(c, ArgumentContext)), None)
        return [c for name, c in of_padded_shapes(altered.trace, rows, one) if name == site.layout]
    return [first.context]
