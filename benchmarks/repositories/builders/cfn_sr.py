"""CFN-SR (audio-visual emotion): attention weights of the frames, guided by the sound and summed over the batch, then concatenated."""

import sys
from types import ModuleType
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "skeletonNN/CFN-SR"
COMMIT = "2443494729"
SAMPLES = 3
STREAMS = {(0, 0): 0, (0, 1): 0}
OLD = True  # asks for CUDA


def build(root: Any) -> Any:
    """As `main_msaf.py` does, with small and few pictures."""
    sys.modules["MSAF"] = msaf = ModuleType("MSAF")
    msaf.MSAF = None  # type: ignore[attr-defined]  # imported, never called
    from networks import MFCCNet, MSAFNet, resnet50

    video = resnet50(num_classes=8, shortcut_type="B", cardinality=32, sample_size=32, sample_duration=16)
    model = MSAFNet({"video": {"model": video, "id": 0}, "audio": {"model": MFCCNet(), "id": 1}})
    return model, Call([torch.randn(3, 3, 16, 32, 32), torch.randn(3, 13, 216)]), {}
