"""CMX (segmentation of RGB and depth): streams rectified by each other, exchanged and merged, at four scales.

`timm`'s three helpers are replaced; stochastic depth is left out.
"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from fusionzoo.patching import Call

REPOSITORY = "huaaaliu/RGBX_Semantic_Segmentation"
COMMIT = "e251d860ae"
SAMPLES = 3
STREAMS = {0: 0, 1: 0}


def build(root: Any) -> Any:
    """With its smallest backbone, as `train.py` does without a pretrained file."""
    for name in ("timm", "timm.models", "timm.models.layers"):
        sys.modules[name] = ModuleType(name)
    layers: Any = sys.modules["timm.models.layers"]
    layers.DropPath = lambda rate: nn.Identity()
    layers.to_2tuple, layers.trunc_normal_ = lambda x: x if isinstance(x, tuple) else (x, x), nn.init.trunc_normal_
    from models.builder import EncoderDecoder

    options = SimpleNamespace(
        backbone="mit_b0", decoder="MLPDecoder", num_classes=5, decoder_embed_dim=32, pretrained_model=None, bn_eps=1e-3,
        bn_momentum=0.1,
    )  # fmt: skip
    model = EncoderDecoder(options)
    return model, Call(torch.randn(3, 3, 64, 96), torch.randn(3, 3, 64, 96)), {}
