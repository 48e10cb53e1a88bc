"""MemoCMT as tpnam0901/MemoCMT@d3248703e7 has it, `src/models/networks.py`, and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.reference import split_joint, within
from fusionzoo_adapters.hosts.memo_cmt import MemoCMT
from fusionzoo_adapters.parts.published_fusion import is_named


class OfficialMemoCMT(MemoCMT):
    """What the published code computes.

    There are no masks anywhere behind the encoders: what is padded is read and pooled, so that an utterance depends on its
    batch (published with batches of one, where this makes no difference). The encoders mask. The third attention, which is
    never used (2,954,496 parameters), is left out.
    """

    variant = "official"
    masked = False


def reference_names(host: MemoCMT) -> Mapping[str, str]:
    """Fusion and head of `MemoCMT`, or of one modality the head of `TextOnly` or `AudioOnly`."""
    names = {f"linear_{i}.": f"head.hidden.{i}" for i in range(len(host.head.hidden))}
    names["classifer."] = "head.classifier"  # spelt so
    if host.fusion is None:
        return names
    if not is_named(host.fusion, host.own):
        raise ReferenceWeightsError(f"the official weights are those of fusion='{host.own}'")
    return names | within("fusion", host.fusion.reference_names())


def reference_unused(host: MemoCMT) -> Sequence[str]:
    """The encoders, frozen and the pretrained ones, under other names: ours come from `encoders`; an attention."""
    encoders = ("text_encoder.", "audio_encoder.")
    return encoders if host.fusion is None else (*encoders, "fusion_")


def reference_state(host: MemoCMT, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """With the joint attention weights taken apart."""
    return split_joint(state_dict)
