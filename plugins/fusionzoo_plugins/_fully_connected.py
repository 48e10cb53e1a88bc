"""Linear maps with ReLU between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError


class FullyConnected(nn.Module):
    """Linear maps through `widths`, ReLU after all but the last."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """`(..., widths[-1])` from `(..., widths[0])`."""
        *hidden, last = self.layers
        for layer in hidden:
            x = layer(x).relu()
        return last(x)

    def reference_names(self, prefix: str) -> dict[str, str]:
        """The maps of a fusion's `head` by `prefix` and their number, from one."""
        return {f"{prefix}{i + 1}.": f"head.layers.{i}" for i in range(len(self.layers))}


def check_hidden(hidden: Sequence[int], owner: object) -> list[int]:
    """Widths of hidden layers, possibly none."""
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise OptionError(
            f"{type(owner).__name__}: hidden must be a sequence of widths such as (256, 128), or () for one linear map; "
            f"got {hidden!r}"
        )
    return [check_positive(h, "hidden", owner) for h in hidden]
