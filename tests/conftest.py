"""What every test run needs: no plugins of the developer's own, one thread per worker, the same device everywhere.

What tests of core and plugins share lies in `support`, importable by name.
"""

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "support"))

# They must not change what our tests see: built-ins only, unless a test says otherwise.
os.environ["FUSIONZOO_LOAD_PLUGINS"] = ""

# The numbers are a CPU's, and are compared with one another, however many GPUs there are. Tests that need a GPU:
# CUDA_VISIBLE_DEVICES=0 pytest -k gpu
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# Workers that each start a thread a core wait for one another: a step of a millisecond can take seconds then.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_itemcollected(item: pytest.Item) -> None:
    """`-k mm-dfn` also finds the tests in `test_mm_dfn.py`."""
    item.extra_keyword_matches.add(item.path.stem.removeprefix("test_").replace("_", "-"))
