"""AuxFormer (audio-visual emotion): cross-attention both ways, last steps concatenated, two auxiliary heads."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "ilucasgoncalves/AuxFormer"
COMMIT = "708ba722e8"
SAMPLES = 3
STREAMS = {0: 0, 1: 0}


def build(root: Any) -> Any:
    """As its wrapper does, with two layers."""
    from net.avmodel_AF import AVmodel

    rates = dict.fromkeys(("attn_dropout", "relu_dropout", "res_dropout", "out_dropout", "embed_dropout"), 0.1)
    model = AVmodel(SimpleNamespace(num_heads=5, layers=2, attn_mask=True, output_dim=6, **rates))
    return model, Call(torch.randn(3, 9, 1024), torch.randn(3, 7, 50)), {}
