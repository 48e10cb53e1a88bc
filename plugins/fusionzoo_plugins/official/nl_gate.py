"""The non-local gate as pliang279/MultiBench@49f9be224f has it, `fusions/common_fusions.py:NLgate`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor

from fusionzoo.reference import check_modalities
from fusionzoo_plugins.nl_gate import NLGate


class OfficialNLGate(NLGate):
    r"""What MultiBench's class computes.

    No :math:`1/\sqrt c`, and keys read as columns of c x S, so that key and value of a slot come from different features;
    with `project=""` there are no maps, as it is built there by default. Any number of modalities, two there.
    """

    variant = "official"

    def scores(self, q: Tensor, keys: list[Tensor]) -> Tensor:
        return q @ torch.cat([rearrange(x, "... (c s) -> ... c s", c=self.channels) for x in keys], -1)

    def reference_names(self) -> Mapping[str, str]:
        check_modalities(self.names, 2, "NLgate")
        return {"qli.": "query", "kli.": "key.0", "vli.": "value.0"}
