"""AFF and iAFF as YimianDai/open-aff@0bcfd8a1b0 has them, `aff_pytorch/aff_net/fusion.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.fusion import Fused, Streams
from fusionzoo_plugins.aff import AFF


class OfficialAFF(AFF):
    """What the published code computes.

    Batch norm over all rows, padding included, and exactly w // reduction hidden features. y is twice the sum in AFF, and
    the second round of iAFF uses the first round's G. The official weights have two modalities and `context="both"`.
    """

    variant = "official"

    def norm(self, width: int) -> nn.Module:
        return nn.BatchNorm1d(width)

    def hidden_width(self, reduction: int) -> int:
        if self.width < reduction:
            raise OptionError(
                f"AFF: variant='official' has {self.width} // {reduction} = 0 hidden features; take a larger width or a "
                "smaller reduction"
            )
        return self.width // reduction

    def global_rounds(self, iterations: int) -> int:
        return 1

    def combine(self, streams: Streams) -> Fused:
        out = super().combine(streams)
        out.fused = 2 * out.fused if self.iterations == 1 else out.fused
        return out

    def reference_names(self) -> Mapping[str, str]:
        if len(self.names) != 2 or self.context != "both":
            raise ReferenceWeightsError(
                "the official weights are those of AFF(variant='official') with two modalities and context='both'; build "
                "it that way to load them"
            )
        names = {"local_att.": "local_maps.0.net", "global_att.": "global_maps.0.net"}
        return names | ({"local_att2.": "local_maps.1.net"} if self.iterations == 2 else {})

    def reference_unused(self) -> Sequence[str]:
        return ("global_att2.",) if self.iterations == 2 else ()

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        state: dict[str, Tensor] = {}
        for name, tensor in state_dict.items():
            branch, _, rest = name.partition(".")
            place, _, entry = rest.partition(".")
            if branch.startswith("global_att") and place.isdigit():
                place = str(int(place) - 1)  # its first entry is the pooling
            state[f"{branch}.{place}.{entry}"] = tensor.flatten(1) if tensor.dim() == 4 else tensor
        return state
