"""Pickles from the internet, read without running them.

A pickle is a program: loading one calls whatever it names. `SafeUnpickler` admits the names in `ALLOWED` (arrays,
scalars and plain containers) and refuses every other by name. What it admits never reaches numpy's own constructors
either, which trust the flags and lengths that a pickle states: arrays are rebuilt here from their dtype, shape and
bytes, all checked.

| opcode or name | what happens |
|---|---|
| a name of `ALLOWED` | a stand-in that builds a checked, plain value |
| any other name | `UnsafePickleError` with that name, before anything is called |
| a name of `RECORDS` | a plain record that keeps its attributes and becomes a dict; no code of the class |
| BUILD (`__setstate__`, attributes) | only on arrays, dtypes and records made here, state checked; refused elsewhere |
| NEWOBJ, and calling a result | refused except for records: stand-ins are no types, values are not callable |
| persistent id, extension code | refused |

Python 2 pickles are read with `latin1`, as this field's loaders do.
"""

from __future__ import annotations

import copyreg
import os
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fusionzoo.errors import DataError, FusionZooError, UnsafePickleError

_ADVICE = (
    "Expected only arrays and plain containers (list, tuple, dict, set, text, numbers). Do not load it with pickle: "
    "ask its author for arrays, or export them yourself where you trust the file."
)
_SCALARS = frozenset({str, bytes, int, float, complex, bool, type(None), bytearray})
_DTYPE = re.compile(r"([<>|=]?)(?:(b1|[iu][1248]|f2|f4|f8|f12|f16|c8|c16|c24|c32)|([SU])(\d+)|(O)\d?)")
_STATE_ORDERS = ("<", ">", "|", "=")


class _Refused(Exception):
    """A malformed array, dtype or container; `load` turns it into an error that names the file."""


class _Dtype:
    """What `numpy.dtype(...)` becomes: a checked spelling, never a dtype with flags of the pickle's choosing."""

    __slots__ = ("order", "spec")

    def __init__(self, spec: Any, *_: Any):
        spec = spec.decode("latin1") if isinstance(spec, bytes) else spec
        if not isinstance(spec, str) or not _DTYPE.fullmatch(spec):
            raise _Refused(f"an array of dtype {spec!r}, which is neither numbers nor text")
        self.spec, self.order = spec, ""

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags[, metadata]): the order is used, the
        # next three must be None, and the rest follows from the spelling, whatever the pickle says.
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in _STATE_ORDERS or any(state[2:5]):
            raise _Refused("a structured or malformed dtype")
        self.order = "" if state[1] == "|" else state[1]

    def numpy(self) -> np.dtype[Any]:
        match = _DTYPE.fullmatch(self.spec)
        assert match is not None
        order, number, letter, size, _object = match.groups()
        if _object:
            return np.dtype(object)
        return np.dtype((self.order or order.replace("|", "")) + (number or letter + size))


class _Array:
    """What `_reconstruct(ndarray, ...)` becomes: an empty array until BUILD brings shape, dtype and data."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray = np.empty(0, dtype=np.float32)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise _Refused("a malformed array")
        shape, dtype, fortran, data = state[-4:]
        self.value = _make_array(data, dtype, shape, "F" if fortran else "C")


def _make_array(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    shape = (shape,) if isinstance(shape, int) else shape
    if (
        not isinstance(dtype, _Dtype)
        or not isinstance(shape, tuple)
        or not all(type(n) is int and n >= 0 for n in shape)
    ):
        raise _Refused("a malformed array")
    count = 1
    for n in shape:
        count *= n
    real = dtype.numpy()
    if real.hasobject:
        if not isinstance(data, list) or len(data) != count:
            raise _Refused("an array of objects whose data do not fit its shape")
        flat = np.empty(count, dtype=object)
        for i, item in enumerate(data):
            flat[i] = item
        return flat.reshape(shape, order="F" if order == "F" else "C")
    data = data.encode("latin1") if isinstance(data, str) else data
    # Text of width 0 has no bytes: any shape would fit, and numpy would reserve memory for it.
    width_ok = real.itemsize > 0 or count == 0
    if not isinstance(data, bytes | bytearray) or len(data) != count * real.itemsize or not width_ok:
        raise _Refused(f"an array {shape} of {real} whose data do not fit its shape")
    return np.frombuffer(bytes(data), dtype=real).reshape(shape, order="F" if order == "F" else "C")


class _StandIn:
    """What an allowed name becomes: callable, but no type, and without attributes that BUILD could set."""

    __slots__ = ("_make", "_name")

    def __init__(self, name: str, make: Callable[..., Any]):
        self._name, self._make = name, make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Refused(f"an attempt to change {self._name}")


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _NDARRAY:
        raise _Refused("an array of a class other than numpy.ndarray")
    return _Array()


def _ndarray(*_: Any) -> Any:
    raise _Refused("a direct call of numpy.ndarray")


def _scalar(dtype: Any, data: Any = b"") -> Any:
    value = _make_array([data] if isinstance(dtype, _Dtype) and dtype.spec[:1] == "O" else data, dtype, (), "C")
    return value.item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _make_array(data, dtype, shape, str(order))
    return array


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or str(encoding).lower().replace("-", "").replace("_", "") not in (
        "latin1",
        "iso88591",
        "ascii",
        "utf8",
    ):
        raise _Refused(f"text to encode as {encoding!r}")
    return text.encode(str(encoding))


def _container(make: Callable[[Any], Any]) -> Callable[..., Any]:
    def build(*args: Any) -> Any:
        if len(args) > 1 or (args and not isinstance(args[0], list | tuple | dict | set | frozenset)):
            raise _Refused("a malformed container")
        return make(args[0] if args else ())

    return build


def _bytearray(*args: Any) -> bytearray:
    if args and isinstance(args[0], str):
        return bytearray(_encode(*args))
    if len(args) > 1 or (args and not isinstance(args[0], bytes)):  # a number would allocate that much
        raise _Refused("a malformed bytearray")
    return bytearray(*args)


def _no_bytes(*args: Any) -> bytes:
    if args:
        raise _Refused("a call of bytes")
    return b""


def _complex(*args: Any) -> complex:
    if len(args) > 2 or not all(isinstance(a, int | float) for a in args):
        raise _Refused("a malformed complex number")
    return complex(*args)


def _defaultdict(factory: Any = None, *args: Any) -> dict[Any, Any]:
    # A plain dict: reading a missing key of the original would create it.
    if factory is not None and factory not in (_LIST, _DICT):
        raise _Refused("a defaultdict whose factory is neither list nor dict")
    return _container(dict)(*args)


_NDARRAY = _StandIn("numpy.ndarray", _ndarray)
_LIST = _StandIn("builtins.list", _container(list))
_DICT = _StandIn("builtins.dict", _container(dict))


class _Record:
    """What an object of a class in `RECORDS` becomes: its attributes and nothing else."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}

    def __new__(cls, *args: Any) -> _Record:
        if args:
            raise _Refused("a record made with arguments")
        record = object.__new__(cls)
        record.value = {}
        return record

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise _Refused("a record whose attributes are no dict")
        self.value = dict(state)


#: Classes of published feature files that hold attributes only, read as dicts of these.
RECORDS = frozenset({("cogmen.Sample", "Sample")})

#: (module, name) -> stand-in. Everything that is not here is refused.
ALLOWED: dict[tuple[str, str], _StandIn] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _StandIn("numpy.dtype", _Dtype),
    ("_codecs", "encode"): _StandIn("_codecs.encode", _encode),
    ("builtins", "list"): _LIST,
    ("builtins", "dict"): _DICT,
    ("collections", "OrderedDict"): _StandIn("collections.OrderedDict", _container(dict)),
    ("collections", "defaultdict"): _StandIn("collections.defaultdict", _defaultdict),
}
for _module in ("numpy.core", "numpy._core"):
    ALLOWED[f"{_module}.multiarray", "_reconstruct"] = _StandIn(f"{_module}.multiarray._reconstruct", _reconstruct)
    ALLOWED[f"{_module}.multiarray", "scalar"] = _StandIn(f"{_module}.multiarray.scalar", _scalar)
    ALLOWED[f"{_module}.numeric", "_frombuffer"] = _StandIn(f"{_module}.numeric._frombuffer", _from_buffer)
# Python's own containers; `bytes` because protocol 2 and older spell empty bytes as a call of it.
for _name, _make in {
    "tuple": _container(tuple),
    "set": _container(set),
    "frozenset": _container(frozenset),
    "bytearray": _bytearray,
    "bytes": _no_bytes,
    "complex": _complex,
}.items():
    ALLOWED["builtins", _name] = _StandIn(f"builtins.{_name}", _make)

# Python 2 and pickles of protocol 2 and older call these modules otherwise.
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class SafeUnpickler(pickle.Unpickler):
    """An unpickler that knows only `ALLOWED`; use `load_pickle`, which also checks and plainifies the result."""

    def __init__(self, stream: Any, path: Path):
        super().__init__(stream, fix_imports=False, encoding="latin1", errors="strict")
        self._path = path

    def find_class(self, module: str, name: str, /) -> Any:
        module = _RENAMED.get(module, module)
        if (module, name) in RECORDS:
            return _Record
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise UnsafePickleError(
                f"{self._path}: refused. The pickle asks for {module}.{name}, which is neither an array nor a plain "
                f"container; nothing of it was run. {_ADVICE}"
            ) from None

    def persistent_load(self, pid: Any, /) -> Any:
        raise UnsafePickleError(f"{self._path}: refused. The pickle refers to the outside object {pid!r}. {_ADVICE}")


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """The plain content of a pickle: dicts, lists, tuples, sets, text, numbers and numpy arrays.

    Raises `UnsafePickleError` when it names anything else (nothing is executed), `DataError` when it is damaged.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            # An extension code stands for a name that this process registered, and resolves without `find_class`.
            if getattr(copyreg, "_inverted_registry", True):
                _refuse_extensions(path)
            return _plain(SafeUnpickler(stream, path).load(), {})
    except FusionZooError:
        raise
    except _Refused as refused:
        raise UnsafePickleError(f"{path}: refused. The pickle holds {refused}. {_ADVICE}") from None
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except RecursionError:
        raise DataError(f"{path}: its containers are nested too deeply for a file of features. {_ADVICE}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        if "extension" in str(error):
            raise UnsafePickleError(
                f"{path}: refused. The pickle uses an extension code ({error}). {_ADVICE}"
            ) from None
        detail = str(error) or type(error).__name__
        raise DataError(
            f"{path}: damaged, truncated or no pickle ({detail}). Compare its size or checksum with the source's and "
            f"fetch it again."
        ) from error


def names_in(path: str | os.PathLike[str]) -> list[str]:
    """Every `module.name` that a pickle would import, found by reading its opcodes; nothing is loaded.

    Names that the pickle assembles from memoised text are found when they were written in it; `load_pickle` refuses by
    the real name in any case.
    """
    names: dict[str, None] = {}
    texts: list[str] = ["?", "?"]  # the two texts pushed last: what STACK_GLOBAL takes
    memo: dict[int, str | None] = {}
    top: str | None = None  # the text on top of the stack, if a text is
    for opcode, argument in _opcodes(Path(path)):
        if opcode == "MEMOIZE" or opcode.endswith("PUT"):
            memo[len(memo) if argument is None else int(argument)] = top
            continue
        top = memo.get(int(argument)) if opcode.endswith("GET") else argument if isinstance(argument, str) else None
        if opcode in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            names[f"{_RENAMED.get(module, module)}.{name}"] = None
            top = None
        elif opcode == "STACK_GLOBAL":
            names[".".join(texts)] = None
        if top is not None:
            texts = [texts[1], top]
    return list(names)


def _opcodes(path: Path) -> Iterator[tuple[str, Any]]:
    with open(path, "rb") as stream:
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                yield opcode.name, argument
        except Exception as error:  # genops raises whatever the damaged bytes lead it to
            raise DataError(f"{path}: damaged, truncated or no pickle ({error}). Fetch it again.") from error


def _refuse_extensions(path: Path) -> None:
    for opcode, argument in _opcodes(path):
        if opcode in ("EXT1", "EXT2", "EXT4"):
            raise UnsafePickleError(f"{path}: refused. The pickle uses the extension code {argument}. {_ADVICE}")


def _plain(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """`value` with our arrays replaced by numpy's, containers walked in place; anything unexpected is refused."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    # `seen` keeps the original beside its replacement: a freed object's id could come back as another's.
    if id(value) in seen:
        return seen[id(value)][1]
    if kind is _Array:
        out = value.value
        if out.dtype.hasobject:
            seen[id(value)] = (value, out)
            for i, item in enumerate(out.flat):
                out.flat[i] = _plain(item, seen)
        return out
    if kind is _Record:
        seen[id(value)] = (value, value.value)
        return _plain(value.value, seen)
    if kind is list:
        seen[id(value)] = (value, value)
        for i, item in enumerate(value):
            if type(item) not in _SCALARS:
                value[i] = _plain(item, seen)
        return value
    if kind is dict:
        seen[id(value)] = (value, value)
        for key, item in value.items():
            _check_key(key)
            value[key] = _plain(item, seen)
        return value
    if kind is tuple:
        seen[id(value)] = (value, tuple(_plain(item, seen) for item in value))
        return seen[id(value)][1]
    if kind is set or kind is frozenset:
        for item in value:
            _check_key(item)
        return value
    what = value._name if kind is _StandIn else kind.__name__
    raise _Refused(f"{what} where a value was expected")


def _check_key(key: Any) -> None:
    if type(key) is tuple:
        for item in key:
            _check_key(item)
    elif type(key) not in _SCALARS:
        raise _Refused(f"a {type(key).__name__} as the key of a container")
