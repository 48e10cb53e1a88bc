"""From what a traced forward noted to sites: joins grouped by their place in the source, nested ones as one."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fusionzoo.patching.call_chain import Position
from fusionzoo.patching.find.comparison import is_comparison
from fusionzoo.patching.find.ranking import score
from fusionzoo.patching.find.real_steps import (
    hints,
    lengths_of_rows,
    of_input,
    of_join,
    of_one_dialogue,
    of_padded_rows,
)
from fusionzoo.patching.find.stream_layout import feature_axis, fullest, layout, time_axis
from fusionzoo.patching.fuse.contexts import ArgumentContext
from fusionzoo.patching.fuse.joins import Join
from fusionzoo.patching.layouts import PADDED_ROWS
from fusionzoo.patching.sites import InputSite, Site, SiteList, Stream, dtype_name, grouped
from fusionzoo.patching.source import expression_at, operands_of, span, step_source
from fusionzoo.patching.trace.events import Event, Operand, Trace

#: Operands; of each the join of `kept` that it comes from (-1: the last one) and its place there; the earlier joins.
Grown = tuple[list[Operand], tuple[tuple[int, int], ...], tuple[tuple[Position, tuple[Position, ...]], ...]]


def sites_of(trace: Trace) -> SiteList:
    """Group a trace's joins by place, and rank."""
    _absorb(trace)
    places: dict[tuple[Any, ...], list[Event]] = {}
    for event in trace.events:
        if event.absorbed or not event.dtype.is_floating_point:
            continue
        if is_comparison(event):
            trace.compared.append(event)
        else:
            places.setdefault((event.path, *((*s.key, s.position) for s in event.steps)), []).append(event)
    axes = time_axis(trace)
    order = len(trace.events) or 1
    sites: list[Site | InputSite] = []
    for events in places.values():
        site = _site(events, trace, axes)
        if site is not None:
            main, weighs = any(e.main for e in events), all(e.weighs for e in events)
            site.score = score(site, events[0].index / order, main, weighs)
            sites.append(site)
    if len(trace.names) == 1 or not sites:
        sites += _inputs(trace, axes)
    return SiteList(sorted(sites, key=lambda s: -s.score))


def _inputs(trace: Trace, axes: int | None) -> list[Site | InputSite]:
    named = [x for x in trace.leaves if x.modality or x.widths]
    if len(named) != 1 or named[0].stacked or not named[0].tensor.is_floating_point():
        return []
    (leaf,) = named
    rank = leaf.tensor.dim()
    shape = None if rank != 3 or axes is None else ("(T, B, d)" if axes == 0 else "(B, T, d)")
    shape = "(B, d)" if rank == 2 else shape
    site = InputSite(leaf.path, leaf.widths or {}, shape, tuple(leaf.tensor.shape))
    site.dtype, site.device = dtype_name(leaf.tensor.dtype), str(leaf.tensor.device)
    site.score = 1000.0 if leaf.widths else 0.0
    found = of_input(trace, shape, leaf.tensor.shape)
    site.context = None if found is None else (found.path, found.form)
    return [site]


def _absorb(trace: Trace) -> None:
    """`a + b + c` is one site of three streams, and so is `sum([a, b, c])`."""
    nodes: dict[tuple[Any, ...], ast.AST | None] = {}
    for event in trace.events:
        for step in event.steps:
            key = (*step.key, step.position)
            if key not in nodes:
                found = step_source(step)
                nodes[key] = None if found is None else expression_at(found, step.position)
            event.node = nodes[key]
            if event.node is None:  # not all of the way there could be rewritten
                break
    for event in trace.events:
        if not event.join.nests:
            continue
        operands: list[Operand] = []
        inner: list[Position] = []
        for o in event.operands:
            before = trace.events[o.producer] if o.producer >= 0 else None
            if before is not None and before.frame == event.frame and _part_of(before, event):
                before.absorbed = True
                operands += before.operands
                inner += before.inner
                if before.steps[-1].position != event.steps[-1].position:
                    inner.append(before.steps[-1].position)
            else:
                operands.append(o)
        event.operands, event.inner = operands, inner


def _part_of(before: Event, event: Event) -> bool:
    if (
        before.join is not event.join
        or before.steps[:-1] != event.steps[:-1]
        or before.steps[-1].key != event.steps[-1].key
    ):
        return False
    if before.steps[-1].position == event.steps[-1].position:
        return isinstance(event.node, ast.Call)
    return before.node is not None and any(span(p) == before.steps[-1].position for p in operands_of(event.node))


def _with_earlier(event: Event, trace: Trace) -> Grown:
    """A join's operands, those of the joins that it continues in place of their results: `h = a + b`, then `h += c`."""
    operands: list[Operand] = []
    sources: list[tuple[int, int]] = []
    kept: list[tuple[Position, tuple[Position, ...]]] = []

    def grow(one: Event, k: int) -> None:
        for j, o in enumerate([o for o in one.operands if len(o.shape)]):
            index = o.origin if one.join.multiplies else o.producer
            before = trace.events[index] if index >= 0 else None
            if before is not None and _continued(before, one):
                kept.append((before.steps[-1].position, tuple(before.inner)))
                grow(before, len(kept) - 1)
            else:
                operands.append(o)
                sources.append((k, j))

    if event.scores is not None:
        query = trace.events[event.scores]
        where = next(j for j, o in enumerate(query.operands) if o is event.operands[0])
        return event.operands, ((0, where), (-1, 1)), ((query.steps[-1].position, ()),)
    grow(event, -1)
    return operands, tuple(sources) if kept else (), tuple(kept)


def _continued(before: Event, event: Event) -> bool:
    return (
        event.join.continues
        and before.join is event.join
        and before.frame == event.frame
        and before.steps[:-1] == event.steps[:-1]
        and before.steps[-1].key == event.steps[-1].key
        and before.steps[-1].position != event.steps[-1].position
        and before.node is not None
        and event.node is not None
    )


def _lead(bits: int, names: list[str]) -> str:
    return "+".join(n for i, n in enumerate(names) if bits >> i & 1)


def _site(events: list[Event], trace: Trace, time: int | None) -> Site | None:
    # In a loop over the modalities, the fullest pass says what the site is.
    event = max(events, key=lambda e: _bits(e).bit_count())
    events = [event, *(e for e in events if e is not event)]
    if not _can_be_held(event, trace):
        return None
    operands, sources, kept = _operands_of(events, trace)
    if len(operands) < 2:  # numbers, such as losses that are added up
        return None
    streams = tuple(Stream(_lead(o.bits, trace.names), o.shape) for o in operands)
    feature = feature_axis(event, operands)
    join = event.join.along(event.axis, feature, len(event.result))
    passes = _Passes.of(events, join)
    groups = join.ordered(grouped(streams, passes.vary))
    if len(groups) < 2:
        return None
    leading = join.leading([o.shape for o in operands if o.bits], event.result)
    arrangement, sure = layout(join, event.axis, feature, operands, time, leading, _all_flat(trace))
    told = join.tells_dialogues(groups)
    if arrangement in ("(B, d)", "(T, d)") and told:
        arrangement = "(N, d)"
    # In an attention, the query's steps are those of the result.
    stream = fullest(_with_bits(operands)[:1] if join.attends else operands)
    found = None
    if not passes.vary:
        if sure and (arrangement == "(N, d)" or passes.of_one_length):
            found = of_join(trace, arrangement, stream, time, feature, event.axis)
        if found is None:
            arrangement, found = _rows_told(trace, arrangement, stream, time, told)
    return Site(
        **_noted(events),
        kind=join.kind,
        operands=streams,
        layout=arrangement,
        sure=sure,
        groups=groups,
        kept=kept,
        sources=sources,
        feature_axis=feature,
        leading=leading,
        varies=passes.vary or passes.of_other_widths,
        total=len(trace.names),
        context=None if found is None else (found.path, found.form),
        hints=_hints(event, join, trace, arrangement, stream, time, found),
    )


@dataclass(frozen=True)
class _Passes:
    """The calls of one site beside each other.

    Attributes
    ----------
    vary : bool
        Whether the modalities at a place change from call to call.
    of_other_widths : bool
        Whether some calls have other widths than the first, and are left alone.
    of_one_length : bool
        Whether every call is of as many steps as the first, as one mask needs it.
    """

    vary: bool
    of_other_widths: bool
    of_one_length: bool

    @classmethod
    def of(cls, events: list[Event], join: Join) -> _Passes:
        passes = [_with_bits(e.operands) if join.attends else e.operands for e in events]  # a mask is no stream
        widths = [[o.shape[-1:] for o in x] for x in passes]
        # Only the calls that the fusion acts in have to be of the same modalities.
        alike = [x[join.grows :] for x, w in zip(passes, widths, strict=True) if w == widths[0]]
        vary = any([o.bits for o in x] != [o.bits for o in alike[0]] for x in alike)
        lengths = {next((o.shape[:-1] for o in x if o.bits), None) for x in alike}
        return cls(vary, any(w != widths[0] for w in widths), len(lengths) == 1)


def _with_bits(operands: Sequence[Operand]) -> list[Operand]:
    return [o for o in operands if o.bits]


def _rows_told(
    trace: Trace, arrangement: str, stream: Operand, time: int | None, told: bool
) -> tuple[str, ArgumentContext | None]:
    """The layout of a flat list of rows, and the argument that says which of them are one dialogue.

    told : whether the operands themselves say it.
    """
    if arrangement == "(N, d)":
        return (None if told else of_padded_rows(trace, stream, time)) or (arrangement, None)
    lengths = None
    if arrangement == "(T, d)":
        lengths = of_one_dialogue(trace, stream.shape[0])
    elif arrangement == "(B, d)" and len(stream.shape) == 2 and _all_flat(trace):
        lengths = lengths_of_rows(trace, stream.shape[0])
    return (arrangement if lengths is None else "(N, d)"), lengths


def _hints(
    event: Event,
    join: Join,
    trace: Trace,
    arrangement: str,
    stream: Operand,
    time: int | None,
    found: ArgumentContext | None,
) -> tuple[str, ...]:
    """What may be said of the steps where nothing proves it."""
    # What attends goes by the steps of its query, of which the other streams' masks say nothing.
    others = join.attends and stream.shape[:2] != event.result[:2]
    unsaid = (found is None or arrangement in PADDED_ROWS) and not others
    return hints(trace, arrangement, stream, time) if unsaid else ()


def _bits(event: Event) -> int:
    """The modalities that meet in an event."""
    bits = 0
    for o in event.operands:
        bits |= o.bits
    return bits


def _can_be_held(event: Event, trace: Trace) -> bool:
    """Whether a fusion can be put in; an attention without source as the library's function that the code calls."""
    query = next((o for o in event.operands if o.bits), None)
    if event.lifted and query is not None and len(event.result) != len(query.shape):
        called = event.path or "the model"
        trace.seen.append(
            f"an attention in what {called} calls, which gives {event.result} for a query of {query.shape}"
        )
        return False
    if event.node is not None or event.op != "attention":
        return True
    if event.raw is None:  # in matrix products, which nothing would hold together
        last = event.steps[-1]
        trace.seen.append(f"an attention in {last.qualname} of {last.file}, whose source cannot be read")
        return False
    event.op, event.operands, event.owner, event.path, event.steps = event.raw
    event.lifted, event.result = False, event.operands[0].shape
    return True


def _operands_of(events: list[Event], trace: Trace) -> Grown:
    """With those of earlier joins, where every call continues the same ones."""
    first = _with_earlier(events[0], trace)
    if first[2] and any(_with_earlier(e, trace)[1:] != first[1:] for e in events[1:]):
        return [o for o in events[0].operands if len(o.shape)], (), ()
    return first


def _all_flat(trace: Trace) -> bool:
    return all(x.stream.dim() == 2 and x.stream.is_floating_point() for x in trace.leaves if x.modality or x.widths)


def _noted(events: list[Event]) -> dict[str, Any]:
    """What of a site was noted as its join was called."""
    event = events[0]
    last = event.steps[-1]
    return {
        "path": event.path,
        "module": type(event.owner).__name__,
        "file": last.file,
        "line": last.position[0],
        "function": last.qualname,
        "op": event.op,
        "result": event.result,
        "axis": event.axis,
        "calls": len({e.frame for e in events}) if event.lifted else len(events),
        "consumer": next((e.consumer for e in events if e.consumer), ""),
        "live": any(e.live for e in events),
        "steps": tuple(event.steps),
        "inner": tuple(event.inner),
        "dtype": dtype_name(event.dtype),
        "device": str(event.device),
        "how": "rewrite" if event.node is not None else "intercept",
        "code": "" if event.node is None else ast.unparse(event.node),
    }
