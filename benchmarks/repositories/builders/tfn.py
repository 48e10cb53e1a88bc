"""TFN: an outer product of three vectors; audio and visual are vectors, text a sequence."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "Justin1904/TensorFusionNetworks"
COMMIT = "ef0e78b558"
SAMPLES = 5
STREAMS = {0: 0, 1: 0, 2: 0}


def build(root: Any) -> Any:
    """The sizes of MOSI."""
    from model import TFN

    model = TFN((74, 47, 300), (4, 16, 128), 64, (0.3, 0.3, 0.3, 0.3), 32)
    return model, Call(torch.randn(SAMPLES, 74), torch.randn(SAMPLES, 47), torch.randn(SAMPLES, 20, 300)), {}
