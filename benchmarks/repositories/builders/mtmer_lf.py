"""Late fusion of three recurrent encoders, the last step of each, and early fusion beside it."""

import sys
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "wenliangdai/Modality-Transferable-MER"
COMMIT = "622f46c"
SAMPLES = 4
STREAMS = {0: 0, 1: 0, 2: 0}


def build(root: Any) -> Any:
    """`EF_LF_RNN` as `main.py` builds it, narrower."""
    sys.path.insert(0, str(root / "src"))
    from models.baselines import EF_LF_RNN

    model = EF_LF_RNN(6, [20, 14, 10], 16, [12, 12, 12], 2, 0.1)
    return model, Call(*(torch.randn(SAMPLES, 9, d) for d in (20, 14, 10))), {}
