"""CFN-SR's block as skeletonNN/CFN-SR@2443494729 has it, `networks/msaf_ravdess_ab_1.py`, and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo_plugins.cfn_sr import CFNSR, CrossModalBlock


class OfficialCFNSR(CFNSR):
    """What the published code computes.

    The maps of all samples of a batch are added up and the sum is applied to each, so that a sample's output depends on
    its batch; and a guide's step whose first feature is exactly zero is taken for padding. It has the bias of w, which a
    softmax does not see.
    """

    variant = "official"


class OfficialCrossModalBlock(CrossModalBlock):
    """The block of `OfficialCFNSR`."""

    variant = "official"
    zero_is_padding = True
    score_bias = True

    def applied(self, weights: Tensor) -> Tensor:
        return weights.sum(0, keepdim=True)


def reference_names(block: CrossModalBlock) -> Mapping[str, str]:
    """`CrossModalAttentionLayer`, which has one guide; without `spatial` nothing of it is read."""
    if not block.spatial:
        return {"channel_affine.": ""}
    if len(block.encoders) != 1:
        raise ReferenceWeightsError(
            f"the official block has one guide, this one has {len(block.encoders)}; build it for two modalities"
        )
    return {
        "channel_affine.": "channel_affine",
        "y_affine.": "y_affine.0",
        "audio_attention.layers.": "encoders.0.layers",
        "audio_attention.layer_norm.": "encoders.0.layer_norm",
        "attn_weight_affine.": "attn_weight_affine",
    }


def reference_unused(block: CrossModalBlock) -> Sequence[str]:
    """Buffers that hold nothing; without `spatial` all of it."""
    if not block.spatial:
        return "y_affine.", "audio_attention.", "attn_weight_affine."
    return "audio_attention.version", "audio_attention.embed_positions."


def reference_state(block: CrossModalBlock, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Without the bias of w where there is none."""
    return {k: v for k, v in state_dict.items() if k != "attn_weight_affine.bias" or block.score_bias}
