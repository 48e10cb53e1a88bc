"""DMRN (audio-visual events): a residual fusion of two BiLSTMs, in blocks."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "YapengTian/AVE-ECCV18"
COMMIT = "93f843fed7"
SAMPLES = 3
STREAMS = {0: 0, 1: 0}
OLD = True  # asks for CUDA


def build(root: Any) -> Any:
    """As `supervised_main.py` does."""
    from models_fusion import TBMRF_Net

    return TBMRF_Net(128, 128, 512, 29, 1), Call(torch.randn(3, 10, 128), torch.randn(3, 10, 7, 7, 512)), {}
