"""CentralNet (of MFAS's repository): features of three depths summed with weights, along a third network; its logits come last."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "jperezrua/mfas"
COMMIT = "1e9a715700"
SAMPLES = 3
STREAMS = {0: 0, 1: 0}


def build(root: Any) -> Any:
    """With the widths that its code knows."""
    from models.central.avmnist import SimpleAV_CentralNet

    args = SimpleNamespace(channels=24, num_outputs=10, fusingmix="11,22,33", fusetype="wsum")
    return SimpleAV_CentralNet(args, 1, 1), Call(torch.randn(3, 1, 112, 112), torch.randn(3, 1, 28, 28)), {}
