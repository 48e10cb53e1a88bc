"""MemoCMT as tpnam0901/MemoCMT@d3248703e7 has it, `src/models/networks.py`, and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Streams
from fusionzoo.reference import attention_names, split_joint
from fusionzoo_plugins.memo_cmt import MemoCMT


class OfficialMemoCMT(MemoCMT):
    """What the published code computes: there are no masks, so that padding is read and pooled.

    The third attention that it builds and never uses is left out.
    """

    variant = "official"

    def masks(self, streams: Streams) -> list[Tensor | None]:
        return [None] * len(streams.x)


def reference_names(fusion: MemoCMT) -> Mapping[str, str]:
    """Two modalities of one width, text first; the first reading is text's, asked for by audio."""
    if len(fusion.dims) != 2 or any(isinstance(p, nn.Linear) for p in fusion.project):
        raise ReferenceWeightsError(
            f"the official MemoCMT fuses two modalities of one width without projecting them, this one "
            f"{dict(fusion.dims)} at width {fusion.width}; build it for two of that width"
        )
    names: dict[str, str] = {}
    for i, name in enumerate(("text", "audio")):
        names |= attention_names(f"{name}_attention.", f"readings.{i}.attention")
        names |= {f"{name}_linear.": f"readings.{i}.linear", f"{name}_layer_norm.": f"readings.{i}.norm"}
    return names


def reference_unused(fusion: MemoCMT) -> Sequence[str]:
    """The third attention, encoders and head; the host memo-cmt loads the head too."""
    return "fusion_", "text_encoder.", "audio_encoder.", "linear_", "classifer."


def reference_state(fusion: MemoCMT, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """With the joint attention weights taken apart."""
    return split_joint(state_dict)
