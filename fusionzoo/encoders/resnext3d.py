"""CFN-SR's encoder of clips: a 3-D ResNeXt-50."""

from __future__ import annotations

from torch import Tensor

from fusionzoo.encoders._residual import ResidualNetwork
from fusionzoo.errors import ShapeError
from fusionzoo.plugin import plugin


class ResNeXt3D(ResidualNetwork):
    """3-D ResNeXt-50 with 32 groups, as CFN-SR and MSAF use it on RAVDESS.

    classes : of the head, 8 there; 0 builds none.
    layers, groups : smaller ones make a smaller network for tests.
    rectified_stem : a ReLU after the first convolution; CFN-SR's and MSAF's joint networks run the same weights without.

    Shapes: clips `(B, 3, F, H, W)` -> logits `(B, classes)`, or `(B, 2048)` without a head; `maps` gives the last stage's
    maps, `(B, 2048, 2, 7, 7)` of 30 frames of 224 x 224.
    Parameters: 25,882,056 with a head of 8 classes, 25,865,664 without.
    Source: Hara et al., "Can spatiotemporal 3D CNNs retrace the history of 2D CNNs and ImageNet?", CVPR 2018; official
    code kenshohara/3D-ResNets-PyTorch `models/resnext.py`, whose names the state dict has.

    >>> ResNeXt3D(8)  # doctest: +ELLIPSIS
    ResNeXt3D(...
    """

    def __init__(
        self,
        classes: int = 0,
        *,
        layers: tuple[int, int, int, int] = (3, 4, 6, 3),
        groups: int = 32,
        rectified_stem: bool = True,
    ):
        super().__init__(3, layers, (4 * groups, 8 * groups), groups, classes, (1, 2, 2), rectified_stem)

    def early(self, x: Tensor) -> Tensor:
        """The maps of the first stages."""
        if x.dim() != 5 or x.shape[1] != 3:
            raise ShapeError(
                f"ResNeXt3D takes clips (B, 3, F, H, W), got {tuple(x.shape)}; frames come after the colours"
            )
        return super().early(x)


fusionzoo_register = plugin(
    ResNeXt3D,
    kind="encoder",
    name="resnext3d",
    summary="3-D ResNeXt-50 over clips, as CFN-SR and MSAF use it on RAVDESS",
    paper="Hara et al., Can spatiotemporal 3D CNNs retrace the history of 2D CNNs and ImageNet?, CVPR 2018",
    code="https://github.com/kenshohara/3D-ResNets-PyTorch",
)
