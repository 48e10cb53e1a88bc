"""Modules of version 0.1 under their old names: imports of them go on working, with a `MovedWarning`.

A finder of last resort, which Python asks only for modules that are not there; no other import meets it.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from fusionzoo.errors import MovedWarning

#: Old name -> where its content is now.
MOVED = {
    "fusionzoo.data.batch": "fusionzoo.batch",
    "fusionzoo.data.convert": "fusionzoo.data.conversion",
    "fusionzoo.evaluation": "fusionzoo.experiments",
    "fusionzoo.evaluation.bench": "fusionzoo.experiments.cost",
    "fusionzoo.evaluation.compare": "fusionzoo.experiments.grid",
    "fusionzoo.evaluation.evaluate": "fusionzoo.experiments.saved_runs",
    "fusionzoo.evaluation.folds": "fusionzoo.experiments.cross_validation",
    "fusionzoo.evaluation.inference": "fusionzoo.scoring.inference",
    "fusionzoo.evaluation.metrics": "fusionzoo.scoring.metrics",
    "fusionzoo.evaluation.published": "fusionzoo.scoring.published",
    "fusionzoo.evaluation.report": "fusionzoo.reporting.run",
    "fusionzoo.evaluation.reproduce": "fusionzoo.experiments.reproduction",
    "fusionzoo.evaluation.statistics": "fusionzoo.scoring.statistics",
    "fusionzoo.evaluation.summary": "fusionzoo.reporting.comparison",
    "fusionzoo.extraction.media": "fusionzoo.media",
    "fusionzoo.extraction.progress": "fusionzoo._progress",
    "fusionzoo.patching.adapters": "fusionzoo.patching.repositories",
    "fusionzoo.patching.modernising": "fusionzoo.patching.repairs",
    "fusionzoo.recipes": "fusionzoo.runs.recipes",
    "fusionzoo.recurrence": "fusionzoo.kernels.recurrence",
    "fusionzoo.training.checkpoint": "fusionzoo.runs.checkpoint",
    "fusionzoo.training.config": "fusionzoo.runs.config",
    "fusionzoo.training.files": "fusionzoo._files",
    "fusionzoo.training.models": "fusionzoo.runs.models",
    "fusionzoo.training.options": "fusionzoo.runs.options",
    "fusionzoo.training.processes": "fusionzoo._processes",
    "fusionzoo.training.runfolder": "fusionzoo.runs.folder",
}

#: Of those that were parted: where the names are that their home does not have.
PARTED = {
    "fusionzoo.evaluation.folds": ("fusionzoo.data.folds", "fusionzoo.reporting.folds"),
    "fusionzoo.evaluation.report": (
        "fusionzoo.reporting.pages",
        "fusionzoo.reporting.plots",
        "fusionzoo.scoring.ceiling",
    ),
    "fusionzoo.evaluation.reproduce": ("fusionzoo.runs.card", "fusionzoo.reporting.reproduction"),
    "fusionzoo.training.models": ("fusionzoo.runs.data_section",),
    "fusionzoo.training.runfolder": (
        "fusionzoo.runs.data_section",
        "fusionzoo.runs.environment",
        "fusionzoo.runs.flops",
    ),
}


class _Forwarding(importlib.abc.Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        home = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is {home} now", MovedWarning, stacklevel=2)
        there = importlib.import_module(home)
        module.__doc__ = there.__doc__
        vars(module)["__getattr__"] = lambda name: _found(there, PARTED.get(module.__name__, ()), name)
        vars(module)["__dir__"] = lambda: dir(there)


def _found(home: ModuleType, others: Sequence[str], name: str) -> object:
    """What an old module's name stands for now."""
    for other in () if hasattr(home, name) or name.startswith("__") else others:
        there = importlib.import_module(other)
        if hasattr(there, name):
            return getattr(there, name)
    return getattr(home, name)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MOVED:
            return None
        package = any(name.startswith(f"{fullname}.") for name in MOVED)
        return importlib.util.spec_from_loader(fullname, _Forwarding(), is_package=package)


def install() -> None:
    """Have Python ask for modules that it does not find."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
