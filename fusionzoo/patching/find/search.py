"""`find_sites`: from one traced forward to the sites, the best candidate first."""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.errors import ModalityError, NoSiteError, PatchError
from fusionzoo.patching.call_chain import Position
from fusionzoo.patching.calls import attempt, explained, misfit
from fusionzoo.patching.find import real_steps as context
from fusionzoo.patching.find.stream_layout import feature_axis, layout, leading_axes, time_axis
from fusionzoo.patching.modalities import ORDER, Leaf, ModalitiesLike, bind, find_modalities, forward_of
from fusionzoo.patching.rewrite import source as S
from fusionzoo.patching.sites import InputSite, Site, SiteList, Stream, dtype_name
from fusionzoo.patching.trace import labels as L
from fusionzoo.patching.trace import tracer as tracing
from fusionzoo.patching.trace.events import Event, Operand, Trace
from fusionzoo.patching.wrappers import host_of

_KIND_SCORE = {"cat": 60, "stack": 45, "rows": 40, "sum": 40, "outer": 35, "product": 15, "cross-attention": 12}


def find_sites(model: nn.Module, *args: object, modalities: ModalitiesLike = None, **kwargs: object) -> SiteList:
    """Every place in the model's own code where streams of different modalities meet, the best candidate first.

    Runs `model(*args, **kwargs)` once, in the mode that the model is in; buffers, random state and arguments are left as
    they were.

    A wrapper around the model (DataParallel, torch.compile, PEFT, ...) is looked through: paths of sites begin inside it. One
    argument that forward does not take as it is, such as a dict of keyword arguments, is read as `patch` reads `inputs=`.

    Parameters
    ----------
    modalities : what the arguments are, where their names do not say it: a mapping of argument (or a path such as
        `"x[0]"`, `"batch['t']"`) to modality, None for "no modality", or to a mapping of modality to width where an argument
        holds several side by side; or a sequence of names in the order of the arguments. An argument named `modalities` of
        the model itself cannot be passed by keyword.

    Raises
    ------
    ModalityError : no argument, or just one, looks like a stream, and none was named.
    NoSiteError : streams never meet; says what was seen.

    >>> find_sites(model, text, audio, visual)[0]                                    # doctest: +SKIP
    Site(cat (cat, axis -1) of text:200, audio:200, visual:200 at model.py:47 in Net.forward ...)
    """
    model = host_of(model)
    if len(args) != 1 or kwargs or not isinstance(model, nn.Module) or isinstance(args[0], Tensor):
        return sites_of_call(model, args, kwargs, modalities)
    if misfit(model, (args, kwargs)) is not None:
        return attempt(model, args[0], lambda a, k: sites_of_call(model, a, k, modalities))
    try:
        return sites_of_call(model, args, kwargs, modalities)
    except Exception:  # what was given to inputs= may have been given here: (batch,), {"batch": batch}, (args, kwargs)
        if not isinstance(args[0], (tuple, list, Mapping)):
            raise
        try:
            return attempt(model, args[0], lambda a, k: sites_of_call(model, a, k, modalities))
        except Exception:  # neither reading runs: the error of the call as it was written says more
            pass
        raise


def sites_of_call(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], modalities: ModalitiesLike = None
) -> SiteList:
    """`find_sites` of a model without wrappers, with one call's arguments."""
    call = tuple(args), dict(kwargs)
    trace = explained(model, call, lambda: trace_model(model, *call, modalities))
    sites = sites_of(model, trace)
    if not sites:
        alike = [x.path for x in trace.leaves if x.modality]
        if len(trace.names) == 1 and len({x.hint for x in trace.leaves if x.modality}) > 1:
            raise ModalityError(
                f"{', '.join(alike)} of {type(model).__name__} are all taken for {trace.names[0]}, so that nothing could meet; say "
                f"which they are: modalities={{{', '.join(f'{a!r}: ...' for a in alike)}}}"
            )
        raise NoSiteError(nothing_found(model, trace))
    return sites


def trace_model(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], modalities: ModalitiesLike) -> Trace:
    """One traced forward."""
    if not isinstance(model, nn.Module):
        raise PatchError(
            f"find_sites takes a torch.nn.Module, not {type(model).__name__}; wrap a plain object in a module whose forward "
            "calls it"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise PatchError(
            f"{getattr(model, 'original_name', type(model).__name__)} is a ScriptModule: its code is compiled and cannot be looked "
            "into or changed; patch the module before torch.jit.script or torch.jit.trace"
        )
    lazy = next((n for n, p in model.named_parameters() if nn.parameter.is_lazy(p)), None)
    if lazy is not None:
        raise PatchError(
            f"{type(model).__name__} is not initialised yet: {lazy} gets its shape in the first forward; call the model once before"
        )
    memo: dict[int, Any] = {}
    args, kwargs = _fresh(tuple(args), memo), _fresh(dict(kwargs), memo)
    arguments = bind(forward_of(model), args, kwargs)
    leaves = find_modalities(arguments, modalities)
    names: list[str] = []
    for leaf in leaves:
        for name in leaf.widths or ([leaf.modality] if leaf.modality else []):
            if name not in names:
                names.append(name)
    names.sort(key=lambda n: ORDER.index(n) if n in ORDER else len(ORDER))
    if not names:
        seen = ", ".join(f"{x.path} {tuple(x.tensor.shape)} {dtype_name(x.tensor.dtype)}" for x in leaves) or "none"
        raise ModalityError(
            f"none of the arguments of {type(model).__name__} looks like a stream of features (tensors seen: {seen}); "
            "name them with modalities={'argument': 'text', ...}"
        )
    if len(names) > L.MODALITY_BITS:
        raise ModalityError(f"at most {L.MODALITY_BITS} modalities can be told apart, not {len(names)}")
    bit = {n: 1 << i for i, n in enumerate(names)}

    def bits(leaf: Leaf) -> Tensor | int:
        if leaf.widths:
            return torch.tensor([bit[n] for n, w in leaf.widths.items() for _ in range(w)])
        return bit[leaf.modality or ""]

    trace = Trace([], names, leaves, arguments)
    tracing.run(model, args, kwargs, trace, bits)
    return trace


def _fresh(value: Any, memo: dict[int, Any]) -> Any:
    """Containers and tensors of a call copied, so that a host which writes into them leaves the caller's alone."""
    if isinstance(value, Tensor):
        if id(value) not in memo:
            memo[id(value)] = value.detach().clone().requires_grad_(value.requires_grad)
        return memo[id(value)]
    if type(value) in (list, tuple):
        return type(value)(_fresh(v, memo) for v in value)
    if type(value) is dict:
        return {k: _fresh(v, memo) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_fresh(v, memo) for v in value))
    if hasattr(value, "__dict__") and not callable(value) and not isinstance(value, (nn.Module, type)):
        try:
            return copy.deepcopy(value)
        except Exception:
            return value
    return value


def nothing_found(model: nn.Module, trace: Trace) -> str:
    """What to say where no site was found."""
    seen = ", ".join(f"{x.path} {tuple(x.tensor.shape)} as {x.modality}" for x in trace.leaves if x.modality)
    scripted = [name for name, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    if scripted:
        trace.seen.append(f"{scripted[0]} is a ScriptModule, which cannot be looked into")
    others = ", ".join(x.path for x in trace.leaves if x.modality is None and x.widths is None)
    if len(trace.names) == 1:
        (leaf,) = [x for x in trace.leaves if x.modality][:1]
        return (
            f"{type(model).__name__} receives one stream only: {seen}{f' (taken for no streams: {others})' if others else ''}. "
            f"If its features were joined before the model, use site=fusionzoo.InputSite({leaf.path!r}, widths={{...}}); if other "
            "arguments are modalities too, name them with modalities={...}"
        )
    nearest = trace.seen[0] if trace.seen else "no operation took two of them"
    return (
        f"the streams of {type(model).__name__} never meet in code that could be patched. Seen: {seen}"
        f"{f'; taken for no streams: {others}' if others else ''}. Nearest: {nearest}. If the names are wrong, give modalities={{...}}"
    )


# -- from events to sites ---------------------------------------------------------------------------------------------


def sites_of(model: nn.Module, trace: Trace) -> SiteList:
    """Group a trace's joins by place, and rank."""
    _absorb(trace)
    grouped: dict[tuple[Any, ...], list[Event]] = {}
    for event in trace.events:
        if not event.absorbed and event.dtype.is_floating_point:
            grouped.setdefault((event.path, *((*s.key, s.position) for s in event.steps)), []).append(event)
    axes = time_axis(trace)
    order = len(trace.events) or 1
    sites: list[Site | InputSite] = []
    for events in grouped.values():
        site = _site(events, trace, axes)
        if site is not None:
            site.score = _score(site, events[0].index / order)
            sites.append(site)
    if len(trace.names) == 1 or not sites:
        sites += _inputs(trace, axes)
    return SiteList(sorted(sites, key=lambda s: -s.score))


def _inputs(trace: Trace, axes: int | None) -> list[Site | InputSite]:
    named = [x for x in trace.leaves if x.modality or x.widths]
    if len(named) != 1 or not named[0].tensor.is_floating_point():
        return []
    (leaf,) = named
    rank = leaf.tensor.dim()
    shape = None if rank != 3 or axes is None else ("(T, B, d)" if axes == 0 else "(B, T, d)")
    shape = "(B, d)" if rank == 2 else shape
    site = InputSite(leaf.path, leaf.widths or {}, shape, tuple(leaf.tensor.shape))
    site.dtype, site.device = dtype_name(leaf.tensor.dtype), str(leaf.tensor.device)
    site.score = 1000.0 if leaf.widths else 0.0
    found = context.of_input(trace, shape, leaf.tensor.shape)
    site.context = None if found is None else (found.path, found.form)
    return [site]


def _absorb(trace: Trace) -> None:
    """`a + b + c` is one site of three streams, and so is `sum([a, b, c])`."""
    nodes: dict[tuple[Any, ...], ast.AST | None] = {}
    for event in trace.events:
        for step in event.steps:
            key = (*step.key, step.position)
            if key not in nodes:
                found = S.step_source(step)
                nodes[key] = None if found is None else S.expression(found, step.position)
            event.node = nodes[key]
            if event.node is None:  # not all of the way there could be rewritten
                break
    for event in trace.events:
        if event.kind not in ("sum", "product", "outer"):
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
        before.kind != event.kind
        or before.steps[:-1] != event.steps[:-1]
        or before.steps[-1].key != event.steps[-1].key
    ):
        return False
    if before.steps[-1].position == event.steps[-1].position:
        return isinstance(event.node, ast.Call)
    return before.node is not None and any(S.span(p) == before.steps[-1].position for p in S.parts(event.node))


def _with_earlier(
    event: Event, trace: Trace
) -> tuple[list[Operand], tuple[tuple[int, int], ...], tuple[tuple[Position, tuple[Position, ...]], ...]]:
    """A join's operands, those of the joins that it continues in place of their results: `h = a + b`, then `h += c`."""
    operands: list[Operand] = []
    sources: list[tuple[int, int]] = []
    kept: list[tuple[Position, tuple[Position, ...]]] = []

    def grow(one: Event, k: int) -> None:
        for j, o in enumerate([o for o in one.operands if len(o.shape)]):
            before = trace.events[o.producer] if o.producer >= 0 else None
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
        event.kind == before.kind == "sum"
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
    event = events[0]
    last = event.steps[-1]
    kind, axis = event.kind, event.dim
    if event.node is None and event.op == "attention":
        if event.raw is None:  # in matrix products, which nothing would hold together
            trace.seen.append(f"an attention in {last.qualname} of {last.file}, whose source cannot be read")
            return None
        event.op, event.operands, event.owner, event.path, event.steps = event.raw
        event.lifted, last, event.result = False, event.steps[-1], event.operands[0].shape
    operands, sources, kept = _with_earlier(event, trace)
    if kept and any(_with_earlier(e, trace)[1:] != (sources, kept) for e in events[1:]):
        operands, sources, kept = [o for o in event.operands if len(o.shape)], (), ()
    if len(operands) < 2:  # numbers, such as losses that are added up
        return None
    streams = tuple(Stream(_lead(o.bits, trace.names), o.shape) for o in operands)
    feature = feature_axis(event, operands)
    rank = len(event.result)
    if kind == "cat" and axis is not None and axis % rank != feature % rank:
        kind = "rows"
    varies = any([o.bits for o in e.operands] != [o.bits for o in event.operands] for e in events)
    groups = _groups(streams, varies)
    if kind == "cross-attention":  # the query first: its steps are the result's
        groups = dict(sorted(groups.items(), key=lambda g: g[1][0]))
    if len(groups) < 2:
        return None
    leading = leading_axes(operands, event.result) if kind == "outer" else 1
    flat = all(x.tensor.dim() == 2 and x.tensor.is_floating_point() for x in trace.leaves if x.modality or x.widths)
    arrangement, sure = layout(kind, axis, feature, operands, time, leading, flat)
    if kind == "rows" and arrangement in ("(B, d)", "(T, d)") and any(len(g) > 1 for g in groups.values()):
        arrangement = "(N, d)"  # a piece per dialogue
    stream = next((o for o in operands if o.bits), operands[0])
    found = context.infer(trace, arrangement, stream, time, feature, axis) if sure and not varies else None
    how = "rewrite" if event.node is not None else "intercept"
    return Site(
        path=event.path,
        module=type(event.owner).__name__,
        file=last.file,
        line=last.position[0],
        function=last.qualname,
        kind=kind,
        op=event.op,
        operands=streams,
        result=event.result,
        axis=axis,
        layout=arrangement,
        sure=sure,
        calls=len({e.frame for e in events}) if event.lifted else len(events),
        consumer=next((e.consumer for e in events if e.consumer), ""),
        live=any(e.live for e in events),
        groups=groups,
        steps=tuple(event.steps),
        inner=tuple(event.inner),
        kept=kept,
        sources=sources,
        feature_axis=feature,
        leading=leading,
        dtype=dtype_name(event.dtype),
        device=str(event.device),
        how=how,
        varies=varies
        or any([o.shape[-1:] for o in e.operands] != [o.shape[-1:] for o in event.operands] for e in events),
        total=len(trace.names),
        context=None if found is None else (found.path, found.form),
        code="" if event.node is None else ast.unparse(event.node),
    )


def _groups(streams: Sequence[Stream], varies: bool) -> dict[str, tuple[int, ...]]:
    """Modality -> operands: the pure streams, and mixed ones that bring in a modality of their own."""
    if varies:
        return {f"m{i}": (i,) for i, s in enumerate(streams) if s.lead}
    pure = {s.lead for s in streams if s.lead and "+" not in s.lead}
    out: dict[str, list[int]] = {}
    for i, s in enumerate(streams):
        parts = set(s.lead.split("+"))
        if s.lead and (len(parts) == 1 or not parts <= pure) and (len(pure) < 2 or len(parts) == 1 or not parts & pure):
            out.setdefault(s.lead, []).append(i)
    if len(out) < 2:
        out = {}
        for i, s in enumerate(streams):
            if s.lead:
                out.setdefault(s.lead, []).append(i)
    rank = {n: i for i, n in enumerate(ORDER)}
    return {k: tuple(out[k]) for k in sorted(out, key=lambda k: rank.get(k, len(rank)))}


def _score(site: Site, late: float) -> float:
    pure = {s.lead for s in site.operands if s.lead and "+" not in s.lead}
    union = {p for s in site.operands for p in s.lead.split("+") if p}
    total = max(1, site.total)
    parts = [set(lead.split("+")) for lead in {s.lead for s in site.operands} if lead]
    pure_share = len(pure) / total
    if len(parts) > 1 and len(union) == total == sum(map(len, parts)):  # completes what earlier joins began
        pure_share = max(pure_share, 0.9)
    elif len(parts) > 2 and len(union) == total and not any(p >= union for p in parts):
        pure_share = max(pure_share, 0.75 * min(len(parts), total) / total)  # all gated pairs rather than one of them
    score = 300.0 * pure_share + 100.0 * len(union) / total + _KIND_SCORE.get(site.kind, 0) + 25.0 * late
    if site.op in ("sub", "div"):  # a distance or a norm more often than a fusion
        score -= 30.0
    score -= 6.0 * math.log2(site.calls)
    if any(set(s.lead.split("+")) >= union for s in site.operands):
        score -= 120.0  # one of the streams holds all the others already: a residual
    if not site.live:
        score -= 1000.0
    if site.how != "rewrite":
        score -= 30.0
    if site.layout == "(..., d)":
        score -= 40.0
    if all(site.stream_width(s.shape) == 1 for s in site.operands):
        score -= 80.0
    return score
