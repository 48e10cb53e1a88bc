"""MulT: cross-modal transformers, last states joined."""

import sys
from argparse import Namespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "yaohungt/Multimodal-Transformer"
COMMIT = "a670936824"
SAMPLES = 4
STREAMS = {0: 0, 1: 0, 2: 0}


def build(root: Any) -> Any:
    """The model with its defaults, for MOSEI's widths."""
    sys.path.insert(0, str(root / "src"))
    sys.path.insert(0, str(root))
    from src.models import MULTModel

    args = Namespace(
        orig_d_l=300, orig_d_a=74, orig_d_v=35, vonly=True, aonly=True, lonly=True, num_heads=5, layers=5,
        attn_dropout=0.1, attn_dropout_a=0.0, attn_dropout_v=0.0, relu_dropout=0.1, res_dropout=0.1, out_dropout=0.0,
        embed_dropout=0.25, attn_mask=True, output_dim=1,
    )  # fmt: skip
    return MULTModel(args), Call(*(torch.randn(SAMPLES, t, d) for t, d in ((20, 300), (28, 74), (25, 35)))), {}
