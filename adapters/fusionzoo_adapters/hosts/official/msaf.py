"""MSAF's network of sequences as anita-hu/MSAF@125e0f1eef has it, `cmu_mosei/networks/msaf_mosei.py`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusionzoo.encoders.outputs import Encoded
from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.reference import state_within, within
from fusionzoo_adapters.hosts.msaf import MSAF
from fusionzoo_adapters.parts.published_fusion import is_named


class OfficialMSAF(MSAF):
    """What the published code computes: the last step of the padded sequence is read; that variant of the fusion msaf.

    Modalities are called visual, audio and text.
    """

    variant = "official"
    masked = False

    def last_state(self, name: str, encoded: Encoded) -> Encoded:
        states, mask = self.run(self.second, name, encoded)
        return Encoded(states[:, -1:], torch.ones_like(mask[:, -1:]))

    def reference_names(self) -> Mapping[str, str]:
        if self.fusion is None or not is_named(self.fusion, self.own):
            raise ReferenceWeightsError("the official weights are those of MSAF(fusion='msaf', variant='official')")
        names = {"multimodal_classifier.0.": "head"} | within("fusion", self.fusion.reference_names(), "msaf.0.")
        for m in self.names:
            names |= {f"{m}_model.0.": f"first.{m}", f"{m}_model.1.": f"second.{m}"}
        return names

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return state_within(self.fusion, state_dict, "msaf.0.")
