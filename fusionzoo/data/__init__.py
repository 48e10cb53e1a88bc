"""Conversations in, batches out: readers, the columnar corpus, splits and device-resident batches.

`from fusionzoo.data import load, Corpus` imports no torch; `Batch`, `ResidentSplit` and `feature_statistics` do, at
first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusionzoo._lazy import attach

if TYPE_CHECKING:
    from fusionzoo.batch import Batch as Batch
    from fusionzoo.data.corpus import UNLABELLED as UNLABELLED
    from fusionzoo.data.corpus import Corpus as Corpus
    from fusionzoo.data.corpus import Dialogue as Dialogue
    from fusionzoo.data.inspection import Inspection as Inspection
    from fusionzoo.data.inspection import inspect as inspect
    from fusionzoo.data.loading import ResidentSplit as ResidentSplit
    from fusionzoo.data.loading import feature_statistics as feature_statistics
    from fusionzoo.data.npz import save_npz as save_npz
    from fusionzoo.data.readers import FeatureReader as FeatureReader
    from fusionzoo.data.readers import PickleReader as PickleReader
    from fusionzoo.data.readers import ReleaseReader as ReleaseReader
    from fusionzoo.data.sources import load as load
    from fusionzoo.data.tables.table import Table as Table
    from fusionzoo.data.tables.table import from_table as from_table
    from fusionzoo.data.tables.table import read_table as read_table

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Batch": "fusionzoo.batch",
        "Corpus": "fusionzoo.data.corpus",
        "Dialogue": "fusionzoo.data.corpus",
        "FeatureReader": "fusionzoo.data.readers",
        "Inspection": "fusionzoo.data.inspection",
        "PickleReader": "fusionzoo.data.readers",
        "ReleaseReader": "fusionzoo.data.readers",
        "ResidentSplit": "fusionzoo.data.loading",
        "Table": "fusionzoo.data.tables.table",
        "UNLABELLED": "fusionzoo.data.corpus",
        "feature_statistics": "fusionzoo.data.loading",
        "from_table": "fusionzoo.data.tables.table",
        "inspect": "fusionzoo.data.inspection",
        "load": "fusionzoo.data.sources",
        "read_table": "fusionzoo.data.tables.table",
        "save_npz": "fusionzoo.data.npz",
    },
)
