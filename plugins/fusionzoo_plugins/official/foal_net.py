"""Foal-Net's fusion as ASolitaryMan/Foal-Net@781849fdf6 has it, `model.py`, and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusionzoo.reference import check_modalities, within
from fusionzoo_plugins.foal_net import CrossLayer, FoalNet

#: Every part of the official `MultiTaskModel`: the fusion's two stacks, those of the objectives, encoder and classifier.
PARTS = (
    *("wavlm.", "a2v.", "v2a.", "a2v_head.", "v2a_head.", "cls_head."),
    *("audio_project.", "video_project.", "temp"),
)


class OfficialFoalNet(FoalNet):
    """What the published code computes: padded keys score -10000, so that a memory of nothing else is read evenly."""

    variant = "official"
    fill = -1e4


def unused_except(*own: str) -> tuple[str, ...]:
    """The parts of the official model beside those that are read."""
    return tuple(p for p in PARTS if p not in own)


def reference_names(fusion: FoalNet) -> Mapping[str, str]:
    """The stacks `a2v.*` and `v2a.*`, of two modalities, audio first."""
    check_modalities(fusion.names, 2, "Foal-Net")
    names: dict[str, str] = {}
    for i, name in enumerate(("a2v", "v2a")):
        for depth, layer in fusion.stacks[i].named_children():
            assert isinstance(layer, CrossLayer)
            names |= within(f"stacks.{i}.{depth}", layer.reference_names(), f"{name}.{depth}.")
    return names


def reference_unused(fusion: FoalNet) -> Sequence[str]:
    """Encoder, projections, heads and temperature."""
    return unused_except("a2v.", "v2a.")
