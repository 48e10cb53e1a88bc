"""How much of the joined tensor a fusion has come to make up, measured while the script trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.patching.fuse.layer import FusionLayer


@dataclass(frozen=True)
class Measure:
    """One measurement.

    call : the how-manieth call of the fusion in training it was.
    share : norm of what the fusion added over the norm of what it was added to.
    projection : norm of the weights of the output projection.
    """

    call: int
    share: float
    projection: float


class Growth:
    """Of the fusion in training.

    Measures the first call, the last ones, and between them ever more rarely: each about a tenth later than the one before.
    """

    def __init__(self) -> None:
        self.measures: list[Measure] = []
        self.calls = 0
        self._next = 1

    def call(self, layer: FusionLayer, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call the fusion's layer, and measure what it did where it is time to."""
        result = args[0] if args else None
        if not (layer.training and torch.is_grad_enabled()):
            return original(layer, *args, **kwargs)
        self.calls += 1
        early = self.calls < self._next or layer.plan.mode != "residual"
        if early or not isinstance(result, Tensor) or not result.is_floating_point():
            return original(layer, *args, **kwargs)
        self._next = max(self.calls + 1, math.ceil(self.calls * 1.1))
        before = result.detach().clone()  # a join is added to in place
        out = original(layer, *args, **kwargs)
        with torch.no_grad():
            whole, added = before.norm(), (out.detach() - before).norm()
        self.measures.append(Measure(self.calls, float(added / whole) if whole > 0 else 0.0, projection(layer)))
        return out

    def __str__(self) -> str:
        if not self.calls:
            return "the fusion's share of the joined tensor was not measured: it was not called in training, or in compiled code only"
        if not self.measures:
            return f"the fusion stood in the place of the joined tensor in all of {self.calls:,} calls in training"
        first, last = self.measures[0], self.measures[-1]
        return (
            f"the fusion's share of the joined tensor grew from {first.share:.3g} to {last.share:.3g} (calls {first.call:,} and "
            f"{last.call:,} of {self.calls:,} in training)"
        )


def projection(layer: nn.Module) -> float:
    """The norm of the weights by which a fusion's layer adds to the host."""
    out: Any = layer.out
    with torch.no_grad():
        return float(sum(float(p.norm()) ** 2 for p in out.parameters())) ** 0.5
