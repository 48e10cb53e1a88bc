"""EANN (fake news): a convolution over words and VGG's features, concatenated, before a class head and an event head.

VGG is two layers with random weights, and the gradient reversal, written for a torch that is gone, the identity.
"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from fusionzoo.patching import Call

REPOSITORY = "yaqingwang/EANN-KDD18"
COMMIT = "dc1faf3036"
LENGTHS = [9, 7, 4]
STREAMS = {0: 0, 1: 0}


class Vgg(nn.Module):
    """Features of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, 2)
        self.classifier = nn.Sequential(*[nn.Identity() for _ in range(6)], nn.Linear(8, 20))

    def forward(self, x: Any) -> Any:
        """(B, 20)."""
        return self.classifier(self.features(x).mean((2, 3)))


def build(root: Any) -> Any:
    """As `EANN.py` does."""
    sys.path.insert(0, str(root / "src"))
    sys.modules["torchvision"] = torchvision = ModuleType("torchvision")
    for name in ("datasets", "transforms", "models"):
        sys.modules[f"torchvision.{name}"] = part = ModuleType(name)
        setattr(torchvision, name, part)
    torchvision.models.vgg19 = lambda pretrained: Vgg()
    sys.modules["process_data_weibo"] = ModuleType("process_data_weibo")
    import EANN

    EANN.grad_reverse = lambda x: x.view_as(x)
    args = SimpleNamespace(event_num=4, vocab_size=50, embed_dim=12, class_num=2, hidden_dim=16, dropout=0.1)
    words, mask = torch.randint(1, 50, (3, 9)), (torch.arange(9) < torch.tensor(LENGTHS)[:, None]).float()
    model = EANN.CNN_Fusion(args, torch.randn(50, 12).numpy())
    return model, Call(words * mask.long(), torch.randn(3, 3, 32, 32), mask), {}
