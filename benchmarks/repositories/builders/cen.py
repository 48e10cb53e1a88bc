"""CEN (segmentation of RGB and depth): channels of two networks exchanged by their batch norms, outputs weighed."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "yikaiw/CEN"
COMMIT = "0088d87ab3"
SAMPLES = 3
STREAMS = {(0, 0): 0, (0, 1): 0}


def build(root: Any) -> Any:
    """As `main.py` does, with one block per stage and small pictures; some batch norms are below the threshold."""
    import sys

    sys.path.insert(0, str(root / "semantic_segmentation"))
    from models.model import BatchNorm2dParallel, Bottleneck, RefineNet

    model = RefineNet(Bottleneck, [1, 1, 1, 1], 2, 5, 2e-2)
    for module in model.modules():
        if isinstance(module, BatchNorm2dParallel):
            for norm in module.children():
                torch.nn.init.zeros_(norm.weight[: len(norm.weight) // 4])
    return model, Call([torch.randn(3, 3, 64, 96), torch.randn(3, 3, 64, 96)]), {}
