"""Windowed dialogue graphs.

Edges are made by index arithmetic from the lengths, on the CPU; nothing here loops over dialogues, nodes or edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fusionzoo.errors import OptionError
from fusionzoo.kernels.packing import Packing, to_device


def check_window(value: int | None, option: str) -> int | None:
    """A window side; None and -1 mean all."""
    if value is None or value == -1:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"{option} must be a number of utterances, 0 or more, or None for all; got {value!r}")
    return value


@dataclass
class Edges:
    """Edges of a batch of dialogues, sorted by their centre.

    centre, neighbour : `(E,)` node numbers; nodes are the real utterances, dialogue after dialogue.
    slot : `(E,)` position of the edge in a flat `(B, T, T)` array `[dialogue, step of centre, step of neighbour]`.
    """

    centre: Tensor
    neighbour: Tensor
    slot: Tensor


def window_edges(packing: Packing, past: int | None, future: int | None) -> Edges:
    """Every utterance with its neighbours from `past` steps before to `future` after it, itself included.

    `None` takes a side whole.
    """
    lengths = torch.tensor(packing.lengths)
    total, steps = int(lengths.sum()), packing.steps
    dialogue = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    first = (lengths.cumsum(0) - lengths)[dialogue]
    step = torch.arange(total) - first
    length = lengths[dialogue]
    low = torch.zeros_like(step) if past is None else (step - past).clamp(min=0)
    high = length if future is None else torch.minimum(step + future + 1, length)
    count = high - low
    centre = torch.repeat_interleave(torch.arange(total), count)
    position = torch.arange(len(centre)) - (count.cumsum(0) - count)[centre] + low[centre]
    neighbour = first[centre] + position
    slot = (dialogue[centre] * steps + step[centre]) * steps + position
    # One copy to the device for all three.
    return Edges(*to_device(torch.stack([centre, neighbour, slot]), packing.device).unbind(0))


def window_mask(steps: int, past: int | None, future: int | None, mask: Tensor) -> Tensor:
    """bool `(B, T, T)`: whether the column's step is a real neighbour of the row's. mask : `(B, T)`."""
    offset = torch.arange(steps, device=mask.device)
    offset = offset.unsqueeze(0) - offset.unsqueeze(1)
    inside = mask.unsqueeze(1) & mask.unsqueeze(2)
    if past is not None:
        inside = inside & (offset >= -past)
    if future is not None:
        inside = inside & (offset <= future)
    return inside


def relation_types(source: Tensor, target: Tensor, speakers: Tensor, parties: int) -> Tensor:
    """Relations `(E,)` below `2 P^2`: speaker of the source, of the target, and whether the source is earlier.

    source, target : node numbers `(E,)`; within a dialogue they grow with time.
    speakers : `(N,)` of the nodes, below P. An edge from a node to itself counts as not earlier.
    """
    pair = speakers.index_select(0, source) * parties + speakers.index_select(0, target)
    return pair * 2 + (source >= target)
