"""Outputs of two runs of a model beside each other."""

from __future__ import annotations

from torch import Tensor

from fusionzoo.patching.padding import MORE

Outputs = list[Tensor]
#: Places of every output.
Where = list[Tensor]


def moved_places(runs: dict[str, Outputs], name: str, tolerance: float) -> Where | None:
    """Where outputs moved by more than a share of the largest one; None where they have another size.

    Of a call with more steps, the steps that were there before count.
    """
    before, after = runs["as given"], runs[name]
    if name == "longer" and len(before) == len(after):
        after = [_as_long(x, y) for x, y in zip(before, after, strict=True)]
    if [x.shape for x in before] != [x.shape for x in after]:
        return None
    return [differ(x, y, tolerance) for x, y in zip(before, after, strict=True)]


def _as_long(x: Tensor, y: Tensor) -> Tensor:
    """The second output without the steps that it has more along one axis."""
    grown = [d for d, (n, m) in enumerate(zip(x.shape, y.shape, strict=False)) if m == n + MORE]
    return y.narrow(grown[0], 0, x.shape[grown[0]]) if len(grown) == 1 else y


def differ(x: Tensor, y: Tensor, tolerance: float) -> Tensor:
    """Where two outputs differ by more than a share of the largest number in them."""
    x, y = x.double().nan_to_num(), y.double().nan_to_num()
    scale = max(float(x.abs().max()), float(y.abs().max())) if x.numel() else 1.0
    return (x - y).abs() > tolerance * scale
