"""What scripts ask of the package torch_scatter, computed by torch, where the package is not installed."""

from __future__ import annotations

from torch import Tensor

__all__ = ["scatter", "scatter_add", "scatter_mean", "scatter_sum"]


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduce the values of `src` that have the same index along `dim`; where there are none, the result is 0.

    Parameters
    ----------
    src : values.
    index : of the shape of `src`, or of its axes up to `dim`, or of `dim` alone.
    dim : the axis.
    out : is reduced into, where it is given.
    dim_size : length of the result's axis; else the largest index and one.
    reduce : `"sum"`, `"add"`, `"mul"`, `"mean"`, `"min"` or `"max"`.
    """
    dim = dim % src.dim()
    if index.dim() == 1:
        index = index.view([-1 if i == dim else 1 for i in range(src.dim())])
    index = index.view([*index.shape, *[1] * (src.dim() - index.dim())]).expand_as(src)
    if out is None:
        size = list(src.shape)
        size[dim] = dim_size if dim_size is not None else int(index.max()) + 1 if index.numel() else 0
        start = src.new_ones(size) if reduce == "mul" else src.new_zeros(size)
        own = True
    else:
        start, own = out, False
    known = {"sum": "sum", "add": "sum", "mul": "prod", "mean": "mean", "min": "amin", "max": "amax"}[reduce]
    return start.scatter_reduce_(dim, index, src, known, include_self=not own or reduce in ("sum", "add", "mul"))


def scatter_sum(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Sums of the values of the same index."""
    return scatter(src, index, dim, out, dim_size, "sum")


scatter_add = scatter_sum


def scatter_mean(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Means of the values of the same index."""
    return scatter(src, index, dim, out, dim_size, "mean")
