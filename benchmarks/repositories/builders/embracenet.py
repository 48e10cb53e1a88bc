"""EmbraceNet's bimodal example: two halves of an image in one argument, whose features are picked at random."""

import sys
from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "idearibosome/embracenet"
COMMIT = "d4393b2218"
SAMPLES = 3
STREAMS = {0: 0}


def build(root: Any) -> Any:
    """As the example for Fashion MNIST does, in evaluation."""
    sys.path.insert(0, str(root / "examples" / "fashion_mnist_pytorch"))
    from model import EmbraceNetBimodalModule

    args = SimpleNamespace(model_drop_left=False, model_drop_right=False, model_dropout=False)
    model = EmbraceNetBimodalModule(device=torch.device("cpu"), is_training=False, args=args)
    return model, Call(torch.randn(3, 2, 1, 28, 14)), {"modalities": {"x": ["left", "right"]}}
