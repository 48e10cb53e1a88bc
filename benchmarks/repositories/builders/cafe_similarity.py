"""CAFE's similarity module: text and image aligned, then concatenated; the two aligned vectors are its first outputs."""

import random
from typing import Any
from unittest import mock

import torch

from fusionzoo.patching import Call

REPOSITORY = "cyxanna/CAFE"
COMMIT = "75610c7469"
SAMPLES = 4
STREAMS = {0: 0, 1: 0}


def build(root: Any) -> Any:
    """As `train.py` does."""
    with mock.patch.object(random, "random", random):  # which it imports, and asks for a seed
        from model import SimilarityModule

    return SimilarityModule(), Call(torch.randn(4, 30, 200), torch.randn(4, 512)), {}
