"""Foal-Net as ASolitaryMan/Foal-Net@781849fdf6 has it, `model.py`."""

from __future__ import annotations

from fusionzoo_adapters.hosts.foal_net import FoalNet


class OfficialFoalNet(FoalNet):
    """With that variant of the fusion foal-net: padded keys score -10000."""

    variant = "official"
