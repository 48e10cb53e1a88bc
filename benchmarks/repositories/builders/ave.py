"""AVE (audio-visual events): audio-guided attention over the image, two BiLSTMs, concatenated."""

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
    from models import att_Net

    return att_Net(128, 128, 512, 29), Call(torch.randn(3, 10, 128), torch.randn(3, 10, 7, 7, 512)), {}
