"""Exchanging a function inside whatever wraps it: bound methods, partials, closures, objects that can be called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn

Match = Callable[[Any], Any]
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, torch.Tensor, nn.Module, torch.dtype, torch.device)
_DEPTH = 10


def holds(value: Any, function: Any) -> bool:
    """Whether a function, or what a patch has put in its place, is inside a value."""
    return (
        exchange(value, lambda v: v if v is function or getattr(v, "__fz_base__", None) is function else None)
        is not None
    )


def exchange(value: Any, match: Match) -> Any:
    """A twin of a value in which what `match` gives something for is that; None where there is no such thing inside.

    The value itself, and whoever else holds it or its parts, are left as they are.
    """
    return _exchange(value, match, {}, 0)


def _exchange(value: Any, match: Match, known: dict[int, Any], depth: int) -> Any:
    if isinstance(value, _PLAIN) or depth > _DEPTH:
        return None
    new = match(value)
    if new is not None:
        return new
    if getattr(value, "__fz_base__", None) is not None:  # what a patch has put there
        return None
    if id(value) not in known:
        known[id(value)] = None  # for closures that hold themselves
        known[id(value)] = _twin(value, lambda v: _exchange(v, match, known, depth + 1))
    return known[id(value)]


def _twin(value: Any, inner: Match) -> Any:
    if isinstance(value, MethodType):
        function, receiver = inner(value.__func__), inner(value.__self__)
        if function is None and receiver is None:
            return None
        return MethodType(
            value.__func__ if function is None else function, value.__self__ if receiver is None else receiver
        )
    if isinstance(value, functools.partial):
        parts = [value.func, *value.args]
        new, keywords = _list(parts, inner), _dict(value.keywords, inner)
        if new is None and keywords is None:
            return None
        function, *args = new or parts
        twin = functools.partial(function, *args, **(keywords or value.keywords))
        vars(twin).update(_dict(vars(value), inner) or vars(value))
        return twin
    if isinstance(value, FunctionType):
        return _function(value, inner)
    if type(value) in (list, tuple):
        new = _list(list(value), inner)
        return None if new is None else type(value)(new)
    if type(value) is dict:
        return _dict(value, inner)
    if callable(value) and hasattr(value, "__dict__") and type(value).__new__ is object.__new__:
        changed = _dict(vars(value), inner)
        if changed is None:
            return None
        twin = object.__new__(
            type(value)
        )  # not copy.copy: Accelerate's wrapper refuses to be pickled, and so to be copied
        vars(twin).update(changed)
        return twin
    return None


def _function(value: FunctionType, inner: Match) -> FunctionType | None:
    cells = list(value.__closure__ or ())
    contents = _list([_content(c) for c in cells], inner)
    attributes, defaults = _dict(vars(value), inner), _list(list(value.__defaults__ or ()), inner)
    keywords = _dict(value.__kwdefaults__ or {}, inner)
    if contents is None and attributes is None and defaults is None and keywords is None:
        return None
    if contents is not None:  # cells whose content stays are shared with whoever else writes to them
        cells = [c if _content(c) is n else CellType(n) for c, n in zip(cells, contents, strict=True)]
    twin = FunctionType(
        value.__code__,
        value.__globals__,
        value.__name__,
        value.__defaults__ if defaults is None else tuple(defaults),
        tuple(cells),
    )
    twin.__kwdefaults__ = value.__kwdefaults__ if keywords is None else keywords
    twin.__qualname__, twin.__module__, twin.__doc__ = value.__qualname__, value.__module__, value.__doc__
    twin.__annotations__ = dict(value.__annotations__)
    vars(twin).update(attributes or vars(value))
    return twin


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _list(values: list[Any], inner: Match) -> list[Any] | None:
    new = [inner(v) for v in values]
    return (
        [v if n is None else n for v, n in zip(values, new, strict=True)] if any(n is not None for n in new) else None
    )


def _dict(values: dict[str, Any], inner: Match) -> dict[str, Any] | None:
    new = {k: n for k, v in values.items() if (n := inner(v)) is not None}
    return {**values, **new} if new else None
