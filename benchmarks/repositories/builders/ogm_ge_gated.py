"""OGM-GE (audio-visual classification), its `gated` fusion of two ResNets; the streams themselves are its first outputs."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "GeWu-Lab/OGM-GE_CVPR2022"
COMMIT = "343dc1d95c"
SAMPLES = 3
STREAMS = {0: 0, 1: 0}


def build(root: Any) -> Any:
    """As `main.py` does for CREMA-D, with small pictures."""
    from models.basic_model import AVClassifier

    model = AVClassifier(SimpleNamespace(fusion_method="gated", dataset="CREMAD"))
    return model, Call(torch.randn(3, 1, 65, 47), torch.randn(3, 3, 2, 48, 48)), {}
