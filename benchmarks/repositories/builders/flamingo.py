"""Flamingo (images between words): gated cross-attention to the image that the words follow; the encoder is one convolution.

`einops_exts`' two helpers are replaced.
"""

import sys
from types import ModuleType
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.builders.coca import Patches

REPOSITORY = "lucidrains/flamingo-pytorch"
COMMIT = "10913abbc8"
SAMPLES = 3
STREAMS = {0: 0, "images": 0}


def build(root: Any) -> Any:
    """As its README does, with small widths; 3 stands for an image. Gates, zero at first, are opened as training would."""
    import einops

    sys.modules["einops_exts"] = exts = ModuleType("einops_exts")
    exts.rearrange_many = lambda xs, *a, **k: [einops.rearrange(x, *a, **k) for x in xs]  # type: ignore[attr-defined]
    exts.repeat_many = lambda xs, *a, **k: [einops.repeat(x, *a, **k) for x in xs]  # type: ignore[attr-defined]
    from flamingo_pytorch import FlamingoPaLM

    model = FlamingoPaLM(
        num_tokens=50, dim=16, depth=2, heads=2, dim_head=8, img_encoder=Patches(), media_token_id=3, cross_attn_every=1,
        perceiver_num_latents=4, perceiver_depth=1,
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith("gate"):
            torch.nn.init.constant_(parameter, 0.5)
    words = torch.randint(4, 50, (3, 9))
    words[:, 0] = words[:, 5] = 3
    return model, Call(words, images=torch.randn(3, 2, 3, 32, 32)), {}
