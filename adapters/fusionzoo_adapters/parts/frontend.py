"""Masks in a fusion's own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusionzoo.fusion import Fusion, MaskLike


def named_for(fusion: Fusion, names: Sequence[str], mask: MaskLike) -> MaskLike:
    """A mask with the fusion's names: an instance may name its modalities differently; they agree in order and width."""
    if isinstance(mask, Mapping):
        return {theirs: mask[ours] for theirs, ours in zip(fusion.names, names, strict=True) if ours in mask}
    return mask
