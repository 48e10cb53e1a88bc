"""MESM's late-fusion LSTM baseline: frames of all clips in one list, cut by lengths; logits stacked and weighed."""

from typing import Any

import numpy as np
import torch

from fusionzoo.patching import Call

REPOSITORY = "wenliangdai/Multimodal-End2end-Sparse"
COMMIT = "a1bb2e818d"
SAMPLES = 3
STREAMS = {4: 0}  # frames of all clips lie one after another in the others


def build(root: Any) -> Any:
    """As `main.py` does, with its hand-crafted features; widths as Python's whole numbers, which torch asks for now."""
    from src.models.baselines.lf_rnn import LF_RNN

    args = {
        "hfc_sizes": np.array([300, 144, 35], dtype=object),
        "num_emotions": 6,
        "modalities": "tav",
        "trans_nlayers": 2,
    }
    frames, sounds = [8, 6, 3], [5, 7, 4]
    model = LF_RNN(args)
    return model, Call(torch.randn(17, 35), frames, torch.randn(16, 144), sounds, torch.randn(3, 9, 300)), {}
