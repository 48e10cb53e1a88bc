"""Putting rewritten functions in place on one instance, and taking them out again.

Neither the class nor another instance nor a module's globals are touched: see `overrides`. Functions that the method calls on
the way to a site are rewritten too, and passed on by the rewritten call: whoever else calls them gets the originals.
"""

from __future__ import annotations

import functools
import inspect
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.errors import HostChangedError
from fusionzoo.patching.call_chain import Kept, Position, Step, attributes, moved
from fusionzoo.patching.holders import layer_in
from fusionzoo.patching.rewrite.interceptor import Fallback, Interceptor
from fusionzoo.patching.rewrite.recompile import CALL, INDEX, INPLACE, JOIN, NODE, Edit, rewrite
from fusionzoo.patching.rewrite.twins import exchange
from fusionzoo.patching.source import read_function

MISSING = "<missing>"
STATE = "_fusionzoo_patches"  # attribute of a patched instance: see `overrides.State`


@dataclass(frozen=True)
class Route:
    """The way to one join: the steps, and the patch that waits there."""

    name: str
    steps: tuple[Step, ...]
    inner: tuple[Position, ...] = ()
    kept: tuple[Kept, ...] = ()
    op: str = ""
    digests: tuple[str, ...] = ()  # of the steps' sources, where they have to be verified


@dataclass
class Node:
    """The rewrites of one function on the way, by position."""

    joins: dict[Position, list[str]] = field(default_factory=dict)
    inner: dict[Position, tuple[Position, ...]] = field(default_factory=dict)
    calls: list[tuple[Position, Step, Node]] = field(default_factory=list)
    step: Step | None = None
    digest: str = ""
    ops: dict[str, str] = field(default_factory=dict)
    functions: dict[int, FunctionType] = field(default_factory=dict)  # by the id of their code, which they keep alive

    def add(self, route: Route, depth: int = 0) -> None:
        """Put a route in, from its step at this depth on."""
        step = route.steps[depth]
        self.step = step
        if depth < len(route.digests):
            self.digest = route.digests[depth]
        if depth == len(route.steps) - 1:
            self.joins.setdefault(step.position, []).append(route.name)
            self.inner[step.position] = route.inner
            self.ops[route.name] = route.op
            for i, (position, inner) in enumerate(route.kept):
                self.joins.setdefault(position, []).append(f"{route.name}#{i}")
                self.inner[position] = inner
            return
        following = route.steps[depth + 1]
        for position, other, node in self.calls:
            if position == step.position and other.key == following.key:
                node.add(route, depth + 1)
                return
        self.calls.append((step.position, following, Node()))
        self.calls[-1][2].add(route, depth + 1)

    def fallbacks(self) -> list[Fallback]:
        """Every join from here on, to be recognised when it happens."""
        out = [f for _, _, node in self.calls for f in node.fallbacks()]
        for position, names in self.joins.items():
            assert self.step is not None
            out += [Fallback(n, self.ops[n], *self.step.key[:2], position) for n in names if n in self.ops]
        return out

    def rewritten(self, function: FunctionType) -> FunctionType:
        """The function with its joins and calls replaced; compiled once."""
        if id(function.__code__) in self.functions:
            return self.functions[id(function.__code__)]
        code = function.__code__
        assert self.step is not None
        found = read_function(code.co_filename, code.co_qualname, code.co_firstlineno, function.__globals__)
        shift = code.co_firstlineno - self.step.line
        edits: dict[Position, Edit] = {}
        for position, names in self.joins.items():
            where = moved(position, shift)
            inner = tuple(moved(p, shift) for p in self.inner[position])
            edits[where] = Edit(where, tuple(names), None, inner)
        for i, (position, _, _) in enumerate(self.calls):
            where = moved(position, shift)
            edits.setdefault(where, Edit(where)).call = i
        new = None
        if found is not None and (not self.digest or self.digest == found.digest):
            cells = {NODE: self, JOIN: run_join, CALL: run_call, INPLACE: inplace, INDEX: _Index()}
            new = rewrite(function, found, list(edits.values()), cells)
        if new is None:
            raise HostChangedError(
                f"{code.co_qualname} in {code.co_filename} has changed since the site in it was found; "
                "look for sites again with fusionzoo.find_sites"
            )
        self.functions[id(function.__code__)] = new
        return new


def run_join(owner: nn.Module, names: Sequence[str], function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Compute a join as the host does, then let the patches that wait there act on it."""
    if function is _CAT and len(names) == 1 and (layer := layer_at(owner, names[0])) is not None:
        return layer(_CAT(*args, **kwargs), _CAT, args, kwargs)  # a time loop passes here at every step
    args = _gone_through(args)
    call, given = function, args
    written = None
    if type(function) is BuiltinFunctionType:  # in-place: keep what the tensor held before
        if function in _IN_PLACE and isinstance(args[0], Tensor):
            args = (args[0].clone(), *args[1:])
        elif function.__name__[-1] == "_" and isinstance(function.__self__, Tensor):
            written = function.__self__
            function = getattr(written.clone(), function.__name__)
    result = call(*given, **kwargs)
    if function is operator.setitem and isinstance(args[0], Tensor):
        written = result = args[0]
    for name in names:
        layer = layer_at(owner, name)
        if layer is not None:
            kept = _taken(owner, name)
            result = layer(result, function, args, kwargs, kept) if kept else layer(result, function, args, kwargs)
        elif "#" in name:
            _keep(owner, name, (function, args, kwargs))
    if written is not None and result is not written:
        return written.copy_(result)
    return result


def _gone_through(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments with lists in the place of what can be gone through once only: sum(x for ...)."""
    for a in args:
        if type(a) not in _PLAIN and isinstance(a, Iterator):
            return tuple(list(x) if isinstance(x, Iterator) else x for x in args)
    return args


def _keep(owner: nn.Module, name: str, call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> None:
    """Keep an earlier expression of a join that is still to come, in the same function and thread."""
    name, _, index = name.partition("#")
    waiting = _kept.__dict__.setdefault("operands", {})
    waiting.setdefault((id(owner), name), {})[int(index)] = call


class _Index:
    """What stands between brackets, as an object."""

    def __getitem__(self, index: Any) -> Any:
        return index


def layer_at(owner: nn.Module, name: str) -> Any:
    """The patch of this name, as the running call of the method found it; nn.Module finds an attribute slowly."""
    state = vars(owner).get(STATE)
    layer = None if state is None else state.layers.get(name)
    return layer_in(owner, name) if layer is None else layer


def _taken(owner: nn.Module, name: str) -> dict[int, tuple[Any, Any, Any]]:
    """Take what earlier expressions of a join have put by."""
    waiting = _kept.__dict__.get("operands")
    return waiting.pop((id(owner), name), {}) if waiting else {}


_kept = threading.local()
_INPLACE = {"SetItem": operator.setitem, "Add": operator.iadd, "Mult": operator.imul, "Sub": operator.isub, "Div": operator.itruediv,
            "MatMult": operator.imatmul, "Mod": operator.imod, "Pow": operator.ipow,
            "FloorDiv": operator.ifloordiv}  # fmt: skip
_CAT = torch.cat
_PLAIN = frozenset((Tensor, list, tuple, int, float))
_IN_PLACE = frozenset(_INPLACE.values()) - {operator.setitem}


def inplace(name: str) -> Callable[[Any, Any], Any]:
    """The function of an augmented assignment, or of one to an item."""
    return _INPLACE[name]


def run_call(owner: nn.Module, node: Node, index: int, function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call a function with the next one on the way exchanged: the function itself, or one handed to it."""
    _, step, following = node.calls[index]
    swap = Swap(owner, step, following)
    if isinstance(function, nn.Module):  # a module that its host does not register
        new = swap.module(function)
        if new is not None:
            return new(*args, **kwargs)
    new = swap.value(function)
    if new is not None:
        return new(*args, **kwargs)
    swapped = {i: v for i, a in enumerate(args) if callable(a) and (v := swap.value(a)) is not None}
    named = {k: v for k, a in kwargs.items() if callable(a) and (v := swap.value(a)) is not None}
    if swapped or named:
        return function(*(swapped.get(i, a) for i, a in enumerate(args)), **{**kwargs, **named})
    # The function is reached in a way that cannot be exchanged (a cache, a table of functions, ...), or is another one today.
    with Interceptor(owner, following.fallbacks()):
        return function(*args, **kwargs)


@dataclass
class Swap:
    """Exchanges the function of a step, wherever it is in a value, for its rewritten counterpart.

    owner : whose layers the rewritten function calls; None only to ask whether a value runs the step.
    """

    owner: nn.Module | None
    step: Step
    node: Node

    def runs(self, value: Any) -> FunctionType | None:
        """The step's function where a value is it, bound or partly applied."""
        key = self.step
        for _ in range(6):
            if isinstance(value, (MethodType, staticmethod, classmethod)):
                value = value.__func__
            elif isinstance(value, functools.partial):
                value = value.func
            else:
                break
        if not isinstance(value, FunctionType):
            return None
        code = value.__code__
        if code.co_qualname == key.qualname and (code.co_filename == key.file or key.module == value.__module__):
            return value
        return None

    def value(self, value: Any) -> Any:
        """The rewritten counterpart of a function, method or partial; None where it is another one."""
        if isinstance(value, nn.Module):
            return self.module(value)
        function = self.runs(value)
        if function is None:
            call = inspect.getattr_static(type(value), "__call__", None)
            if isinstance(call, FunctionType):  # an object that can be called
                return self.value(MethodType(call, value))
            return self._wrapped(value)
        new = functools.partial(self.node.rewritten(function), self.owner)
        while not isinstance(value, FunctionType):
            if isinstance(value, MethodType):
                return functools.partial(new, value.__self__)
            if isinstance(value, functools.partial):
                return functools.partial(self.value(value.func), *value.args, **value.keywords)
            value = value.__func__
        return new

    def _wrapped(self, value: Any) -> Any:
        """A decorated function or method with the function inside it exchanged."""
        bound = value.__self__ if isinstance(value, MethodType) else MISSING
        outer = value.__func__ if isinstance(value, MethodType) else value
        if not isinstance(outer, FunctionType) or not outer.__closure__:
            return None
        for inner in closed_over(outer):
            if self.runs(inner) is not None:
                new = self.inside(outer, inner)
                return new if new is None or bound is MISSING else functools.partial(new, bound)
        return None

    def inside(self, outer: FunctionType, inner: FunctionType) -> Any:
        """A function with another one inside it, the step's, exchanged; None where it cannot be reached."""
        rewritten, owner = self.node.rewritten(inner), self.owner

        @functools.wraps(inner)
        def new(*args: Any, **kwargs: Any) -> Any:
            return rewritten(args[0] if owner is None else owner, *args, **kwargs)

        return exchange(outer, lambda v: new if v is inner else None)

    def module(self, module: nn.Module) -> Any:
        """Calls a module, hooks included, with its forward rewritten for the time of the call."""
        for name, raw in attributes(module):
            if name == "forward":
                raw = raw.original if isinstance(raw, Guests) else raw
                raw = raw.__func__ if isinstance(raw, (staticmethod, classmethod)) else raw
                new = self.value(raw if isinstance(raw, MethodType) else MethodType(raw, module))
                return None if new is None else functools.partial(_with_forward, module, new)
        return None


class Guests:
    """Stands for the forward of a module while other forwards are run in its place, each thread's its own."""

    def __init__(self, module: nn.Module):
        self.own = module.__dict__.get("forward", MISSING)
        self.original = module.forward if self.own is MISSING else self.own
        self.running = 0
        self.here = threading.local()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run this thread's forward, once: a call from inside this one, by whoever else has the module, runs its own."""
        return self.here.__dict__.pop("forward", self.original)(*args, **kwargs)


def _with_forward(module: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    members = module.__dict__
    with _coming_and_going:
        guests = members.get("forward")
        if not isinstance(guests, Guests):
            guests = members["forward"] = Guests(module)
        guests.running += 1
    guests.here.forward = forward
    try:
        return module(*args, **kwargs)
    finally:
        guests.here.__dict__.pop("forward", None)
        with _coming_and_going:
            guests.running -= 1
            if not guests.running:
                members.pop("forward")
                if guests.own is not MISSING:
                    members["forward"] = guests.own


_coming_and_going = threading.Lock()


def closed_over(function: FunctionType, depth: int = 0) -> list[FunctionType]:
    """The functions that a function has in its closure, and those in theirs."""
    out: list[FunctionType] = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            inner = cell.cell_contents
        except ValueError:
            continue
        if isinstance(inner, FunctionType) and depth < 5:
            out += [inner, *closed_over(inner, depth + 1)]
    return out
