"""The fusion that a host was published with: its options in that host, and knowing it when weights are loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from fusionzoo._registry import registry
from fusionzoo.errors import FusionZooError, OptionError
from fusionzoo.fusion import Fusion
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
