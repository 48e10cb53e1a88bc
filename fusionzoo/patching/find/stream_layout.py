"""What the labels at a join say of its layout: which axes are features, time, batch, or a flat list of nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fusionzoo.patching.fuse.joins import Join
from fusionzoo.patching.trace.events import Event, Operand, Trace
from fusionzoo.patching.trace.labels import read_positions


def varies_along(o: Operand, dim: int, axis: int) -> bool:
    """Whether positions along an input axis are told apart along a tensor's dim."""
    if o.labels is None or dim >= o.labels.dim() or o.labels.shape[dim] < 2:
        return False
    line = read_positions(o.labels.movedim(dim, 0).flatten(1)[:, 0], axis)
    return bool((line >= 0).all()) and len(torch.unique(line)) > 1


def _once(o: Operand, dim: int, axis: int) -> bool:
    """Whether every position of an input axis comes just once along a tensor's dim."""
    assert o.labels is not None
    line = read_positions(o.labels.movedim(dim, 0).flatten(1)[:, 0], axis)
    return len(torch.unique(line)) == len(line)


def _runs(o: Operand, dim: int, axis: int) -> bool:
    """Whether a dim goes through the positions of an input axis in runs: dialogues laid one after the other."""
    if not varies_along(o, dim, axis) or o.labels is None:
        return False
    line = read_positions(o.labels.movedim(dim, 0).flatten(1)[:, 0], axis)
    known = len(torch.unique(line))
    return len(line) > known == len(torch.unique_consecutive(line))


def fullest(operands: list[Operand]) -> Operand:
    """The stream that tells most of the layout: of those of the highest rank the one with the most steps, the first of equals."""
    streams = [o for o in operands if o.bits] or operands
    return max(streams, key=lambda o: (len(o.shape), math.prod(o.shape[:-1])))


def feature_axis(event: Event, operands: list[Operand]) -> int:
    """The axis of features: the last one, unless positions of the input run along it."""
    o = fullest(operands)
    rank = len(o.shape)
    if event.join.multiplies or rank < 3:
        return -1
    if not (varies_along(o, rank - 1, 0) or varies_along(o, rank - 1, 1)):
        narrow = event.join.unit_last and all(x.shape[-1] == 1 for x in (o, *operands))
        return -2 if narrow and not (varies_along(o, rank - 2, 0) or varies_along(o, rank - 2, 1)) else -1
    free = [d for d in range(1, rank - 1) if not (varies_along(o, d, 0) or varies_along(o, d, 1))]
    return free[-1] - rank if free else -1


def layout(
    join: Join, axis: int | None, feature: int, operands: list[Operand], time: int | None, leading: int, flat: bool
) -> tuple[str, bool]:
    """The layout of the streams at a join, and whether the trace proves it.

    leading : of an outer product, see `Join.leading`.
    flat : whether the model's streams have no axis of time: they are vectors, one per sample.
    """
    o = fullest(operands)
    dims = join.step_axes(feature, axis, leading, [o.shape, *(x.shape for x in operands)])
    if not dims:
        return "(B, d)", True
    if len(dims) == 1:
        return ("(B, d)" if _at_odds(operands, o, dims[0]) else _of_one_axis(o, dims[0], time)), True
    if len(dims) == 2 and not flat:
        return _of_two_axes(o, dims, time)
    return "(..., d)", True


def _at_odds(operands: list[Operand], like: Operand, dim: int) -> bool:
    """Whether rows go along the first axis of one argument and along the second of another: what they share is samples."""
    streams = [o for o in operands if o.bits and len(o.shape) == len(like.shape)]
    along = {tuple(varies_along(o, dim, i) for i in (0, 1)) for o in streams}
    return {(True, False), (False, True)} <= along


def _of_one_axis(o: Operand, dim: int, time: int | None) -> str:
    along = [varies_along(o, dim, i) for i in (0, 1)]
    if all(along) and any(_once(o, dim, i) for i in ((0, 1) if time is None else (1 - time,))):
        return "(B, d)"  # one step of every dialogue
    if all(along) or any(_runs(o, dim, i) for i in (0, 1)):
        return "(N, d)"
    return "(T, d)" if time is not None and along[time] else "(B, d)"


def _of_two_axes(o: Operand, dims: list[int], time: int | None) -> tuple[str, bool]:
    first, second = ([varies_along(o, dim, i) for i in (0, 1)] for dim in dims)
    if time is not None and (any(first) or any(second)):
        time_first = first[time] or (second[1 - time] and not first[1 - time])
        return ("(T, B, d)" if time_first else "(B, T, d)"), True
    time_first = time == 1 and second[0] and not second[1] and not first[0]
    return ("(T, B, d)" if time_first else "(B, T, d)"), False


def time_axis(trace: Trace) -> int | None:
    """Which axis of the input is time: 0, 1, or None where nothing tells."""
    sequences = [x.stream for x in trace.leaves if (x.modality or x.widths) and _rank(x.stream) >= 3]
    if not sequences:
        return None
    votes = [*trace.time_votes]
    for first, second in dict.fromkeys(tuple(x.shape[:2]) for x in sequences):
        if first != second:
            for axis in _told_by_arguments(trace, first, second):
                votes[axis] += 2
    for operand in (o for event in trace.events for o in event.operands):
        slow = _slow_axis(operand)
        if slow is not None:
            votes[1 - slow] += 1
    if votes[0] == votes[1]:
        return None
    return 0 if votes[0] > votes[1] else 1


def _rank(x: Tensor) -> int:
    """Of an argument's features: tokens, which are whole numbers, get theirs from an embedding."""
    return x.dim() + (not x.is_floating_point())


def _told_by_arguments(trace: Trace, first: int, second: int) -> Iterator[int]:
    """The axis of time that masks and lengths beside streams `(first, second, d)` speak for."""
    for leaf in trace.leaves:
        shape = tuple(leaf.tensor.shape)
        if leaf.modality or leaf.widths:
            continue
        if shape == (second, first):
            yield 0  # a mask (B, T) beside features (T, B, d)
        elif "mask" in leaf.hint and shape == (first, second):
            yield 1
        elif len(shape) == 1 and not leaf.tensor.is_floating_point() and shape[0] in (first, second):
            yield 1 if shape[0] == first else 0
    for value in trace.arguments.values():
        listed = isinstance(value, (list, tuple)) and len(value) in (first, second) and len(value) > 0
        if listed and all(type(v) is int for v in value):
            yield 1 if len(value) == first else 0


def _slow_axis(o: Operand) -> int | None:
    """In a flat list of both axes' positions, the input axis that changes slowly, which is the batch."""
    if o.labels is None or o.labels.dim() != 2 or not (varies_along(o, 0, 0) and varies_along(o, 0, 1)):
        return None
    changes = []
    for axis in (0, 1):
        line = read_positions(o.labels[:, 0], axis)
        changes.append(int((line[1:] != line[:-1]).sum()))
    return None if changes[0] == changes[1] else (0 if changes[0] < changes[1] else 1)
