"""MMTM as haamoon/mmtm@1c81cfefad has it, `mmtm.py`."""

from __future__ import annotations

from fusionzoo_plugins.mmtm import MMTM, MMTMBlock


class OfficialMMTM(MMTM):
    r"""What the published code computes: gates of :math:`\sigma`, in (0, 1), without the factor 2 of the paper."""

    variant = "official"


class OfficialMMTMBlock(MMTMBlock):
    """The block of `OfficialMMTM`."""

    variant = "official"
    scale = 1.0
