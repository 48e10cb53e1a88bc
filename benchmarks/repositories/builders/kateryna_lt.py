"""Audio and video of RAVDESS, fused by a late transformer; features stand before time."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "katerynaCh/multimodal-emotion-recognition"
COMMIT = "65232ce53c"
SAMPLES = 3
STREAMS = {0: 0}  # the frames of all samples are one axis of the second argument


def build(root: Any) -> Any:
    """As `main.py` does, with two frames."""
    from models.multimodalcnn import MultiModalCNN

    model = MultiModalCNN(8, fusion="lt", seq_length=2)
    return model, Call(torch.randn(3, 10, 40), torch.randn(6, 3, 224, 224)), {}
