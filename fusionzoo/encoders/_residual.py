"""Residual networks of bottlenecks over pictures (two dimensions) or clips (three).

The names in their state dicts are torchvision's and 3D-ResNets-PyTorch's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fusionzoo.reference import copy_reference


def _conv(dims: int, *args: int, **options: int | tuple[int, ...]) -> nn.Module:
    return (nn.Conv2d if dims == 2 else nn.Conv3d)(*args, bias=False, **options)  # type: ignore[arg-type]


def _norm(dims: int, width: int) -> nn.Module:
    return (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(width)


class Bottleneck(nn.Module):
    """1, 3, 1 convolutions around a residual; `groups` is ResNeXt's cardinality."""

    def __init__(self, dims: int, inside: int, middle: int, outside: int, stride: int, groups: int):
        super().__init__()
        self.conv1, self.bn1 = _conv(dims, inside, middle, 1), _norm(dims, middle)
        self.conv2 = _conv(dims, middle, middle, 3, stride=stride, padding=1, groups=groups)
        self.bn2 = _norm(dims, middle)
        self.conv3, self.bn3 = _conv(dims, middle, outside, 1), _norm(dims, outside)
        self.downsample = None
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(_conv(dims, inside, outside, 1, stride=stride), _norm(dims, outside))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResidualNetwork(nn.Module):
    """The trunk (`maps`) and a linear head.

    dims : 2 or 3.
    layers : blocks of each of four stages.
    widths : middle and outer width of the first stage; they double.
    """

    def __init__(
        self,
        dims: int,
        layers: Sequence[int],
        widths: tuple[int, int],
        groups: int,
        classes: int,
        first: tuple[int, ...],
        rectified_stem: bool = True,
    ):
        super().__init__()
        self.rectified_stem = rectified_stem
        self.conv1 = _conv(dims, 3, 64, 7, stride=first, padding=3)
        self.bn1 = _norm(dims, 64)
        self.maxpool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(3, stride=2, padding=1)
        inside, (middle, outside) = 64, widths
        for stage, blocks in enumerate(layers):
            parts = []
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                parts.append(Bottleneck(dims, inside, middle << stage, outside << stage, stride, groups))
                inside = outside << stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*parts))
        self.width, self.early_width = inside, inside // 2
        self.fc = nn.Linear(inside, classes) if classes else None
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def early(self, x: Tensor) -> Tensor:
        """The maps of the last stage but one."""
        x = self.bn1(self.conv1(x))
        x = self.maxpool(x.relu() if self.rectified_stem else x)
        for stage in (1, 2, 3):
            x = getattr(self, f"layer{stage}")(x)
        return x

    def late(self, x: Tensor) -> Tensor:
        """The last stage's maps, from `early`'s."""
        return self.layer4(x)  # type: ignore[operator]

    def maps(self, x: Tensor) -> Tensor:
        """The last stage's feature maps."""
        return self.late(self.early(x))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.maps(x).flatten(2).mean(-1)
        return pooled if self.fc is None else self.fc(pooled)

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load official weights; a head that this network does not have is left out, a `module.` in front is taken off."""
        plain = {k.removeprefix("module."): v for k, v in state.items()}
        own = self.state_dict()
        # Counters of batches take no part in the result and older checkpoints lack them.
        plain = {k: v for k, v in plain.items() if not k.endswith("num_batches_tracked")}
        plain |= {k: torch.zeros_like(v) for k, v in own.items() if k.endswith("num_batches_tracked")}
        if self.fc is None:
            plain = {k: v for k, v in plain.items() if not k.startswith("fc.")}
        copy_reference(self, plain)
