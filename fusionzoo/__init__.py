"""fusionzoo: any fusion, in any emotion-recognition-in-conversation model, in one line, and proven.

>>> import fusionzoo
>>> fusion = fusionzoo.get("lmam")({"text": 1024, "audio": 1582, "visual": 342}, out_dim=512)

Importing this package imports neither torch nor any plugin: the registry reads installed entry points, and everything
that needs torch is loaded at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, overload

__version__ = "0.1.0"

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from torch import nn

    from fusionzoo import data as data
    from fusionzoo import doctor as doctor
    from fusionzoo import encoders as encoders
    from fusionzoo import errors as errors
    from fusionzoo import experiments as experiments
    from fusionzoo import extraction as extraction
    from fusionzoo import fusion as fusion
    from fusionzoo import host as host
    from fusionzoo import layers as layers
    from fusionzoo import numerics as numerics
    from fusionzoo import objective as objective
    from fusionzoo import patching as patching
    from fusionzoo import reference as reference
    from fusionzoo import reporting as reporting
    from fusionzoo import runs as runs
    from fusionzoo import scoring as scoring
    from fusionzoo import specs as specs
    from fusionzoo import testing as testing
    from fusionzoo import training as training
    from fusionzoo import wild as wild
    from fusionzoo._types import Adapter, Options, Plugin
    from fusionzoo.data import Batch as Batch
    from fusionzoo.data import Corpus as Corpus
    from fusionzoo.data.readers import Reader
    from fusionzoo.experiments.cost import bench as bench
    from fusionzoo.experiments.cross_validation import cross_validate as cross_validate
    from fusionzoo.experiments.diagnosis import diagnose as diagnose
    from fusionzoo.experiments.dialogue import predict_dialogue as predict_dialogue
    from fusionzoo.experiments.grid import compare as compare
    from fusionzoo.experiments.reproduction import reproduce as reproduce
    from fusionzoo.experiments.saved_runs import evaluate as evaluate
    from fusionzoo.experiments.saved_runs import predict as predict
    from fusionzoo.experiments.single_run import train as train
    from fusionzoo.extraction.run import extract as extract
    from fusionzoo.fusion import Fused as Fused
    from fusionzoo.fusion import Fusion as Fusion
    from fusionzoo.hookspecs import hookimpl as hookimpl
    from fusionzoo.host import Host as Host
    from fusionzoo.host import HostOutput as HostOutput
    from fusionzoo.objective import Objective as Objective
    from fusionzoo.patching import InputSite as InputSite
    from fusionzoo.patching import Patch as Patch
    from fusionzoo.patching import Site as Site
    from fusionzoo.patching import find_sites as find_sites
    from fusionzoo.patching import load_patch as load_patch
    from fusionzoo.patching import modernise as modernise
    from fusionzoo.patching import patch as patch
    from fusionzoo.runs.recipes import Recipe
    from fusionzoo.specs import Card as Card
    from fusionzoo.specs import Spec as Spec

# Public name -> module that defines it (PEP 562: resolved at first use).
_LAZY = {
    "Batch": "fusionzoo.batch",
    "Card": "fusionzoo.specs",
    "Corpus": "fusionzoo.data.corpus",
    "Fused": "fusionzoo.fusion",
    "Fusion": "fusionzoo.fusion",
    "Host": "fusionzoo.host",
    "HostOutput": "fusionzoo.host",
    "InputSite": "fusionzoo.patching",
    "Objective": "fusionzoo.objective",
    "Patch": "fusionzoo.patching",
    "Site": "fusionzoo.patching",
    "Spec": "fusionzoo.specs",
    "bench": "fusionzoo.experiments.cost",
    "compare": "fusionzoo.experiments.grid",
    "cross_validate": "fusionzoo.experiments.cross_validation",
    "evaluate": "fusionzoo.experiments.saved_runs",
    "diagnose": "fusionzoo.experiments.diagnosis",
    "extract": "fusionzoo.extraction.run",
    "find_sites": "fusionzoo.patching",
    "hookimpl": "fusionzoo.hookspecs",
    "load_patch": "fusionzoo.patching",
    "modernise": "fusionzoo.patching",
    "patch": "fusionzoo.patching",
    "predict": "fusionzoo.experiments.saved_runs",
    "predict_dialogue": "fusionzoo.experiments.dialogue",
    "reproduce": "fusionzoo.experiments.reproduction",
    "train": "fusionzoo.experiments.single_run",
}
_MODULES = {
    "data",
    "doctor",
    "encoders",
    "errors",
    "experiments",
    "extraction",
    "fusion",
    "host",
    "layers",
    "numerics",
    "objective",
    "patching",
    "reference",
    "reporting",
    "runs",
    "scoring",
    "specs",
    "testing",
    "training",
    "wild",
}

__all__ = [
    "AmbiguousNameError",
    "Batch",
    "Card",
    "CheckpointError",
    "ConfigError",
    "Corpus",
    "DataError",
    "DataWarning",
    "Fused",
    "Fusion",
    "FusionZooError",
    "FusionZooWarning",
    "Host",
    "HostChangedError",
    "HostOutput",
    "InputSite",
    "LayoutError",
    "LeakError",
    "MaskWarning",
    "MediaError",
    "MissingDependency",
    "ModalityError",
    "ModelError",
    "MovedWarning",
    "NoSiteError",
    "Objective",
    "OptionError",
    "OutputError",
    "Patch",
    "PatchError",
    "PatchOptionError",
    "PluginDisabledError",
    "PluginError",
    "PluginLoadError",
    "ReferenceWeightsError",
    "ShapeError",
    "Site",
    "SiteNotReachedError",
    "Spec",
    "TrainingError",
    "UnknownNameError",
    "UnsafePickleError",
    "bench",
    "card",
    "compare",
    "cross_validate",
    "diagnose",
    "evaluate",
    "extract",
    "find_sites",
    "get",
    "hookimpl",
    "load_patch",
    "modernise",
    "names",
    "patch",
    "plugin",
    "predict",
    "register",
    "reproduce",
    "train",
]

from fusionzoo import _moved  # noqa: E402
from fusionzoo.errors import (  # noqa: E402
    AmbiguousNameError,
    CheckpointError,
    ConfigError,
    DataError,
    DataWarning,
    FusionZooError,
    FusionZooWarning,
    HostChangedError,
    LayoutError,
    LeakError,
    MaskWarning,
    MediaError,
    MissingDependency,
    ModalityError,
    ModelError,
    MovedWarning,
    NoSiteError,
    OptionError,
    OutputError,
    PatchError,
    PatchOptionError,
    PluginDisabledError,
    PluginError,
    PluginLoadError,
    ReferenceWeightsError,
    ShapeError,
    SiteNotReachedError,
    TrainingError,
    UnknownNameError,
    UnsafePickleError,
)

# At once, because a later `import fusionzoo.plugin` would put the module in the function's place: a module is bound to its
# package when it is first imported, and never again.
from fusionzoo.plugin import plugin  # noqa: E402

_moved.install()


def __getattr__(name: str) -> object:
    if name in _LAZY or name in _MODULES:
        from fusionzoo._registry import registry

        registry.index()  # before torch is imported, which a distribution with broken metadata would prevent
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES or f"fusionzoo.{name}" in _moved.MOVED:
        return importlib.import_module(f"fusionzoo.{name}")
    raise AttributeError(f"module 'fusionzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


@overload
def get(name: str, kind: Literal["fusion"] = "fusion") -> type[Fusion]: ...
@overload
def get(name: str, kind: Literal["host"]) -> type[Host]: ...
@overload
def get(name: str, kind: Literal["objective"]) -> type[Objective]: ...
@overload
def get(name: str, kind: Literal["dataset"]) -> Callable[..., Corpus]: ...
@overload
def get(name: str, kind: Literal["adapter"]) -> type[Adapter]: ...
@overload
def get(name: str, kind: Literal["recipe"]) -> Recipe | Options | str: ...
@overload
def get(name: str, kind: Literal["reader"]) -> type[Reader]: ...
@overload
def get(name: str, kind: Literal["encoder"]) -> type[nn.Module]: ...
@overload
def get(name: str, kind: str) -> Plugin: ...
def get(name: str, kind: str = "fusion") -> Plugin:
    """The class registered under a name; loads its plugin on first use.

    Parameters
    ----------
    name : kebab-case, case ignored, `_` taken for `-`; `"distribution:name"` says which of several providers.
    kind : "fusion", "objective", "host", "dataset", "adapter", "recipe", "reader" or "encoder".

    Raises
    ------
    UnknownNameError : with the closest matches and the list of what is installed.
    PluginLoadError, MissingDependency, PluginDisabledError, AmbiguousNameError : as their names say.

    >>> fusionzoo.get("concat")({"text": 8, "audio": 4}).out_dim
    8
    """
    from fusionzoo._registry import registry

    return registry.get(name, kind)


def names(kind: str = "fusion", pattern: str | None = None) -> list[str]:
    """Sorted names of what is installed, optionally those that match a wildcard (`"*attention*"`); imports no plugin."""
    from fusionzoo._registry import registry

    return registry.names(kind, pattern)


def card(name: str, kind: str = "fusion") -> Card:
    """What a plugin is, what it takes and where it comes from; `print` it, or `.to_dict()`."""
    from fusionzoo._registry import registry

    return registry.card(name, kind)


def register(plugin: object) -> list[str]:
    """Register a module or object with a `fusionzoo_register` hook that is not installed (a notebook, a work in progress).

    Returns the names that it registered.
    """
    from fusionzoo._registry import registry

    return registry.register(plugin)
