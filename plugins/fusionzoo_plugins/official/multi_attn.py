"""MultiAttn as TaoShi1998/MultiEMO-ACL2023@e96458b870 has it, `Model/MultiAttn.py`, and its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Streams
from fusionzoo_plugins.multi_attn import BidirectionalAttention, MultiAttn, MultiAttnLayer

_HEAD = re.compile(r"(.*)attention_heads\.(\d+)\.(query|key|value)_matrix\.(weight|bias)")


class OfficialMultiAttn(MultiAttn):
    """What the published code computes: nothing is masked, and padded utterances are read.

    Its weights have three modalities, text, audio and visual in the order of `dims`, all of `width` features.
    """

    variant = "official"

    def masks(self, streams: Streams) -> list[Tensor | None]:
        return [None] * len(streams.x)


def reference_state(
    layer: MultiAttn | MultiAttnLayer | BidirectionalAttention, state_dict: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """The maps of an attention's heads, of which there is one each, joined into one."""
    out: dict[str, Tensor] = {}
    split: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state_dict.items():
        head = _HEAD.fullmatch(name)
        if head:
            prefix, number, part, kind = head.groups()
            split.setdefault(f"{prefix}{part}_matrix.{kind}", {})[int(number)] = tensor
        else:
            out[name] = tensor
    for name, parts in split.items():
        if sorted(parts) != list(range(layer.heads)) or len({t.shape for t in parts.values()}) > 1:
            shapes = {h: tuple(t.shape) for h, t in sorted(parts.items())}
            raise ReferenceWeightsError(
                f"the official {name} has heads of the shapes {shapes}, this layer was built with heads={layer.heads}; "
                "build it with the number of heads that the weights were trained with"
            )
        out[name] = torch.cat([parts[h] for h in range(layer.heads)])
    return out
