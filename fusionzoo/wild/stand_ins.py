"""Stand-ins for packages that a script imports, that are not installed, and that take no part in what it computes.

Trackers, debuggers and profilers do nothing when they are called. Packages that a script imports and may never use (encoders
of raw data) can be imported, and say what is missing when something of theirs is called. Only imports that the script's own
files ask for are answered: libraries that look whether a tracker is installed still find none.
A few small ones that do take part are computed by torch instead (`COMPUTED`).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any

from fusionzoo.errors import MissingDependency
from fusionzoo.wild.script import is_installed

# Nothing that a model learns from comes out of these.
SILENT = frozenset(
    {
        "aim",
        "clearml",
        "comet_ml",
        "icecream",
        "ipdb",
        "line_profiler",
        "memory_profiler",
        "mlflow",
        "neptune",
        "pudb",
        "setproctitle",
        "swanlab",
        "tensorboardX",
        "thop",
        "torchinfo",
        "torchsummary",
        "torchviz",
        "trackio",
        "visdom",
        "wandb",
    }
)
# Encoders, readers and plots: many scripts import them at the top and never call them.
AT_IMPORT = frozenset(
    {
        "cv2",
        "fairseq",
        "gensim",
        "keras",
        "librosa",
        "moviepy",
        "nltk",
        "opensmile",
        "pytorch_pretrained_bert",
        "pytorch_transformers",
        "seaborn",
        "sentence_transformers",
        "soundfile",
        "spacy",
        "tensorflow",
        "torchaudio",
        "torchtext",
        "torchvision",
        "transformers",
    }
)


# Those that take part: what scripts ask of them, computed otherwise, and the same.
COMPUTED = {"torch_scatter": "fusionzoo.wild.scatter"}
_OURS = ("fusionzoo", "fusionzoo_plugins", "fusionzoo_adapters")


class StandIn:
    """Something of a package that is not there."""

    def __init__(self, name: str):
        self.__dict__["name"] = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python and libraries ask of any object
            raise AttributeError(name)
        return type(self)(f"{self.name}.{name}")

    def __setattr__(self, name: str, value: object) -> None:
        pass

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return ()  # a class derived from it is a plain one

    def __instancecheck__(self, instance: object) -> bool:
        return False

    def __or__(self, other: object) -> Any:
        return self  # in an annotation

    __ror__ = __or__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise _missing(self.name)

    def __repr__(self) -> str:
        return f"<stand-in for {self.name}>"


class Silent(StandIn):
    """Whatever is done with it does nothing; as a decorator, it returns the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and inspect.isfunction(args[0]):
            return args[0]
        return Silent(f"{self.name}()")

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __getitem__(self, key: object) -> Any:
        return Silent(f"{self.name}[{key!r}]")

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def _value(self) -> Any:
        raise _missing(self.name)

    # A value that the script would compute with takes part in it.
    __int__ = __float__ = __index__ = _value


def _missing(name: str) -> MissingDependency:
    package = name.partition(".")[0]
    return MissingDependency(package, purpose=f"the script uses {name}, and")


class _Module(ModuleType):
    def __init__(self, name: str, kind: type[StandIn]):
        super().__init__(name)
        self.__path__: list[str] = []
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return self._kind(f"{self.__name__}.{name}")


class Finder(MetaPathFinder, Loader):
    """Comes after all others on `sys.meta_path`: asked only for what nobody found.

    Parameters
    ----------
    say : is told once for each package.
    """

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.names: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        if package not in SILENT | AT_IMPORT | COMPUTED.keys() or not self._asked_by_script():
            return None
        if rest and package not in self.names:
            return None  # the package is there, and has no such module
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def _asked_by_script(self) -> bool:
        """Whether the import stands in a file that is neither a library's nor ours."""
        frame = inspect.currentframe()
        while frame is not None:
            file, name = frame.f_code.co_filename, str(frame.f_globals.get("__name__"))
            if file != __file__ and not file.startswith("<frozen importlib"):
                return not is_installed(file) and name.partition(".")[0] not in _OURS
            frame = frame.f_back
        return False

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        package, _, rest = spec.name.partition(".")
        silent = package in SILENT
        module = _Module(spec.name, Silent if silent else StandIn)
        if rest:
            return module
        if package in COMPUTED:
            found = importlib.import_module(COMPUTED[package])
            names: list[str] = found.__all__
            vars(module).update((n, getattr(found, n)) for n in names)
            does = f"whose {', '.join(names)} are torch's"
        else:
            does = "that does nothing here" if silent else "that can be imported here, and not be used"
        self.names.append(package)
        self.say(f"{package} is not installed: a stand-in {does} takes its place (pip install {package})")
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass

    def __enter__(self) -> Finder:
        sys.meta_path.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        sys.meta_path.remove(self)
        for name in [n for n, m in sys.modules.items() if type(m) is _Module]:
            del sys.modules[name]
