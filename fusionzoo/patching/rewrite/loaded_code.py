"""The functions that a model's code consists of, as they are loaded: what a saved patch is matched with.

A patch file names functions, modules and files, and may come from a stranger. So nothing that it names is imported, opened or looked up on
an object: the functions that the model's own classes reach are listed, by reading what Python holds already (`__dict__`s, closures, the
globals of their modules), and the file's names are compared with them.
"""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from fusionzoo.patching.call_chain import Step
from fusionzoo.patching.source import read_function
from fusionzoo.patching.whose_code import HostCode

#: Values in a module's tables that are looked into; a longer table is data.
_TABLE = 1000
#: Values that are looked at in all, most of them in the first few steps from the model.
_VALUES = 200_000
#: What holds one function, and under which name.
_HOLDERS = (
    (staticmethod, "__func__"),
    (classmethod, "__func__"),
    (MethodType, "__func__"),
    (property, "fget"),
    (functools.partial, "func"),
)


def find_loaded(model: nn.Module, owner: nn.Module, step: Step, digest: str) -> Step | None:
    """The step where its function is now: the one with this text, else the first of its name; None where there is none.

    `line` of what comes back is that of the function that is loaded, `position` still that of the file.
    """
    first: Step | None = None
    host = HostCode(model)
    for code, names in _reachable_code(owner, model, host):
        if code.co_qualname != step.qualname:
            continue
        here = Step(
            code.co_filename, str(names.get("__name__", "")), code.co_qualname, code.co_firstlineno, step.position
        )
        if (
            digest
            and (found := read_function(here.file, here.qualname, here.line, names)) is not None
            and found.digest == digest
        ):
            return here
        if first is None and not (digest and here.file not in host):
            first = here
    return first


def _reachable_code(owner: nn.Module, model: nn.Module, host: HostCode) -> Iterator[tuple[CodeType, Mapping[str, Any]]]:
    """Code of every function that a model's classes reach, the owner's first, each with its module's globals."""
    waiting: deque[Any] = deque([owner, *model.modules()])
    seen: set[int] = set()
    keep = []  # what was seen by its id must not make room for something else
    while waiting and len(seen) < _VALUES:
        value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        keep.append(value)
        if type(value) is FunctionType:
            yield from ((code, value.__globals__) for code in _written_in(value.__code__))
        waiting.extend(_next(value, host))


def _written_in(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions written inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _written_in(constant)


def _next(value: Any, host: HostCode) -> list[Any]:
    """What a value leads to; read from where it is stored, so that no property and no `__getattr__` runs."""
    kind = type(value)
    if kind is FunctionType:
        return _reached_by_function(value, host)
    if kind in (list, tuple, dict) and len(value) <= _TABLE:
        return list(value.values() if kind is dict else value)
    for holder, attribute in _HOLDERS:
        if kind is holder:
            return [getattr(value, attribute)]
    if issubclass(kind, ModuleType):
        return _globals_of(value, host)
    if issubclass(kind, type):
        return _members_of(value)
    if issubclass(kind, (str, int, float, bytes)):
        return []
    return [kind, *_stored(value).values()]


def _reached_by_function(function: FunctionType, host: HostCode) -> list[Any]:
    inside = [c for cell in function.__closure__ or () for c in _contents(cell)]
    own = list(function.__globals__.values()) if function.__code__.co_filename in host else []
    return [*inside, function.__dict__.get("__wrapped__"), *own]


def _globals_of(module: ModuleType, host: HostCode) -> list[Any]:
    names = ModuleType.__getattribute__(module, "__dict__")
    file = names.get("__file__")
    return list(names.values()) if isinstance(file, str) and file in host else []


def _members_of(cls: type) -> list[Any]:
    classes = [c for c in type.__getattribute__(cls, "__mro__") if not _builtin(c)]
    return [v for c in classes for v in type.__getattribute__(c, "__dict__").values()]


def _stored(value: Any) -> Mapping[str, Any]:
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


def _builtin(cls: type) -> bool:
    return cls in (object, nn.Module, type)


def _contents(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:
        return []
