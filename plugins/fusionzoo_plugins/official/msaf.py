"""MSAF as anita-hu/MSAF@125e0f1eef has it, `MSAF.py`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusionzoo.errors import OptionError
from fusionzoo.reference import within
from fusionzoo_plugins.msaf import MSAF, MSAFBlock, SplitAttention


class OfficialMSAF(MSAF):
    """What the published code computes.

    The joint features have a batch norm over all rows of a batch, padding included, and exactly c // reduction features.
    """

    variant = "official"

    def reference_names(self) -> Mapping[str, str]:
        return within("split", self.split.reference_names())

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self.split.reference_state(state_dict)


class OfficialMSAFBlock(MSAFBlock):
    """The block of `OfficialMSAF`."""

    variant = "official"

    def norm(self, width: int) -> nn.Module:
        return nn.BatchNorm1d(width)

    def hidden_width(self, block: int, reduction: int) -> int:
        if block < reduction:
            raise OptionError(
                f"{type(self).__name__}: variant='official' has {block} // {reduction} = 0 joint features; "
                "take larger blocks or a smaller reduction"
            )
        return block // reduction

    def reference_names(self) -> Mapping[str, str]:
        return {f"blocks.{i}.": f"blocks.{i}" for i in range(len(self.blocks))}

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The linear maps of all blocks, of which there is one each, joined into one."""
        state = dict(state_dict)
        for i, split in enumerate(self.blocks):
            assert isinstance(split, SplitAttention)
            for kind in ("weight", "bias"):
                names = [f"blocks.{i}.dense_group.{k}.{kind}" for k in range(sum(split.counts))]
                if all(n in state and state[n].shape == state[names[0]].shape for n in names):
                    state[f"blocks.{i}.dense_group.{kind}"] = torch.cat([state.pop(n) for n in names])
        return state
