"""MESM's late-fusion transformer baseline: frames of all clips in one list, cut by lengths; logits stacked and weighed."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "wenliangdai/Multimodal-End2end-Sparse"
COMMIT = "a1bb2e818d"
SAMPLES = 3
STREAMS = {4: 0}  # frames of all clips lie one after another in the others


def build(root: Any) -> Any:
    """As `main.py` does, with its hand-crafted features."""
    from src.models.baselines.lf_transformer import LF_Transformer

    args = {"hfc_sizes": [300, 144, 35], "num_emotions": 6, "modalities": "tav", "trans_nlayers": 2}
    frames, sounds = [8, 6, 3], [5, 7, 4]
    model = LF_Transformer(args)
    return model, Call(torch.randn(17, 35), frames, torch.randn(16, 144), sounds, torch.randn(3, 9, 300)), {}
