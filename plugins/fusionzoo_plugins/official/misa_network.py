"""The weights of the whole MISA of thuiar/MMSA@a94e65d07f."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fusionzoo.reference import split_joint, within
from fusionzoo_plugins.misa import MISANetwork
from fusionzoo_plugins.official.misa import LETTERS


def reference_names(network: MISANetwork) -> Mapping[str, str]:
    """The fusion's, its encoders' and the classifier's; modalities in the order text, visual, audio."""
    names = within("fusion", network.fusion.reference_names())
    for letter, modality in zip(LETTERS[1:], network.encoders, strict=False):
        for theirs, ours in (("rnn1", "first"), ("rnn2", "second"), ("layer_norm", "norm")):
            names[f"{letter}{theirs}."] = f"encoders.{modality}.{ours}"
    return names | {"sp_discriminator.sp_discriminator_layer_1.": "classify"}


def reference_unused(network: MISANetwork) -> Sequence[str]:
    """The text encoder, and a norm that nothing uses."""
    return "bertmodel.", "tlayer_norm."


def reference_state(network: MISANetwork, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """With the joint attention weights taken apart."""
    return split_joint(state_dict)
