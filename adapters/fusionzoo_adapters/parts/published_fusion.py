"""The fusion that a host was published with: its options in that host, and knowing it when weights are loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._registry import registry
from fusionzoo.errors import FusionZooError, OptionError
from fusionzoo.fusion import Fused, Fusion, MaskLike
from fusionzoo.host import FusionLike, Host
from fusionzoo.reference import prefixed
from fusionzoo.specs import plain_name


def with_options(fusion: FusionLike, name: str, **options: Any) -> FusionLike:
    """`fusion`, with these options wherever it is the one of this name, by name, and does not say otherwise."""
    if isinstance(fusion, str) and plain_name(fusion) == name:
        return name, options
    if isinstance(fusion, tuple) and len(fusion) == 2 and plain_name(fusion[0]) == name:
        return name, {**options, **fusion[1]}
    return fusion


def is_named(fusion: Fusion | None, name: str) -> bool:
    """Whether `fusion` is the registered one of this name."""
    try:
        return isinstance(fusion, registry.get(name))
    except FusionZooError:
        return False


def load_with_fusion(
    host: Host, name: str, state: Mapping[str, Tensor], prefix: str, load: Callable[[Mapping[str, Tensor]], None]
) -> None:
    """Load official weights into a host and, where it is the one of this name, its fusion: both or neither.

    Parameters
    ----------
    host : what has the fusion.
    name : of the fusion that has weights upstream.
    state : the official entries.
    prefix : of those that are the fusion's.
    load : loads the others.
    """
    fusion, own = host.built_fusion, prefixed(state, prefix)
    if fusion is None or not is_named(fusion, name):
        load(state)
        return
    copy.deepcopy(fusion).load_reference(own)  # raises before anything is copied
    load(state)
    fusion.load_reference(own)


def speakers_of(host: Host, width: int | bool) -> nn.Embedding | None:
    """A learnt vector for each of a host's speakers; a width of True is 16, none is built for 0 or False."""
    width = 16 if width is True else int(width)
    if width < 0:
        raise OptionError(f"{type(host).__name__}: speaker_embedding must be a width or a bool, not {width!r}")
    return nn.Embedding(host.num_speakers, width) if width else None


def worth_grouping(lengths: Sequence[int], steps: int, group: int) -> bool:
    """Whether groups of dialogues of similar length save enough of a padded batch to pay for more, smaller products."""
    longest = sorted(lengths, reverse=True)[::group]
    return len(lengths) * steps >= 512 and group * sum(longest) < 0.85 * len(lengths) * steps


def fuse_in_groups(
    fusion: Fusion, xs: Sequence[Tensor | None], mask: MaskLike, lengths: Sequence[int], group: int
) -> Fused:
    """What `fusion.fuse` gives, without attention maps, from groups of dialogues of similar length.

    On a CPU, a fusion that costs many products per step does not compute most of the padding then. Only for a fusion that
    treats every dialogue by itself: its losses, if any, are left out.
    """
    steps = next(x.shape[1] for x in xs if x is not None)
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    parts = []
    for start in range(0, len(order), group):
        rows = order[start : start + group]
        longest, index = lengths[rows[0]], torch.tensor(rows)
        cut = [None if x is None else x[index, :longest] for x in xs]
        real = {m: x[index, :longest] for m, x in mask.items()} if isinstance(mask, Mapping) else mask
        parts.append(fusion.fuse(cut, real[index, :longest] if isinstance(real, Tensor) else real, attention=False))
    back = torch.tensor(order).argsort()

    def joined(pieces: Sequence[Tensor]) -> Tensor:
        return torch.cat([F.pad(x, (0, 0, 0, steps - x.shape[1])) for x in pieces]).index_select(0, back)

    streams = {m: joined([p.streams[m] for p in parts]) for m in parts[0].streams}
    return Fused(joined([p.fused for p in parts]), streams)
