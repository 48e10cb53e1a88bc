"""CoCa (images and their captions): words attend to queries of the image; the image encoder is one convolution."""

from typing import Any

import torch
from torch import nn

from fusionzoo.patching import Call

REPOSITORY = "lucidrains/CoCa-pytorch"
COMMIT = "edee92c74e"
LENGTHS = [9, 7, 4]
STREAMS = {"text": 0, "images": 0}


class Patches(nn.Sequential):
    """An image as tokens."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 16, 8, 8), nn.Flatten(2))

    def forward(self, x: Any) -> Any:
        """(B, places, 16)."""
        return super().forward(x).transpose(1, 2)


def build(root: Any) -> Any:
    """As its README does, with small widths; 0 is padding."""
    from coca_pytorch.coca_pytorch import CoCa

    model = CoCa(
        dim=16, img_encoder=Patches(), image_dim=16, num_tokens=50, unimodal_depth=2, multimodal_depth=2, num_img_queries=5,
        dim_head=8, heads=2,
    )  # fmt: skip
    words = torch.randint(1, 50, (3, 9)) * (torch.arange(9) < torch.tensor(LENGTHS)[:, None])
    return model, Call(text=words, images=torch.randn(3, 3, 32, 32)), {}
