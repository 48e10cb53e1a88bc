"""Packages that a repository imports, that are not installed, and of which its forward uses no more than a name."""

from __future__ import annotations

import sys
from types import ModuleType


def stand_in(package: str, *names: str) -> None:
    """A package whose names are empty classes, where it is not installed; `stand_in("torch_sparse", "SparseTensor")`."""
    try:
        __import__(package)
    except ImportError:
        made = ModuleType(package)
        for name in names:
            setattr(made, name, type(name, (), {}))
        sys.modules[package] = made
