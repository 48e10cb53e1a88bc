"""Labels: for every element of a traced tensor, which modality it leads and which steps of the input it comes from.

A label is an int64 whose bits are combined by OR, so that one rule serves every operation. The lowest bits say which
modalities lead (several: mixed). Two fields above hold positions along the first and second axis of the model's input, each
twice: the number and its complement. Two different positions then set both rails of some bit, which reads as "mixed".
Labels have the rank of their tensor and size one along axes where they do not vary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MODALITY_BITS = 18
_RAIL = 11
_FIELD = 2 * _RAIL
MODALITY_MASK = (1 << MODALITY_BITS) - 1
_POSITIONS = (1 << _RAIL) - 1
ALL_POSITIONS = ((1 << (2 * _FIELD)) - 1) << MODALITY_BITS


def positions(size: int, axis: int) -> Tensor:
    """Labels `(size,)` that count along input axis 0 or 1."""
    number = torch.arange(size) & _POSITIONS
    return (number | ((~number & _POSITIONS) << _RAIL)) << (MODALITY_BITS + axis * _FIELD)


def read_positions(labels: Tensor, axis: int) -> Tensor:
    """Positions along an input axis; -1 where there is none, -2 where several are mixed."""
    field = (labels >> (MODALITY_BITS + axis * _FIELD)) & ((1 << _FIELD) - 1)
    number, complement = field & _POSITIONS, field >> _RAIL
    out = torch.where((number & complement) != 0, torch.full_like(number, -2), number)
    return torch.where(field == 0, torch.full_like(number, -1), out)


def leaf(shape: Sequence[int], modality: Tensor | int, tokens: bool = False, axis: int = -1) -> Tensor:
    """Labels of an input tensor.

    modality : a bit mask, or one for every place along an axis: of features, or of modalities.
    tokens : numbers that have no features yet.
    """
    rank = len(shape)
    several = isinstance(modality, Tensor)
    along = [d == axis % rank and several for d in range(rank)]
    labels = torch.as_tensor(modality, dtype=torch.int64).view([-1 if a else 1 for a in along])
    steps = [d for d in range(rank if tokens or rank == 1 else rank - 1) if not along[d]]
    for i, dim in enumerate(steps[:2]):
        labels = labels | positions(shape[dim], i).view([-1 if d == dim else 1 for d in range(rank)])
    return labels


def merge(labels: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """OR along dims (all of them for None), which stay with size one."""
    for dim in range(labels.dim()) if dims is None else dims:
        while (n := labels.shape[dim]) > 1:
            half = n // 2
            both = labels.narrow(dim, 0, half) | labels.narrow(dim, half, half)
            labels = torch.cat([both, labels.narrow(dim, n - 1, 1)], dim) if n % 2 else both
        if labels.shape[dim] == 0:
            shape = list(labels.shape)
            shape[dim] = 1
            labels = labels.new_zeros(shape)
    return labels


def compress(labels: Tensor) -> Tensor:
    """Size one along axes where nothing varies."""
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1:
            first = labels.narrow(dim, 0, 1)
            if labels.stride(dim) == 0 or bool((labels == first).all()):
                labels = first
    return labels


def fit(labels: Tensor, shape: Sequence[int]) -> Tensor:
    """Labels for a tensor of another shape: axes that agree from the left are kept, the others merged."""
    if labels.dim() == len(shape) and all(a in (1, b) for a, b in zip(labels.shape, shape, strict=True)):
        return labels
    keep = 0
    while keep < min(labels.dim(), len(shape)) and labels.shape[keep] in (1, shape[keep]):
        keep += 1
    labels = merge(labels, range(keep, labels.dim()))
    labels = labels.reshape(labels.shape[:keep])
    return labels.reshape((*labels.shape, *[1] * (len(shape) - keep)))


def broadcast(labels: Sequence[Tensor], shape: Sequence[int]) -> Tensor | None:
    """OR of labels that broadcast to `shape` as their tensors do; None where one does not."""
    rank, total = len(shape), None
    for one in labels:
        if one.dim() > rank:
            return None
        one = one.view([1] * (rank - one.dim()) + list(one.shape))
        if any(a not in (1, b) for a, b in zip(one.shape, shape, strict=True)):
            return None
        total = one if total is None else total | one
    return total


def expand(labels: Tensor, shape: Sequence[int]) -> Tensor:
    """Labels at the full shape of their tensor, without copying."""
    return labels.expand(tuple(shape))


def modalities(labels: Tensor) -> int:
    """Bit mask of every modality that leads somewhere."""
    return int(merge(labels).flatten()[0]) & MODALITY_MASK if labels.numel() else 0


def plane(labels: Tensor) -> Tensor:
    """The modality bits alone, compressed."""
    return compress(labels & MODALITY_MASK)


def is_pure(labels: Tensor) -> bool:
    """Whether no element mixes modalities."""
    bits = labels & MODALITY_MASK
    return bool(((bits & (bits - 1)) == 0).all())
