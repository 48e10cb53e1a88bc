"""Conversations in, batches out: readers, the columnar corpus, splits and device-resident batches.

`from fusionzoo.data import load, Corpus` imports no torch; `Batch`, `ResidentSplit` and `feature_statistics` do, at
first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionzoo.data.batch import Batch as Batch
    from fusionzoo.data.corpus import UNLABELLED as UNLABELLED
    from fusionzoo.data.corpus import Corpus as Corpus
    from fusionzoo.data.corpus import Dialogue as Dialogue
    from fusionzoo.data.inspection import Inspection as Inspection
    from fusionzoo.data.inspection import inspect as inspect
    from fusionzoo.data.loading import ResidentSplit as ResidentSplit
    from fusionzoo.data.loading import feature_statistics as feature_statistics
    from fusionzoo.data.npz import save_npz as save_npz
    from fusionzoo.data.sources import load as load

# Public name -> module that defines it (PEP 562). The function `convert` is not here on purpose: it has its module's
# name, and a package attribute cannot be both; write `from fusionzoo.data.convert import convert`.
_LAZY = {
    "Batch": "fusionzoo.data.batch",
    "Corpus": "fusionzoo.data.corpus",
    "Dialogue": "fusionzoo.data.corpus",
    "Inspection": "fusionzoo.data.inspection",
    "ResidentSplit": "fusionzoo.data.loading",
    "UNLABELLED": "fusionzoo.data.corpus",
    "feature_statistics": "fusionzoo.data.loading",
    "inspect": "fusionzoo.data.inspection",
    "load": "fusionzoo.data.sources",
    "save_npz": "fusionzoo.data.npz",
}

__all__ = [
    "UNLABELLED",
    "Batch",
    "Corpus",
    "Dialogue",
    "Inspection",
    "ResidentSplit",
    "feature_statistics",
    "inspect",
    "load",
    "save_npz",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
