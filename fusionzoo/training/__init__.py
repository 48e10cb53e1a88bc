"""Training on Accelerate: configuration, loop, checkpoints.

Light to import; torch and accelerate come in with the first use of `train`, `load_model` and the checkpoint functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusionzoo._lazy import attach

if TYPE_CHECKING:
    from fusionzoo.experiments.single_run import RunResult as RunResult
    from fusionzoo.experiments.single_run import train as train
    from fusionzoo.runs.config import RunConfig as RunConfig
    from fusionzoo.runs.models import load_model as load_model

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "RunConfig": "fusionzoo.runs.config",
        "RunResult": "fusionzoo.experiments.single_run",
        "load_model": "fusionzoo.runs.models",
        "train": "fusionzoo.experiments.single_run",
    },
)
