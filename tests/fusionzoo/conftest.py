from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fusionzoo
from fusionzoo.data import Corpus
from fusionzoo.runs.config import RunConfig

sys.path.insert(0, str(Path(__file__).parent / "support"))

BASE: dict[str, dict[str, Any]] = {
    "training": {"epochs": 4, "batch_size": 4, "keep": 10, "device": "cpu"},
    "host": {"name": "bc-lstm", "hidden": 8, "layers": 1, "head_width": 8},
    "data": {"source": "demo", "dialogues": [14, 4, 6], "length": [3, 8]},
}


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """A corpus small enough to train on in a second."""
    return fusionzoo.get("demo", kind="dataset")(dialogues=[14, 4, 6], length=[3, 8])


@pytest.fixture(scope="session")
def make_config() -> Callable[..., RunConfig]:
    """A quick configuration of real parts; named arguments and `--set` strings on top."""

    def make(*sets: str, **arguments: Any) -> RunConfig:
        return RunConfig.from_sources(sets=sets, recipe=BASE, **arguments)

    return make


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
