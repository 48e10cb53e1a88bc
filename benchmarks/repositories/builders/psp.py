"""PSP (audio-visual events): each stream attends to the other's positive samples, then their mean."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "jasongief/PSP_CVPR_2021"
COMMIT = "ddd20f3b0a"
SAMPLES = 3
STREAMS = {0: 0, 1: 0}
OLD = True  # asks for CUDA


def build(root: Any) -> Any:
    """As `fully_supervised_main.py` does."""
    from fully_model import psp_net

    return psp_net(128, 512, 128, 29), Call(torch.randn(3, 10, 128), torch.randn(3, 10, 7, 7, 512), 0.095), {}
