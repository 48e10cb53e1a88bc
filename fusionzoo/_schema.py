"""The one way in for files that fusionzoo wrote itself: bounded before they are believed, then checked against a schema.

A file is a regular file of at most so many bytes of UTF-8; its JSON has bounded depth and digits, no key twice and no NaN. What it holds is
described by a `TypedDict`, whose annotations are all that there is to say about it:

    class Model(TypedDict):
        host: str
        dims: dict[str, Annotated[int, Within(1, 10**6)]]
        placement: str | None
        label_names: NotRequired[list[str]]

`check(Model, value, "model.json", CheckpointError)` returns the value, or raises
`model.json: dims.text: expected a whole number from 1 to 1000000, got 1000000000000`. Keys that a schema does not name are left alone: a
later version may have written them. YAML comes in through `fusionzoo._yaml`, weights through `fusionzoo._weights`.
"""

from __future__ import annotations

import functools
import json
import math
import numbers
import os
import reprlib
import stat
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

T = TypeVar("T")
ErrorClass = Callable[[str], Exception]

LIMIT = 16 << 20
#: Nested containers in values of any shape; ours have six at most.
DEPTH = 32
#: Values of what a caller gives, those that several places share counted in each.
NODES = 100_000
#: Digits of a whole number: more than any of 64 bits has.
DIGITS = 20


@dataclass(frozen=True)
class Within:
    """Bounds of a number, or of the length of a text, list or mapping."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"at least {self.low}" if self.high == math.inf else f"from {self.low} to {self.high}"


#: What a file may say of sizes. A network with more is not built by this field, and a file that says so is not believed.
Width = Annotated[int, Within(1, 10**6)]
Count = Annotated[int, Within(0, 2**53)]
Sha256 = Annotated[str, Within(64, 64)]


class _Wrong(ValueError):
    """Raised inside a parser, with what was expected instead."""


# -- bytes and text ---------------------------------------------------------------------------------------------------


def bytes_of(path: str | os.PathLike[str], error: ErrorClass, limit: int = LIMIT) -> bytes:
    """A regular file's contents; devices, pipes and folders are refused before they are opened, larger files unread."""
    name = repr(os.fspath(path))
    try:
        check_regular(path, error)
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as why:
        raise error(f"{name} cannot be read: {getattr(why, 'strerror', None) or why}") from None
    if len(data) > limit:
        raise error(f"{name} is larger than {limit >> 20} MiB, which no such file is; it is damaged or something else")
    return data


def check_regular(path: str | os.PathLike[str], error: ErrorClass) -> int:
    """Raise unless a path leads to a file with contents of its own; returns its size."""
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise error(f"{os.fspath(path)!r} is a folder, expected a file")
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{os.fspath(path)!r} is a device or a pipe, expected a file")
    return found.st_size


def text_of(path: str | os.PathLike[str], error: ErrorClass, limit: int = LIMIT) -> str:
    """The same as text; a byte order mark at the beginning is no part of it."""
    data = bytes_of(path, error, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as why:
        raise error(f"{os.fspath(path)!r} is not UTF-8 text (byte {why.start}); save it as UTF-8") from None


# -- JSON -------------------------------------------------------------------------------------------------------------


def read_json(schema: type[T], path: str | os.PathLike[str], error: ErrorClass, limit: int = LIMIT) -> T:
    """What a JSON file holds, checked."""
    return check(schema, parse_json(text_of(path, error, limit), os.fspath(path), error), os.fspath(path), error)


def parse_json(text: str, where: str, error: ErrorClass) -> Any:
    """Strict JSON: no key twice, no NaN, no number that is too long or too large, bounded depth."""
    try:
        return json.loads(
            text,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_no_constant,
            object_pairs_hook=_once,
        )
    except RecursionError:
        raise error(f"{where} is nested too deeply to be one of fusionzoo's files") from None
    except ValueError as why:
        detail = f"{why}" if text.strip() else "it is empty"
        raise error(f"{where} is not valid JSON: {detail}") from None


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise _Wrong(f"it holds a whole number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _Wrong(f"it holds the number {digits[:20]}, which is too large")
    return value


def _no_constant(word: str) -> Any:
    raise _Wrong(f"it holds {word}, which is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))
        raise _Wrong(f"it holds the key {shown(twice)} twice")
    return out


# -- schemas ----------------------------------------------------------------------------------------------------------


def check(schema: type[T] | Any, value: Any, where: str, error: ErrorClass) -> T:
    """`value` if it is what `schema` describes, else `error` with the place, what was expected, and what is there."""
    try:
        _check(schema, value, ())
    except _Misfit as misfit:
        place = f"{'.'.join(misfit.path)}: " if misfit.path else ""
        raise error(f"{where}: {place}expected {misfit.expected}, got {misfit.got}") from None
    except RecursionError:
        raise error(f"{where} is nested too deeply to be one of fusionzoo's files") from None
    return value


def plain(value: Any, where: str, error: ErrorClass) -> Any:
    """A copy of what a caller gave, of None, booleans, finite numbers, texts, lists and mappings with texts as keys.

    Paths become texts, tuples lists and numpy's numbers Python's; anything else, and what is nested or repeated without
    end, raises `error`.
    """
    left = [NODES]
    try:
        return _plain(value, (), DEPTH, left)
    except _Misfit as misfit:
        place = f"{'.'.join(misfit.path)}: " if misfit.path else ""
        raise error(f"{where}: {place}expected {misfit.expected}, got {misfit.got}") from None


class _Misfit(Exception):
    def __init__(self, path: tuple[str, ...], expected: str, value: Any, got: str = ""):
        self.path, self.expected, self.got = path, expected, got or shown(value)
        self.depth = len(path) + bool(got)  # what says itself what is there has looked inside


_SCALARS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}


def _check(schema: Any, value: Any, path: tuple[str, ...]) -> None:
    origin, args = get_origin(schema), get_args(schema)
    if schema is Any:
        _check_plain(value, path, DEPTH)
    elif origin in (Required, NotRequired):
        _check(args[0], value, path)
    elif origin is Annotated:
        _check_within(args, value, path)
    elif origin in (Union, types.UnionType):
        _check_union(schema, args, value, path)
    elif origin is Literal:
        if not any(value == a and type(value) is type(a) for a in args):
            raise _Misfit(path, words(schema), value)
    elif is_typeddict(schema):
        _check_record(schema, value, path)
    elif origin is dict:
        for key, item in _mapping(value, path).items():
            _check(args[0], key, path)
            _check(args[1], item, (*path, _short(key)))
    elif origin in (list, tuple):
        _check_items(origin, args, value, path)
    elif not _is_scalar(schema, value):
        raise _Misfit(path, words(schema), value)


def _is_scalar(kind: Any, value: Any) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _check_within(args: tuple[Any, ...], value: Any, path: tuple[str, ...]) -> None:
    _check(args[0], value, path)
    for bounds in args[1:]:
        size = len(value) if hasattr(value, "__len__") else value
        if isinstance(bounds, Within) and not bounds.low <= size <= bounds.high:
            raise _Misfit(path, words(Annotated[args]), value)


def _check_union(schema: Any, args: tuple[Any, ...], value: Any, path: tuple[str, ...]) -> None:
    misfits = []
    for option in args:
        try:
            return _check(option, value, path)
        except _Misfit as misfit:
            misfits.append(misfit)
    # The alternative that got furthest into the value has the most to say.
    best = max(misfits, key=lambda m: m.depth)
    raise best if best.depth > len(path) else _Misfit(path, words(schema), value)


def _check_record(schema: Any, value: Any, path: tuple[str, ...]) -> None:
    found = _mapping(value, path)
    for name, kind in _fields(schema).items():
        if name in found:
            _check(kind, found[name], (*path, name))
        elif get_origin(kind) is not NotRequired:
            there = ", ".join(map(_short, found))
            raise _Misfit(path, f"the key {name!r}", None, f"only {there}"[:200] if there else "nothing")


@functools.cache
def _fields(schema: Any) -> dict[str, Any]:
    return get_type_hints(schema, include_extras=True)


def _check_items(origin: Any, args: tuple[Any, ...], value: Any, path: tuple[str, ...]) -> None:
    if not isinstance(value, (list, tuple)):
        raise _Misfit(path, "a list", value)
    if origin is tuple and args[-1] is not Ellipsis:
        if len(value) != len(args):
            raise _Misfit(path, f"a list of {len(args)}", value)
        kinds: Any = args
    else:
        kinds = [args[0]] * len(value)
    for i, (kind, item) in enumerate(zip(kinds, value, strict=True)):
        _check(kind, item, (*path, str(i)))


def _mapping(value: Any, path: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _Misfit(path, "a mapping of keys to values", value)
    for key in value:
        if not isinstance(key, str):
            raise _Misfit(path, "texts as keys", key)
    return value


def _check_plain(value: Any, path: tuple[str, ...], depth: int) -> None:
    if depth == 0:
        raise _Misfit(path[:4], f"at most {DEPTH} values inside one another", None, "more")
    if isinstance(value, Mapping):
        for key, item in _mapping(value, path).items():
            _check_plain(item, (*path, _short(key)), depth - 1)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check_plain(item, (*path, str(i)), depth - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _Misfit(path, "a finite number", value)
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**DIGITS:
        raise _Misfit(path, f"a whole number of at most {DIGITS} digits", value)
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        raise _Misfit(path, "null, true, false, a number, a text, a list or a mapping", value, type(value).__name__)


def _plain(value: Any, path: tuple[str, ...], depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0 or depth < 0:
        raise _Misfit(path[:4], f"at most {NODES} values, {DEPTH} inside one another", None, "more")
    if isinstance(value, Mapping):
        return {k: _plain(v, (*path, _short(k)), depth - 1, left) for k, v in _mapping(value, path).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, (*path, str(i)), depth - 1, left) for i, v in enumerate(value)]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
        value = int(value)
    elif isinstance(value, numbers.Real) and not isinstance(value, (bool, int)):
        value = float(value)
    _check_plain(value, path, 1)
    return value


def words(schema: Any) -> str:
    """A schema in a few words, for messages."""
    origin, args = get_origin(schema), get_args(schema)
    if origin is Annotated:
        bounds = next((a for a in args[1:] if isinstance(a, Within)), None)
        if args[0] in (int, float):
            return f"{words(args[0])} {bounds}"
        return f"{words(args[0])} of length {bounds.low if bounds and bounds.low == bounds.high else bounds}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(a) for a in args))
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin in (list, tuple):
        return "a list"
    if origin is dict or is_typeddict(schema):
        return "a mapping of keys to values"
    return _SCALARS.get(schema, "a plain value")


class _Brief(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxstring, self.maxother = 2, 3, 3, 3, 60, 60

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**30 else f"a whole number of {x.bit_length()} bits"


_BRIEF = _Brief()


def shown(value: Any) -> str:
    """A value in a few characters, whatever its size, and with its type where that is not to be seen."""
    try:
        text = _BRIEF.repr(value)
    except Exception:  # somebody's __repr__
        text = "?"
    return text if value is None or isinstance(value, (bool, int, float, str)) else f"{text} ({type(value).__name__})"


def _short(key: Any) -> str:
    return str(key)[:40]


def path_name(path: str | os.PathLike[str]) -> str:
    """The last two parts of a path, for messages about what stands in it."""
    return str(Path(*Path(path).parts[-2:]))
