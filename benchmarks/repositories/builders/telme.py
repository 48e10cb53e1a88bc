"""TelME's fusion stage: vectors of utterances; its attention takes them without an axis of samples, and mixes them."""

import sys
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "yuntaeyang/TelME"
COMMIT = "f22fc9fed2"
SAMPLES = 8
STREAMS = {0: 0, 1: 0, 2: 0}


def build(root: Any) -> Any:
    """The stage for MELD."""
    sys.path.insert(0, str(root / "MELD"))
    from model import ASF

    return ASF(7, 768, 1e-1, 0.2, 3), Call(*(torch.randn(SAMPLES, 768) for _ in range(3))), {}
