"""The caller's batch, and batches made from it: one sample changed, or padding. What the library guesses, a builder says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fusionzoo.patching import Call

#: Where a stream lies in a call: a position, a keyword, or a tuple of both and of the keys below.
Path = int | str | tuple[int | str, ...]


def lengths_mask(lengths: Sequence[int], time_first: bool = False) -> Tensor:
    """Which steps are real, `(B, T)` or `(T, B)`."""
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return mask.T if time_first else mask


def features(lengths: Sequence[int], *widths: int, time_first: bool = True) -> list[Tensor]:
    """Random features of each width, `(T, B, d)` or `(B, T, d)`, zero where padded."""
    real = lengths_mask(lengths, time_first)[..., None]
    return [torch.randn(*real.shape[:2], width) * real for width in widths]


def speakers(lengths: Sequence[int], number: int = 2, time_first: bool = True) -> Tensor:
    """Who speaks at each step, one-hot."""
    shape = lengths_mask(lengths, time_first).shape
    return torch.nn.functional.one_hot(torch.randint(number, shape), number).float()


def other_values(x: Tensor, where: Tensor) -> Tensor:
    """Other values at some places, drawn from those that the tensor has, so that they stay in the data's range."""
    known = x[x != 0] if bool((x != 0).any()) else x.flatten() + 1
    drawn = known[torch.randint(len(known), x.shape)]
    return torch.where(where, torch.where(drawn == x, x.max() + x.min() - x, drawn), x)


def changed(call: Call, samples: Sequence[int], streams: Mapping[Path, int], flat: Sequence[int] | None) -> Call:
    """The call with other features of some samples.

    Parameters
    ----------
    call : Call
        What the model is called with.
    samples : sequence of int
        Numbers of the samples (dialogues, clips) that change.
    streams : mapping
        Place of each stream in the call -> its axis of samples.
    flat : sequence of int, optional
        Rows of each sample, where that axis holds the rows of all samples one after another.
    """

    def other(x: Tensor, axis: int) -> Tensor:
        rows = (
            torch.repeat_interleave(torch.arange(len(flat)), torch.tensor(flat))
            if flat
            else torch.arange(x.shape[axis])
        )
        hit = torch.isin(rows, torch.tensor(samples)).view([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])
        return other_values(x, hit.expand(x.shape))

    return _replaced(call, {path: (lambda x, axis=axis: other(x, axis)) for path, axis in streams.items()})


def padded_otherwise(call: Call, streams: Mapping[Path, int], lengths: Sequence[int]) -> Call | None:
    """The call with other features at the steps beyond each sample's length; None where there are none."""
    hits = 0

    def other(x: Tensor, axis: int) -> Tensor:
        nonlocal hits
        if x.dim() < 3 or x.shape[axis] != len(lengths) or x.shape[1 - axis] != max(lengths):
            return x
        where = ~lengths_mask(lengths, axis == 1)
        hits += int(where.sum())
        return other_values(x, where[..., None].expand(x.shape))

    paths = {p: a for p, a in streams.items() if a in (0, 1)}
    made = _replaced(call, {path: (lambda x, axis=axis: other(x, axis)) for path, axis in paths.items()})
    return made if hits else None


def _replaced(call: Call, changes: Mapping[Path, Any]) -> Call:
    made = call.fresh()
    args, kwargs = list(made.args), dict(made.kwargs)
    torch.manual_seed(5)
    for path, change in changes.items():
        first, *keys = path if isinstance(path, tuple) else (path,)
        holder: Any = args if isinstance(first, int) else kwargs
        holder[first] = _inside(holder[first], keys, change)
    return Call(*args, **kwargs)


def _inside(holder: Any, keys: Sequence[Any], change: Any) -> Any:
    """A container with what stands at the end of some keys changed; a tuple stays one."""
    if not keys:
        return change(holder)
    key, *rest = keys
    if isinstance(holder, tuple):
        return tuple(_inside(x, rest, change) if i == key else x for i, x in enumerate(holder))
    if isinstance(holder, dict | list):
        holder[key] = _inside(holder[key], rest, change)
    else:
        setattr(holder, str(key), _inside(getattr(holder, str(key)), rest, change))
    return holder


def token_ids(lengths: Sequence[int], pad: int = 0) -> tuple[Tensor, Tensor]:
    """Random token ids `(B, T)`, `pad` beyond each length, and their mask."""
    mask = lengths_mask(lengths)
    return torch.where(mask, torch.randint(3, 90, mask.shape), pad), mask.long()


def packed_tokens(lengths: Sequence[int]) -> Tensor:
    """Token ids, mask and segments as one tensor `(B, 3, T)` of floats, as MMSA and its heirs pass them to BERT."""
    ids, mask = token_ids(lengths)
    return torch.stack([ids, mask, torch.zeros_like(ids)], dim=1).float()
