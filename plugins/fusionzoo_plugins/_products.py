"""Parts of the fusions that multiply modalities: subspaces, products, roots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError

#: One width for all modalities, or one for each in their order.
Widths = int | Sequence[int] | None


def subspace_widths(width: Widths, dims: Mapping[str, int], default: int, owner: object) -> list[int]:
    """The width that every modality is mapped to: as asked for, or `default` where the modality is not narrower."""
    if width is None:
        return [min(default, d) for d in dims.values()]
    if not isinstance(width, Sequence):
        return [check_positive(width, "width", owner)] * len(dims)
    if len(width) != len(dims):
        name = owner.__name__ if isinstance(owner, type) else type(owner).__name__
        raise OptionError(
            f"{name}: width={width!r} has {len(width)} entries for {len(dims)} modalities ({', '.join(dims)}); "
            "give one number, or one for each"
        )
    return [check_positive(w, "width", owner) for w in width]


def product_of_present(factors: Sequence[Tensor], present: Sequence[Tensor | None]) -> Tensor:
    """Elementwise product over modalities of `(B, T, ...)` factors; an absent modality leaves the product."""
    return reduce(
        torch.mul,
        [
            f if m is None else torch.where(m.reshape(*m.shape, *(1,) * (f.dim() - m.dim())), f, 1.0)
            for f, m in zip(factors, present, strict=True)
        ],
    )


def root_and_norm(z: Tensor) -> Tensor:
    """Signed square root, then division by the Euclidean norm over the last axis; both smoothed at zero."""
    z = z * (z.abs() + 1e-6).rsqrt()
    return z * (z.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
