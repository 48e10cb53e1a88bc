"""CAFE (fake news): text and image weighed by their ambiguity, which is drawn at random, then concatenated."""

import random
from typing import Any
from unittest import mock

import torch

from fusionzoo.patching import Call

REPOSITORY = "cyxanna/CAFE"
COMMIT = "75610c7469"
SAMPLES = 4
STREAMS = {0: 0, 1: 0, 2: 0, 3: 0}


def build(root: Any) -> Any:
    """As `train.py` does; the last two arguments are what its similarity module aligned."""
    with mock.patch.object(random, "random", random):  # which it imports, and asks for a seed
        from model import DetectionModule

    return (
        DetectionModule(),
        Call(torch.randn(4, 30, 200), torch.randn(4, 512), torch.randn(4, 64), torch.randn(4, 64)),
        {},
    )
