"""The values of a pickle, bounded: what hashing and copying may cost, and what the result may hold.

Dicts and sets are built by `GuardedDict` and `GuardedSet`, which look at a key before it is hashed; `plain` turns the
result into ordinary containers and refuses what contains itself, is nested deeply, or is far larger than the file once
everything that it shares is written out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fusionzoo.data._pickle_scan import BASE, HASHED, TIMES, Refused

SCALARS = frozenset({str, bytes, int, float, complex, bool, type(None), bytearray})
_NUMBERS = frozenset({int, float, bool, complex, type(None)})
#: What the result may be with everything that it shares written out, in bytes and in objects: a base, times the file.
_BASE_BYTES, _TIMES_BYTES = 256 << 20, 16
_BASE_OBJECTS, _TIMES_OBJECTS = 2_000_000, 2
_DEPTH = 100
_KEY_LEAVES, _KEY_DEPTH = 64, 3
#: Keys with one hash in one container, and keys in all whose hashes a file can choose, so that every look-up passes all
#: the others: large numbers, and tuples of numbers alone. Python salts the hash of text, and of a tuple with text in it.
_EQUAL_HASHES, _CHOSEN_KEYS = 64, 1 << 15


class Budget:
    """What one load may still take."""

    def __init__(self, size: int):
        self.size = size
        self.bytes = BASE + TIMES * size
        self.chosen_keys = 0

    def charge(self, count: int) -> None:
        """Account for memory that is not in the file."""
        self.bytes -= count
        if self.bytes < 0:
            raise Refused(
                f"instructions that take more than {(BASE + TIMES * self.size) >> 20} MiB of memory, in a file of "
                f"{self.size} bytes"
            )


class _Guarded:
    """A container whose keys are looked at before they are hashed."""

    __slots__ = ("budget", "hashes", "value")
    value: Any

    def __init__(self, budget: Budget):
        self.budget = budget
        self.hashes: dict[int, int] = {}  # hash -> keys that have it, of kinds whose hash a file can choose

    def __setstate__(self, state: Any) -> None:
        raise Refused(f"an attempt to change {what(self)}")

    def check(self, key: Any) -> None:
        """Refuse a key that must not be hashed, or that has the hash of many others."""
        kind = type(key)
        if kind is str or kind is bytes or kind is bool or key is None:
            return
        if kind is int:
            if -(1 << 20) < key < (1 << 20):
                return
        elif kind is tuple:
            _check_tuple(key, _KEY_DEPTH, 0)
        elif kind is not float and kind is not complex:
            raise Refused(f"{what(key)} as the key of a container")
        self.budget.chosen_keys += kind is not tuple or not any(type(part) is str and part for part in key)
        code = hash(key)
        count = self.hashes[code] = self.hashes.get(code, 0) + 1
        if count > _EQUAL_HASHES or self.budget.chosen_keys > _CHOSEN_KEYS:
            raise Refused("very many keys that are large numbers, or tuples without text")


class GuardedDict(_Guarded):
    """What becomes a dict."""

    __slots__ = ()

    def __init__(self, budget: Budget, items: Iterable[tuple[Any, Any]] = ()):
        super().__init__(budget)
        budget.charge(HASHED)
        self.value: dict[Any, Any] = {}
        for key, value in items:
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) is not str:
            self.check(key)
        self.value[key] = value


class GuardedSet(_Guarded):
    """What becomes a set, or a frozenset."""

    __slots__ = ("frozen",)

    def __init__(self, budget: Budget, items: Iterable[Any] = (), frozen: bool = False):
        super().__init__(budget)
        budget.charge(2 * HASHED)
        self.value: set[Any] = set()
        self.frozen = frozen
        for item in items:
            self.add(item)

    def add(self, item: Any) -> None:
        self.check(item)
        self.value.add(item)


class Made:
    """A value whose contents come later, by BUILD; `value` is what takes its place."""

    __slots__ = ("value",)
    value: Any


def what(value: Any) -> str:
    """What a value is, in words that never hold the value itself, which may be huge."""
    name = getattr(value, "name", None)
    if isinstance(name, str):
        return name
    kind = type(value)
    return {GuardedDict: "a dict", GuardedSet: "a set"}.get(kind) or f"a {kind.__name__.lstrip('_')}"


def _check_tuple(key: tuple[Any, ...], depth: int, leaves: int) -> int:
    """Refuse a tuple whose hash would take long: only scalars, few, and not deep. Returns the leaves so far."""
    for item in key:
        if type(item) is tuple and depth > 1:
            leaves = _check_tuple(item, depth - 1, leaves + 1)
        elif type(item) in SCALARS and type(item) is not bytearray:
            leaves += 1
        else:
            raise Refused(f"a tuple with {what(item)} in it as the key of a container")
        if leaves > _KEY_LEAVES:
            raise Refused("a long tuple as the key of a container")
    return leaves


class Plain:
    """Turns the result of a load into ordinary values, each shared part once; `size` is the file's."""

    def __init__(self, size: int):
        self.size = size
        self.most_bytes = _BASE_BYTES + _TIMES_BYTES * size
        self.most_objects = _BASE_OBJECTS + _TIMES_OBJECTS * size
        # id -> (original, its replacement, bytes, objects, height); the original is kept, lest its id come back as
        # another's. None while its parts are being looked at.
        self.known: dict[int, tuple[Any, Any, int, int, int] | None] = {}

    def of(self, value: Any) -> Any:
        """The plain value. Raises `Refused`."""
        return self._plain(value, 0)[0]

    def _plain(self, value: Any, depth: int) -> tuple[Any, int, int, int]:
        """The plain value, and what it is written out: bytes, objects, height."""
        kind = type(value)
        if kind in SCALARS:
            return value, (len(value) if kind in (str, bytes, bytearray) else 8), 1, 0
        if isinstance(value, Made):
            return self._plain(value.value, depth)
        if kind is np.ndarray and not value.dtype.hasobject:
            return value, value.nbytes, 1, 0
        if id(value) in self.known:
            before = self.known[id(value)]
            if before is None:
                raise Refused("a value that contains itself")
            self._check_depth(depth + before[4])
            return before[1:]
        self._check_depth(depth)
        self.known[id(value)] = None
        out, parts = self._opened(value)
        total, objects, height = 0, 1, 0
        for part in parts:
            b, o, h = self._walk(part, depth + 1)
            total, objects, height = total + b, objects + o, max(height, h)
            self._check_size(total, objects)
        if kind is tuple:
            out = tuple(parts[0])
        elif kind is np.ndarray:
            out = np.empty(value.size, dtype=object)
            for i, item in enumerate(parts[0]):
                out[i] = item
            out = out.reshape(value.shape)
        elif kind is GuardedDict:
            out = dict(zip(value.value, parts[1], strict=True))
        self.known[id(value)] = value, out, total, objects, height
        return out, total, objects, height

    def _opened(self, value: Any) -> tuple[Any, list[list[Any]]]:
        """What becomes of a container, and lists of its parts, whose items are replaced in place."""
        kind = type(value)
        if kind is list:
            return value, [value]
        if kind is tuple:
            return None, [list(value)]
        if kind is np.ndarray:
            return None, [value.ravel().tolist()]
        if kind is GuardedDict:
            return None, [list(value.value), list(value.value.values())]
        if kind is GuardedSet:
            return (frozenset(value.value) if value.frozen else value.value), [list(value.value)]
        raise Refused(f"{what(value)} where a value was expected")

    def _walk(self, items: list[Any], depth: int) -> tuple[int, int, int]:
        if set(map(type, items)) <= _NUMBERS:
            return 8 * len(items), len(items), 0
        total, objects, height = 0, 0, 0
        for i, item in enumerate(items):
            out, b, o, h = self._plain(item, depth)
            total, objects, height = total + b + 8, objects + o, max(height, h + 1)
            if out is not item:
                items[i] = out
            if total > self.most_bytes:
                self._check_size(total, objects)
        return total, objects, height

    def _check_size(self, total: int, objects: int) -> None:
        if total > self.most_bytes or objects > self.most_objects:
            raise Refused(
                f"values that are far larger than the file ({self.size} bytes) once what they share is written out"
            )

    def _check_depth(self, depth: int) -> None:
        if depth > _DEPTH:
            raise Refused("containers that are nested too deeply for a file of features")
