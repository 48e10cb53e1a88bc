"""Pickles from the internet, read without running them.

A pickle is a program: loading one calls whatever it names. Three steps make it harmless:

1. `fusionzoo.data._pickle_scan` looks at every instruction, refuses lengths, digits and memo places that the file is too
   small for, and has dicts and sets built by us, so that keys are looked at before they are hashed.
2. `SafeUnpickler` follows the instructions and admits the names in `ALLOWED` (`fusionzoo.data._pickle_names`).
3. `fusionzoo.data._pickle_values` makes plain values of the result and refuses what is deep, circular, or far larger than
   the file once written out.

| instruction or name | what happens |
|---|---|
| a name of `ALLOWED` | a stand-in that builds a checked, plain value |
| any other name | `UnsafePickleError` with that name, before anything is called |
| a name of `RECORDS` | a plain record that keeps its attributes and becomes a dict; no code of the class |
| BUILD (`__setstate__`, attributes) | only on arrays, dtypes and records made here, state checked; refused elsewhere |
| NEWOBJ, and calling a result | refused except for records: stand-ins are no types, values are not callable |
| persistent id, extension code, outside buffer | refused |

Python 2 pickles are read with `latin1`, as this field's loaders do.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from fusionzoo.data._pickle_names import ALLOWED, RECORDS, Record, StandIn
from fusionzoo.data._pickle_scan import Damaged, EditedFile, Refused, scan
from fusionzoo.data._pickle_values import Budget, GuardedDict, GuardedSet, Plain
from fusionzoo.errors import DataError, FusionZooError, UnsafePickleError

__all__ = ["ALLOWED", "RECORDS", "SafeUnpickler", "load_pickle", "names_in"]

_ADVICE = (
    "Expected only arrays and plain containers (list, tuple, dict, set, text, numbers). Do not load it with pickle: "
    "ask its author for arrays, or export them yourself where you trust the file."
)

# Python 2 and pickles of protocol 2 and older call these modules otherwise.
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class SafeUnpickler(pickle.Unpickler):
    """An unpickler that knows only `ALLOWED`; use `load_pickle`, which scans the file first and makes plain values."""

    def __init__(self, stream: Any, path: Path, budget: Budget):
        super().__init__(stream, fix_imports=False, encoding="latin1", errors="strict")
        self._path, self._budget = path, budget

    def find_class(self, module: str, name: str, /) -> Any:
        """A stand-in for an allowed name; any other is refused."""
        module = _RENAMED.get(module, module)
        if (module, name) in RECORDS:
            return Record
        make = ALLOWED.get((module, name))
        if make is None:
            raise UnsafePickleError(
                f"{self._path}: refused. The pickle asks for {f'{module}.{name}'[:200]}, which is neither an array nor a "
                f"plain container; nothing of it was run. {_ADVICE}"
            )
        return StandIn(f"{module}.{name}", make, self._budget)

    def persistent_load(self, pid: Any, /) -> Any:
        """Where the scan has put a call of this in the place of an instruction that hashes; see `_pickle_scan._EDITS`."""
        if pid is None:
            return GuardedDict(self._budget)
        if pid is False:
            return GuardedSet(self._budget)
        if type(pid) is list:
            return GuardedSet(self._budget, pid, frozen=True)
        if type(pid) is tuple and len(pid) % 2 == 0:
            return GuardedDict(self._budget, zip(pid[::2], pid[1::2], strict=True))
        shown = repr(pid[:200]) if isinstance(pid, str) else f"of type {type(pid).__name__}"
        raise Refused(f"a reference to the outside object {shown}")


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """The plain content of a pickle: dicts, lists, tuples, sets, text, numbers and numpy arrays.

    Raises `UnsafePickleError` when it names anything else, or asks for more than an honest file of its size does (nothing
    is executed), `DataError` when it is damaged.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise DataError(f"{path}: is empty. Fetch it again.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                size = len(data)
                stream = io.BufferedReader(EditedFile(data, scan(data)), 1 << 20)
                return Plain(size).of(SafeUnpickler(stream, path, Budget(size)).load())
    except FusionZooError:
        raise
    except Refused as refused:
        raise UnsafePickleError(f"{path}: refused. The pickle holds {refused}. {_ADVICE}") from None
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except Damaged as damage:
        raise _damaged(path, str(damage)) from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise _damaged(path, str(error)[:200] or type(error).__name__) from error


def _damaged(path: Path, detail: str) -> DataError:
    return DataError(
        f"{path}: damaged, truncated or no pickle ({detail}). Compare its size or checksum with the source's and fetch it "
        f"again."
    )


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
            names[f"{_RENAMED.get(module, module)}.{name}"[:200]] = None
            top = None
        elif opcode == "STACK_GLOBAL":
            names[".".join(texts)[:200]] = None
        if top is not None:
            texts = [texts[1], top]
    return list(names)


def _opcodes(path: Path) -> Iterator[tuple[str, Any]]:
    with open(path, "rb") as stream:
        try:
            # A mapped file gives what is there, however much is asked for; a stream would reserve it first.
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                scan(data)
                for opcode, argument, _ in pickletools.genops(cast(IO[bytes], data)):
                    yield opcode.name, argument
        except Refused as refused:
            raise UnsafePickleError(f"{path}: refused. The pickle holds {refused}. {_ADVICE}") from None
        except Exception as error:  # genops raises whatever the damaged bytes lead it to
            raise DataError(f"{path}: damaged, truncated or no pickle ({str(error)[:200]}). Fetch it again.") from error
