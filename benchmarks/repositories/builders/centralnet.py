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
    model = SimpleAV_CentralNet(args, 1, 1)
    for convolution in (model.central_conv1, model.central_conv2, model.central_conv3):
        torch.nn.init.constant_(convolution.weight, 0.3)  # a negative one would let nothing through the ReLU behind it
    return model, Call(torch.randn(3, 1, 112, 112), torch.randn(3, 1, 28, 28)), {}
