"""Where in the model's own code an operation happened: the chain of functions from a module's method to the expression."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from torch import nn

from fusionzoo.patching.whose_code import HostCode

Position = tuple[int, int, int, int]
#: An earlier expression whose operands a join needs, and what belongs to it.
Kept = tuple[Position, tuple[Position, ...]]

_FUSE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fuse", "")


def code_key(code: CodeType) -> tuple[str, str, int]:
    """What identifies a function's code, its rewritten version included."""
    return code.co_filename, code.co_qualname, code.co_firstlineno


@dataclass(frozen=True)
class Step:
    """One function on the way to a site, and the expression in it that leads on (or is the site).

    position : first line, first column, last line, last column, in bytes and absolute, as Python reports them.
    line : of the function's definition.
    """

    file: str
    module: str
    qualname: str
    line: int
    position: Position

    @property
    def key(self) -> tuple[str, str, int]:
        """The function that it is in: file, name and first line."""
        return self.file, self.qualname, self.line


def moved(position: Position, shift: int) -> Position:
    """A position in a function that begins on another line now."""
    return position[0] + shift, position[1], position[2] + shift, position[3]


def user_frames(frame: FrameType | None, stop: FrameType | None, host: HostCode) -> list[FrameType]:
    """Frames of the model's own code, innermost first, up to where the trace began; without those that only hand a call on."""
    out: list[FrameType] = []
    while frame is not None and frame is not stop:
        filename = frame.f_code.co_filename
        if filename.startswith(_FUSE):
            return []  # what a fusion does inside a patch is no code of the host's
        if filename in host and not (out and _hands_on(frame, out[-1])):
            out.append(frame)
        frame = frame.f_back
    return out


def _hands_on(outer: FrameType, inner: FrameType) -> bool:
    """Whether a frame is a decorator's wrapper, or a `__call__`, around the method of the same object that runs inside it."""
    code = outer.f_code
    takes_anything = code.co_flags & inspect.CO_VARARGS and code.co_flags & inspect.CO_VARKEYWORDS
    if not takes_anything or code.co_argcount > 1:
        return False
    owner = receiver(inner)
    return isinstance(owner, nn.Module) and receiver(outer) is owner


def position_of(frame: FrameType) -> Position:
    """The expression that a frame is evaluating; its line alone where Python was told not to keep positions."""
    for i, (l0, l1, c0, c1) in enumerate(frame.f_code.co_positions()):
        if i == frame.f_lasti // 2 and l0 is not None and l1 is not None and c0 is not None and c1 is not None:
            return l0, c0, l1, c1
    return frame.f_lineno, -1, frame.f_lineno, -1


def receiver(frame: FrameType) -> Any:
    """The object whose method a frame runs, by its first argument."""
    code = frame.f_code
    if not code.co_argcount:
        given = (
            frame.f_locals.get(code.co_varnames[code.co_kwonlyargcount]) if code.co_flags & inspect.CO_VARARGS else None
        )
        return given[0] if isinstance(given, tuple) and given else None
    name = code.co_varnames[0]
    if name == "__fz_owner__" and len(code.co_varnames) > 1:
        name = code.co_varnames[1]
    return frame.f_locals.get(name)


def contains(outer: CodeType, inner: CodeType) -> bool:
    """Whether a function is written inside another one."""
    return any(
        isinstance(c, CodeType) and (code_key(c) == code_key(inner) or contains(c, inner)) for c in outer.co_consts
    )


def asked(value: Any, name: str, default: Any = None) -> Any:
    """An attribute of something that a model holds, which may raise anything when it is asked: a dict with keys as attributes."""
    try:
        return getattr(value, name, default)
    except Exception:
        return default


def holds(value: Any, code: CodeType, depth: int = 0) -> bool:
    """Whether calling a value runs this code: a function, a method, or a decorator's wrapper around it."""
    return find_function(value, code, depth) is not None


def find_function(value: Any, code: CodeType, depth: int = 0) -> FunctionType | None:
    """The function with this code inside a method, a partial, or a decorator's closure."""
    if depth > 5:
        return None
    base = None if isinstance(value, nn.Module) else asked(value, "__fz_base__")
    if base is not None:  # of a patch: look at what it stands for
        return find_function(base, code, depth + 1)
    if isinstance(value, (staticmethod, classmethod, MethodType)):
        return find_function(value.__func__, code, depth + 1)
    if isinstance(value, functools.partial):
        return find_function(value.func, code, depth + 1)
    if not isinstance(value, FunctionType):
        return None
    if code_key(value.__code__) == code_key(code):
        return value
    for cell in value.__closure__ or ():
        try:
            inner = cell.cell_contents
        except ValueError:
            continue
        if isinstance(inner, (FunctionType, MethodType, functools.partial, staticmethod)):
            found = find_function(inner, code, depth + 1)
            if found is not None:
                return found
    return None


def class_attributes(cls: type) -> Iterator[tuple[str, Any]]:
    """Names and raw values that look-ups on a class find."""
    seen: set[str] = set()
    for c in cls.__mro__:
        if c in (nn.Module, object):
            continue
        for name, value in list(vars(c).items()):
            if name not in seen:
                seen.add(name)
                yield name, value


def attributes(owner: Any) -> Iterator[tuple[str, Any]]:
    """Names and raw values of an object's own attributes, and of those of its class that they may stand before."""
    yield from list(vars(owner).items())
    yield from class_attributes(type(owner))


def method_names(owner: Any, code: CodeType) -> list[str]:
    """Attributes of an object that run this code when called."""
    return [
        name
        for name, value in attributes(owner)
        if callable(asked(value, "__func__", value)) and not isinstance(value, nn.Module) and holds(value, code)
    ]


def chain(frames: list[FrameType], registered: dict[int, str]) -> tuple[nn.Module, list[Step]] | None:
    """The innermost registered module whose code leads to the innermost frame, and the steps from its method on."""
    for depth, frame in enumerate(frames):
        owner = receiver(frame)
        if not isinstance(owner, nn.Module) or id(owner) not in registered:
            continue
        if not method_names(owner, frame.f_code):
            continue  # reached by super() or by name: begin further out
        steps = _steps(list(reversed(frames[: depth + 1])))
        return None if steps is None else (owner, steps)
    return None


def _steps(frames: list[FrameType]) -> list[Step] | None:
    """Outermost first; a function written inside an earlier one is part of that one."""
    out: list[Step] = []
    codes: list[CodeType] = []
    for frame in frames:
        code, position = frame.f_code, position_of(frame)
        for i, outer in enumerate(codes):
            if contains(outer, code):
                del out[i + 1 :], codes[i + 1 :]
                last = out[i]
                out[i] = Step(last.file, last.module, last.qualname, last.line, position)
                break
        else:
            module = frame.f_globals.get("__name__", "")
            out.append(Step(code.co_filename, module, code.co_qualname, code.co_firstlineno, position))
            codes.append(code)
    return out
