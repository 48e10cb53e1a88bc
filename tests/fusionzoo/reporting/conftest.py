"""Comparisons whose numbers are drawn, not trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from made_comparison import made_groups

from fusionzoo.reporting.comparison import Contestant, Row, configuration, summarise, write_summary


@pytest.fixture
def compared(tmp_path) -> Callable[..., list[Row]]:
    """Rows of a comparison: contestant, or fusion of `dialogue-gcn`, -> how often it is right."""

    def compare(
        right: Mapping[Any, float], seeds: int = 5, dialogues: int = 20, baseline: str | None = None
    ) -> list[Row]:
        whole = {w if isinstance(w, Contestant) else Contestant("dialogue-gcn", w): share for w, share in right.items()}
        return summarise(made_groups(tmp_path, whole, seeds, dialogues), baseline)

    return compare


@pytest.fixture
def written(tmp_path, corpus, make_config) -> Callable[..., Path]:
    """The folder of a comparison of these rows, with all its files."""

    def write(rows: list[Row], failed: Mapping[str, str] | None = None) -> Path:
        config = make_config(epochs=1)
        shown = configuration([(row.contestant, config) for row in rows])
        write_summary(tmp_path, rows, failed or {}, config, {corpus.name: corpus}, shown)
        return tmp_path

    return write
