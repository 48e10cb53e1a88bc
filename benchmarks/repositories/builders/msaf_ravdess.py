"""MSAF for RAVDESS: channel gates between a 3D network and one over MFCCs; smaller frames and fewer than in the paper."""

import sys
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "anita-hu/MSAF"
COMMIT = "125e0f1eef"
SAMPLES = 3
STREAMS = {(0, 0): 0, (0, 1): 0}


def build(root: Any) -> Any:
    """The network of `ravdess/main_msaf.py`."""
    sys.path.insert(0, str(root / "ravdess"))
    from networks.mfcc_cnn import MFCCNet
    from networks.msaf_ravdess import MSAFNet
    from networks.resnext import resnet50

    video = resnet50(num_classes=8, shortcut_type="B", cardinality=32, sample_size=64, sample_duration=16)
    model = MSAFNet({"video": {"model": video, "id": 0}, "audio": {"model": MFCCNet(), "id": 1}})
    call = Call([torch.randn(SAMPLES, 3, 16, 64, 64), torch.randn(SAMPLES, 13, 216)])
    return model, call, {"modalities": {"x[0]": "visual", "x[1]": "audio"}}
