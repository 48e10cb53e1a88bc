"""LMF: a low-rank product; audio and visual are vectors, text a sequence."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "Justin1904/Low-rank-Multimodal-Fusion"
COMMIT = "ea4755124d"
SAMPLES = 5
STREAMS = {0: 0, 1: 0, 2: 0}


def build(root: Any) -> Any:
    """The sizes of IEMOCAP in `hyperparams.txt`."""
    from model import LMF

    model = LMF((74, 35, 300), (8, 4, 64), 64, (0.3, 0.3, 0.3, 0.3), 8, 4)
    return model, Call(torch.randn(SAMPLES, 74), torch.randn(SAMPLES, 35), torch.randn(SAMPLES, 20, 300)), {}
