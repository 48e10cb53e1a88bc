"""Training on Accelerate: configuration, loop, checkpoints.

Light to import; torch and accelerate come in with the first use of `train`, `load_model` and the checkpoint functions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionzoo.training.config import RunConfig
    from fusionzoo.training.models import load_model
    from fusionzoo.training.trainer import RunResult, train

_HOMES = {"RunConfig": "config", "load_model": "models", "RunResult": "trainer", "train": "trainer"}

__all__ = ["RunConfig", "RunResult", "load_model", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
