"""What the names in a pickle become: stand-ins that build checked, plain values.

numpy's own constructors are never reached, because they trust the flags and lengths that a pickle states: arrays are
rebuilt here from their dtype, shape and bytes, all checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from fusionzoo.data._pickle_scan import Refused
from fusionzoo.data._pickle_values import Budget, GuardedDict, GuardedSet, Made, what

_DTYPE = re.compile(r"([<>|=]?)(?:(b1|[iu][1248]|f2|f4|f8|f12|f16|c8|c16|c24|c32)|([SU])([0-9]{1,9})|(O)[0-9]?)")
_STATE_ORDERS = ("<", ">", "|", "=")
_EMPTY = np.empty(0, dtype=np.float32)
_MOST_AXES = 32


class Dtype:
    """What `numpy.dtype(...)` becomes: a checked spelling, never a dtype with flags of the pickle's choosing."""

    __slots__ = ("order", "spec")
    name = "numpy.dtype"

    def __init__(self, spec: Any):
        spec = spec.decode("latin1") if isinstance(spec, bytes) else spec
        if not isinstance(spec, str) or not _DTYPE.fullmatch(spec):
            shown = repr(spec[:40]) if isinstance(spec, str) else f"a {type(spec).__name__}"
            raise Refused(f"an array of dtype {shown}, which is neither numbers nor text")
        self.spec, self.order = spec, ""

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags[, metadata]): the order is used, the
        # next three must be None, and the rest follows from the spelling, whatever the pickle says.
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise Refused("a structured or malformed dtype")
        if not isinstance(state[1], str) or state[1] not in _STATE_ORDERS:
            raise Refused("a structured or malformed dtype")
        self.order = "" if state[1] == "|" else state[1]

    def numpy(self) -> np.dtype[Any]:
        return _numpy_dtype(self.order, self.spec)


@lru_cache(maxsize=256)
def _numpy_dtype(given: str, spec: str) -> np.dtype[Any]:
    match = _DTYPE.fullmatch(spec)
    assert match is not None
    order, number, letter, size, _object = match.groups()
    if _object:
        return np.dtype(object)
    return np.dtype((given or order.replace("|", "")) + (number or letter + size))


class PendingArray(Made):
    """What `_reconstruct(ndarray, ...)` becomes: BUILD brings shape, dtype and data."""

    __slots__ = ()

    def __init__(self) -> None:
        self.value: np.ndarray = _EMPTY

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise Refused("a malformed array")
        shape, dtype, fortran, data = state[-4:]
        self.value = make_array(data, dtype, shape, "F" if fortran is True or fortran == 1 else "C")


class Record(Made):
    """What an object of a class in `RECORDS` becomes: a dict of its attributes and nothing else."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Record:
        if args:
            raise Refused("a record made with arguments")
        record = object.__new__(cls)
        record.value = {}
        return record

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, GuardedDict) or not all(isinstance(key, str) for key in state.value):
            raise Refused("a record whose attributes are no dict")
        self.value = state


class StandIn:
    """What an allowed name becomes: callable, but no type, and without attributes that BUILD could set."""

    __slots__ = ("_budget", "_make", "name")

    def __init__(self, name: str, make: Callable[..., Any], budget: Budget):
        self.name, self._make, self._budget = name, make, budget

    def __call__(self, *args: Any) -> Any:
        out = self._make(self._budget, *args)
        if type(out) in (list, tuple):
            self._budget.charge(64 + 8 * len(out))
        elif type(out) in (bytes, bytearray):
            self._budget.charge(len(out))
        return out

    def __setstate__(self, state: Any) -> None:
        raise Refused(f"an attempt to change {self.name}")

    def makes(self, make: Callable[..., Any]) -> bool:
        """Whether this stands in for what `make` builds."""
        return self._make is make


def make_array(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """An array of a checked dtype and shape, of data that fit them exactly."""
    shape = (shape,) if type(shape) is int else shape
    if (
        not isinstance(dtype, Dtype)
        or not isinstance(shape, tuple)
        or len(shape) > _MOST_AXES
        or not all(type(n) is int and n >= 0 for n in shape)
    ):
        raise Refused("a malformed array")
    count = math.prod(shape)
    real = dtype.numpy()
    if real.hasobject:
        if not isinstance(data, list) or len(data) != count:
            raise Refused("an array of objects whose data do not fit its shape")
        flat = np.empty(count, dtype=object)
        for i, item in enumerate(data):
            flat[i] = item
        return flat.reshape(shape, order="F" if order == "F" else "C")
    data = data.encode("latin1") if isinstance(data, str) else data
    # Text of width 0 has no bytes: any shape would fit, and numpy would reserve memory for it.
    width_ok = real.itemsize > 0 or count == 0
    if not isinstance(data, bytes | bytearray) or len(data) != count * real.itemsize or not width_ok:
        raise Refused(f"an array {shape} of {real} whose data do not fit its shape")
    return np.frombuffer(data, dtype=real).reshape(shape, order="F" if order == "F" else "C")


def _is(value: Any, make: Callable[..., Any]) -> bool:
    return isinstance(value, StandIn) and value.makes(make)


def _reconstruct(budget: Budget, kind: Any = None, *_: Any) -> PendingArray:
    if not _is(kind, _ndarray):
        raise Refused("an array of a class other than numpy.ndarray")
    return PendingArray()


def _ndarray(budget: Budget, *_: Any) -> Any:
    raise Refused("a direct call of numpy.ndarray")


def _dtype(budget: Budget, spec: Any = None, *_: Any) -> Dtype:
    return Dtype(spec)


def _scalar(budget: Budget, dtype: Any = None, data: Any = b"", *_: Any) -> Any:
    value = make_array([data] if isinstance(dtype, Dtype) and dtype.numpy().hasobject else data, dtype, (), "C")
    return value.item()


def _from_buffer(
    budget: Budget, data: Any = None, dtype: Any = None, shape: Any = None, order: Any = "C", *_: Any
) -> PendingArray:
    array = PendingArray()
    array.value = make_array(data, dtype, shape, "F" if order == "F" else "C")
    return array


def _encode(budget: Budget, text: Any = None, encoding: Any = "latin1", *_: Any) -> bytes:
    plain = encoding.lower().replace("-", "").replace("_", "") if isinstance(encoding, str) else None
    if not isinstance(text, str) or plain not in ("latin1", "iso88591", "ascii", "utf8"):
        raise Refused(f"text to encode as {encoding[:40]!r}" if isinstance(encoding, str) else "text to encode")
    return text.encode(encoding)


def _contents(args: tuple[Any, ...]) -> Iterable[Any]:
    """The one container that a container is made of, or nothing."""
    if not args:
        return ()
    if len(args) == 1:
        if type(args[0]) in (list, tuple):
            return args[0]
        if isinstance(args[0], GuardedDict | GuardedSet):
            return args[0].value
    raise Refused("a malformed container")


def _list(budget: Budget, *args: Any) -> list[Any]:
    return list(_contents(args))


def _tuple(budget: Budget, *args: Any) -> tuple[Any, ...]:
    return tuple(_contents(args))


def _set(budget: Budget, *args: Any) -> GuardedSet:
    return GuardedSet(budget, _contents(args))


def _frozenset(budget: Budget, *args: Any) -> GuardedSet:
    return GuardedSet(budget, _contents(args), frozen=True)


def _dict(budget: Budget, *args: Any) -> GuardedDict:
    contents = _contents(args)
    if args and isinstance(args[0], GuardedDict):
        return GuardedDict(budget, args[0].value.items())
    if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in contents):
        raise Refused("a malformed container")
    return GuardedDict(budget, contents)


def _defaultdict(budget: Budget, factory: Any = None, *args: Any) -> GuardedDict:
    # A plain dict: reading a missing key of the original would create it.
    if factory is not None and not _is(factory, _list) and not _is(factory, _dict):
        raise Refused(f"a defaultdict of {what(factory)}, whose factory is neither list nor dict")
    return _dict(budget, *args)


def _bytearray(budget: Budget, *args: Any) -> bytearray:
    if args and isinstance(args[0], str):
        return bytearray(_encode(budget, *args))
    if len(args) > 1 or (args and not isinstance(args[0], bytes)):  # a number would allocate that much
        raise Refused("a malformed bytearray")
    return bytearray(*args)


def _no_bytes(budget: Budget, *args: Any) -> bytes:
    if args:
        raise Refused("a call of bytes")
    return b""


def _complex(budget: Budget, *args: Any) -> complex:
    if len(args) > 2 or not all(isinstance(a, int | float) for a in args):
        raise Refused("a malformed complex number")
    return complex(*args)


#: Classes of published feature files that hold attributes only, read as dicts of these.
RECORDS = frozenset({("cogmen.Sample", "Sample")})

#: (module, name) -> what builds its value. Everything that is not here is refused.
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "list"): _list,
    ("builtins", "dict"): _dict,
    ("builtins", "tuple"): _tuple,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _frozenset,
    ("builtins", "bytearray"): _bytearray,
    ("builtins", "bytes"): _no_bytes,  # protocol 2 and older spell empty bytes as a call of it
    ("builtins", "complex"): _complex,
    ("collections", "OrderedDict"): _dict,
    ("collections", "defaultdict"): _defaultdict,
}
for _module in ("numpy.core", "numpy._core"):
    ALLOWED[f"{_module}.multiarray", "_reconstruct"] = _reconstruct
    ALLOWED[f"{_module}.multiarray", "scalar"] = _scalar
    ALLOWED[f"{_module}.numeric", "_frombuffer"] = _from_buffer
