"""Emotion embeddings attended by three recurrent encoders; scores of three modalities joined as rows, weighted."""

import sys
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "wenliangdai/Modality-Transferable-MER"
COMMIT = "622f46c"
SAMPLES = 4
STREAMS = {0: 0, 1: 0, 2: 0}


def build(root: Any) -> Any:
    """As `main.py` does, narrower."""
    sys.path.insert(0, str(root / "src"))
    from models.eea import EmotionEmbAttnModel

    model = EmotionEmbAttnModel(
        6, [20, 14, 10], 16, [12, 12, 12], 2, 0.1, torch.randn(6, 12), "cpu", bidirectional=True
    )
    return model, Call(*(torch.randn(SAMPLES, 9, d) for d in (20, 14, 10))), {}
