"""The three auxiliary losses of MISA, over the rows that are real; for the fusion `misa` and the objectives alike.

Every function takes streams `(..., d)` and a bool mask `(...)`, True where a row takes part (None: everywhere), and gives
a scalar: finite, with finite gradients, and zero where too few rows are left for it to mean anything.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fusionzoo.numerics import masked_mean, zero_padded


def _rows(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """`x` as rows `(N, d)`, free of what stands at masked ones, and the mask `(N,)`."""
    flat = None if mask is None else mask.reshape(-1)
    return zero_padded(x.reshape(-1, x.shape[-1]), flat), flat


def _moments(x: Tensor, mask: Tensor | None, count: int) -> Tensor:
    """Mean and central moments of order 2 to `count` over the rows, `(count, d)`."""
    mean = masked_mean(x, mask)
    centred = x - mean
    return torch.stack([mean, *(masked_mean(centred**k, mask) for k in range(2, count + 1))])


def cmd(x: Tensor, y: Tensor, mask: Tensor | None = None, moments: int = 5) -> Tensor:
    r"""Central moment discrepancy of two streams with values in [0, 1].

    .. math::
        \|\mathrm E\,x - \mathrm E\,y\|_2 + \sum_{k=2}^{K} \|C_k(x) - C_k(y)\|_2, \qquad
        C_k(x) = \mathrm E\,(x - \mathrm E\,x)^k

    Source: Zellinger et al., "Central Moment Discrepancy (CMD) for Domain-Invariant Representation Learning", ICLR 2017;
    MISA equation 9. Zero without a real row. The norms have slope zero at zero, where the published square root has NaN.
    """
    x, rows = _rows(x, mask)
    y, _ = _rows(y, mask)
    return torch.linalg.vector_norm(_moments(x, rows, moments) - _moments(y, rows, moments), dim=-1).sum()


def orthogonality(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Squared Frobenius norm of the cross products of two streams, a mean over its entries.

    .. math:: \frac{1}{d_a d_b}\,\big\|\hat A^\top \hat B\big\|_F^2

    with the rows of :math:`\hat A, \hat B` centred over the real rows and then of unit length.
    Source: Hazarika et al., "MISA", ACM MM 2020, equation 10. Zero with fewer than two real rows. Gradients pass through
    the lengths, which the published code detaches; the values are the same.
    """

    def unit_rows(x: Tensor) -> Tensor:
        x, rows = _rows(x, mask)
        x = zero_padded(x - masked_mean(x, rows), rows)
        return x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + 1e-6)

    return (unit_rows(a).t() @ unit_rows(b)).square().mean()


def reconstruction(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean squared error over the real rows, :math:`\frac1{N d}\sum_i \|x_i - y_i\|^2`.

    Source: Hazarika et al., "MISA", ACM MM 2020, equation 12. Zero without a real row.
    """
    x, rows = _rows(x, mask)
    y, _ = _rows(y, mask)
    return masked_mean((x - y).square(), rows).mean()
