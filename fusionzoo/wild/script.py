"""A script run as Python runs it: as `__main__`, with its own arguments, its folder first on the path."""

from __future__ import annotations

import builtins
import io
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from fusionzoo.errors import PatchError
from fusionzoo.wild.replaced import Replaced


class Script:
    """A file of Python.

    namespace : of the script's module; filled while it runs.
    """

    def __init__(self, path: str | os.PathLike[str], args: Sequence[str] = ()):
        self.given, self.args = os.fspath(path), [str(a) for a in args]
        self.path = os.path.abspath(self.given)
        if not os.path.isfile(self.path):
            raise PatchError(
                f"there is no script {self.given!r}; write fusionzoo run [OPTIONS] path/to/train.py ARGS..."
            )
        self.folder = os.path.dirname(os.path.realpath(self.path))
        self.module = ModuleType("__main__")
        self.namespace: dict[str, object] = vars(self.module)

    def execute(self) -> None:
        """Run it; whatever it raises comes out."""
        with io.open_code(self.path) as file:
            source = file.read()
        code = compile(source, self.path, "exec", dont_inherit=True)
        loader = SourceFileLoader("__main__", self.path)  # by which inspect finds the source
        self.namespace.update(
            __file__=self.path, __loader__=loader, __spec__=None, __cached__=None, __builtins__=builtins
        )
        with self._surroundings():
            exec(code, self.namespace)

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        with Replaced() as replaced:
            paths = [self.folder, *sys.path[1:]]
            replaced.set(sys, "argv", [self.given, *self.args])
            replaced.set(sys, "path", list(paths))
            replaced.set(sys, "dont_write_bytecode", True)  # nothing is left in the script's folder
            main, before, folder = sys.modules.get("__main__"), set(sys.modules), os.getcwd()
            sys.modules["__main__"] = self.module
            try:
                yield
            finally:
                own = [self.folder, *(os.path.abspath(p) for p in sys.path if p not in paths)]
                os.chdir(folder)
                if main is not None:
                    sys.modules["__main__"] = main
                for name in [n for n, m in sys.modules.items() if n not in before and _is_from(m, own)]:
                    del sys.modules[name]  # the next script's have the same names


def _is_from(module: ModuleType, folders: list[str]) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and not is_installed(file) and any(Path(file).is_relative_to(f) for f in folders)


def is_installed(file: str) -> bool:
    """Whether a file belongs to a library or to Python, wherever those are, and not to a script."""
    return file.startswith(_PYTHON) or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


_PYTHON = tuple(os.path.join(sysconfig.get_path(p), "") for p in ("stdlib", "platstdlib"))


def trace(error: BaseException, script: str | os.PathLike[str]) -> str:
    """The traceback of a script's error as Python would show it: from the script's own first line on."""
    path, found = os.path.abspath(os.fspath(script)), error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename != path:
        found = found.tb_next
    return "".join(traceback.format_exception(type(error), error, found or error.__traceback__))


class Tee:
    """Standard output that is also kept; all else is the stream's own."""

    def __init__(self, stream: TextIO):
        self.stream, self.kept = stream, io.StringIO()

    def write(self, text: str) -> int:
        """Write to both."""
        self.kept.write(text)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
