"""Between the host's layouts and the fusion's: `(B, T, d)` with a mask, or `(B, d)`.

A site's streams come as `(T, B, d)`, `(B, T, d)`, `(B, d)`, as a flat list of nodes `(N, d)` that holds one dialogue after
the other, as the steps `(T, d)` of one dialogue, or with other axes in front, `(..., d)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusionzoo.errors import LayoutError
from fusionzoo.patching.fuse.contexts import lengths_of
from fusionzoo.patching.layouts import PADDED_ROWS

#: Which steps are real: of all streams, or of every one by its name.
Masks = Tensor | dict[str, Tensor] | None


@dataclass
class Arranged:
    """Streams as a fusion takes them, and the way back."""

    streams: list[Tensor]
    mask: Masks
    back: Callable[[Tensor], Tensor]  # `(B, T, w)` or `(B, w)` to the host's axes, features last


def arrange(
    streams: Sequence[Tensor], names: Sequence[str], layout: str, context: dict[str, Any], across: bool, what: str
) -> Arranged:
    """Bring streams with features last into the fusion's layout.

    across : whether the fusion looks across steps, so that the rows of a flat list have to be told apart.
    """
    xs = list(streams)
    if layout == "(T, B, d)":
        xs = [x.transpose(0, 1) for x in xs]
        return Arranged(xs, masks_of(context, xs, names, what), lambda y: y.transpose(0, 1))
    if layout == "(B, T, d)":
        return Arranged(xs, masks_of(context, xs, names, what), lambda y: y)
    if layout == "(T, d)":
        return Arranged([x.unsqueeze(0) for x in xs], None, lambda y: y.squeeze(0) if y.dim() == 3 else y)
    if layout in PADDED_ROWS and across:
        return _padded(xs, names, layout, context, what)
    if layout == "(N, d)" and across:
        return _dialogues(xs, names, context, what)
    lead = xs[0].shape[:-1]
    return Arranged([x.reshape(-1, x.shape[-1]) for x in xs], None, lambda y: y.reshape(*lead, y.shape[-1]))


def masks_of(context: dict[str, Any], xs: Sequence[Tensor], names: Sequence[str], what: str) -> Masks:
    """The mask of streams `(B, T, d)`; each one's own, where the context has them or the streams differ in length."""
    if not context:
        return None
    own = {m for told in context.values() if isinstance(told, Mapping) for m in told}
    if not own and all(x.shape[1] == xs[0].shape[1] for x in xs):
        return _mask(context, xs[0], what)
    if strange := own - set(names):
        raise LayoutError(
            f"{what}: the context tells of {min(strange)!r}, and the streams are {', '.join(names)}: give each its mask or lengths, or "
            "one for all"
        )
    found = {m: _own_mask(context, m, x, what) for m, x in zip(names, xs, strict=True)}
    masks = {m: mask for m, mask in found.items() if mask is not None}
    if not own and not masks:
        return _mask(context, xs[0], what)  # which says what does not fit
    return masks or None


def _own_mask(context: dict[str, Any], name: str, x: Tensor, what: str) -> Tensor | None:
    """One stream's mask; one that is told of all streams where it has this one's size.

    What a host has put before a stream's own steps, such as a token that stands for all of them, is real.
    """
    mine = {k: told[name] for k, told in context.items() if isinstance(told, Mapping) and told.get(name) is not None}
    mask, lengths = (mine or context).get("mask"), (mine or context).get("lengths")
    if mine:
        if isinstance(mask, Tensor) and mask.dim() == 2 and (more := x.shape[1] - mask.shape[1]) > 0:
            mine["mask"] = torch.cat([mask.new_ones(len(mask), more), mask], 1)
        return _mask(mine, x, what)
    if isinstance(mask, Tensor):
        return _mask(context, x, what) if mask.shape == x.shape[:2] else None
    fits = isinstance(lengths, Tensor) and lengths.numel() == len(x) and int(lengths.max()) <= x.shape[1]
    return _mask({"lengths": lengths}, x, what) if fits else None


def _mask(context: dict[str, Any], like: Tensor, what: str) -> Tensor | None:
    batch, steps = like.shape[:2]
    mask = context.get("mask")
    if mask is None and (lengths := context.get("lengths")) is not None:
        lengths = torch.as_tensor(lengths).to(like.device).flatten()
        if len(lengths) != batch or int(lengths.max()) > steps:
            raise LayoutError(
                f"{what}: the context's lengths {lengths.tolist()} do not fit the streams, which are {batch} dialogues of "
                f"{steps} steps"
            )
        mask = torch.arange(steps, device=like.device) < lengths.view(-1, 1)
    if mask is None:
        return None
    mask = torch.as_tensor(mask).to(like.device).bool()
    if tuple(mask.shape) != (batch, steps):
        raise LayoutError(
            f"{what}: the context's mask is {tuple(mask.shape)}, but the streams are {batch} dialogues of {steps} steps; "
            "return a bool mask (B, T), True where a step is real"
        )
    return mask


def mean_of_real(x: Tensor, mask: Tensor | None, axis: int) -> Tensor:
    """The mean along an axis of steps; of the real ones, where a mask `(B, T)` tells which are."""
    if mask is None:
        return x.mean(axis)
    real = (mask if axis % x.dim() == 1 else mask.T).unsqueeze(-1)
    return x.masked_fill(~real, 0).sum(axis) / real.sum(axis).clamp(min=1).to(x.dtype)


def _padded(xs: list[Tensor], names: Sequence[str], layout: str, context: dict[str, Any], what: str) -> Arranged:
    """The rows of a padded batch as that batch: as many dialogues as the context tells of."""
    told = context.get("mask") if context.get("mask") is not None else context.get("lengths")
    told = next(iter(told.values()), None) if isinstance(told, Mapping) else told
    batch, rows = 0 if told is None else len(told), xs[0].shape[0]
    if not batch or rows % batch:
        raise LayoutError(
            f"{what}: the {rows} rows are those of a padded batch, {layout}, and the context tells "
            f"{f'of {batch} dialogues, which does not divide them' if batch else 'nothing'}; give context=lambda model, args, "
            "kwargs: {'mask': bool (B, T)} or {'lengths': one for each dialogue}"
        )
    steps, time_first = rows // batch, layout == "(T*B, d)"
    shape = (steps, batch) if time_first else (batch, steps)

    def pad(x: Tensor) -> Tensor:
        x = x.reshape(*shape, x.shape[-1])
        return x.transpose(0, 1) if time_first else x

    def back(y: Tensor) -> Tensor:
        y = y.unsqueeze(1).expand(-1, steps, -1) if y.dim() == 2 else y  # one vector per dialogue
        return (y.transpose(0, 1) if time_first else y).reshape(rows, y.shape[-1])

    padded = [pad(x) for x in xs]
    return Arranged(padded, masks_of(context, padded, names, what), back)


def _dialogues(xs: list[Tensor], names: Sequence[str], context: dict[str, Any], what: str) -> Arranged:
    """Flat nodes to padded dialogues and back, by index, without a loop."""
    lengths = lengths_of(context)
    if lengths is None:
        raise LayoutError(
            f"{what}: the streams are a flat list of {xs[0].shape[0]} nodes, and this fusion looks across steps; "
            "give context=lambda model, args, kwargs: {'lengths': ...} with the dialogues' lengths ([T] * B where all are padded to T), "
            "or {'mask': ...}, so that it never mixes them"
        )
    rows = xs[0].shape[0]
    if int(lengths.sum()) != rows:
        mask = context.get("mask")
        if isinstance(mask, Tensor) and mask.numel() == rows:  # dialogues with their padding
            return _padded(xs, names, "(B*T, d)", context, what)
        raise LayoutError(
            f"{what}: the dialogues' lengths {lengths.tolist()} add up to {int(lengths.sum())}, but there are {rows} nodes; if these "
            "are the rows of a padded batch, say layout='(B*T, d)' or layout='(T*B, d)'"
        )
    steps = int(lengths.max())
    device = xs[0].device
    mask = (torch.arange(steps) < lengths.view(-1, 1)).to(device)
    index = mask.flatten().nonzero().squeeze(1)

    def pad(x: Tensor) -> Tensor:
        out = x.new_zeros(mask.numel(), x.shape[-1])
        return out.index_copy_(0, index, x).view(*mask.shape, -1)

    def back(y: Tensor) -> Tensor:
        if y.dim() == 2:  # one vector per dialogue
            return y.repeat_interleave(lengths.to(device), 0)
        return y.flatten(0, 1).index_select(0, index)

    return Arranged([pad(x) for x in xs], mask, back)
