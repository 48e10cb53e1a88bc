"""MFAS's audio-visual MNIST: two LeNets, pooled and concatenated."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "jperezrua/mfas"
COMMIT = "1e9a715700"
SAMPLES = 3
STREAMS = {0: 0, 1: 0}


def build(root: Any) -> Any:
    """Its baseline, with few channels."""
    from models.central.avmnist import SimpleAVNet

    model = SimpleAVNet(SimpleNamespace(channels=3, num_outputs=10), 1, 1)
    return model, Call(torch.randn(3, 1, 112, 56), torch.randn(3, 1, 28, 28)), {}
