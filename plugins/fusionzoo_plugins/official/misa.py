"""The weights of MISA as thuiar/MMSA@a94e65d07f and declare-lab/MISA have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fusionzoo.reference import attention_names, check_modalities, split_joint
from fusionzoo_plugins.misa import MISA

#: Official name of the modalities in their official order: text, visual, audio.
LETTERS = "tva"


def reference_names(fusion: MISA) -> Mapping[str, str]:
    """Three modalities, given in the official order text, visual, audio."""
    check_modalities(fusion.names, len(LETTERS), "MISA")
    layer = "transformer_encoder.layers.0."
    names = {
        f"{layer}norm1.": "transformer.norm1",
        f"{layer}norm2.": "transformer.norm2",
        f"{layer}linear1.": "transformer.feed.fc1",
        f"{layer}linear2.": "transformer.feed.fc2",
        "shared.shared_1.": "shared",
        "fusion.fusion_layer_1.": "head.fc1",
        "fusion.fusion_layer_3.": "head.fc2",
    }
    for i, letter in enumerate(LETTERS):
        names |= {
            f"project_{letter}.project_{letter}.": f"project.{i}.0",
            f"project_{letter}.project_{letter}_layer_norm.": f"project.{i}.2",
            # The audio's is called _3.
            f"private_{letter}.private_{letter}_{3 if letter == 'a' else 1}.": f"private.{i}",
            f"recon_{letter}.recon_{letter}_1.": f"restore.{i}",
        }
    if fusion.discriminator is not None:
        names |= {f"discriminator.discriminator_layer_{i}.": f"discriminator.fc{i}" for i in (1, 2)}
    return names | attention_names(f"{layer}self_attn.", "transformer.attention")


def reference_unused(fusion: MISA) -> Sequence[str]:
    """What stands before the projections, and the classifier of shared and private parts, which no loss reads.

    `MISANetwork` takes them too, but for BERT and a norm that nothing uses.
    """
    return "bertmodel.", "tlayer_norm.", "vrnn", "arnn", "vlayer_norm.", "alayer_norm.", "sp_discriminator."


def reference_state(fusion: MISA, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """With the joint attention weights taken apart."""
    return split_joint(state_dict)
