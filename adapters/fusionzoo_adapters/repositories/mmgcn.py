"""MMGCN stacks the nodes of all modalities through 64 graph layers, or gates pairs of modalities.

Source: https://github.com/hujingwen6666/MMGCN at 85732d984f (no licence stated), model.py and model_mm.py; none of its code is here. With
`graph_type="MMGCN"` the site is the concatenation after the rows are split again; with one graph per modality and
`att_type="gated"` it is the concatenation of the three gated pairs in `MMGatedAttention`, whose streams are called after their
pair. Lengths are `seq_lengths`.

Without CUDA and with numpy index arrays (torch 2) the model needs `fusionzoo.modernise`; with `graph_type="relation"` also for
the edge weights that it hands `RGCNConv`, which torch-geometric has not taken since 1.6 and which are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repairs import CUDA, EDGE_WEIGHTS, NUMPY_INDEX
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site
from fusionzoo_adapters.repositories._known import lengths_of, named, stacked_nodes


class MMGCN:
    """`DialogueGCNModel` of this repository, with its multimodal graph or its gated attention."""

    layout = "(N, d)"
    repairs = (CUDA, NUMPY_INDEX, EDGE_WEIGHTS)

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's names and the parts that join modalities."""
        graph = getattr(model, "graph_model", None)
        return named(model, "DialogueGCNModel", "gatedatt", "smax_fc", "modals") and (
            type(graph).__name__ == "MM_GCN" or (model.att_type == "gated" and len(model.modals) == 3)  # type: ignore[arg-type]
        )

    @classmethod
    def site(cls, model: Any) -> Site:
        """The nodes of the modalities, or the gated pairs, side by side."""
        return cls.pairs(model) if model.att_type == "gated" else stacked_nodes(model)

    @staticmethod
    def pairs(model: Any) -> Site:
        """The three gated pairs."""
        width = model.gatedatt.cand_dim
        streams = [(f"{a}-{b}", width) for a, b in (("audio", "visual"), ("audio", "text"), ("visual", "text"))]
        return declare(model, "gatedatt", [("forward", "torch.cat([h_av, h_al, h_vl]")], streams, layout="(N, d)")

    @staticmethod
    def context(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The dialogues' lengths."""
        return lengths_of(args, kwargs, 3, "seq_lengths")


fusionzoo_register = fusionzoo.plugin(
    MMGCN,
    kind="adapter",
    summary="MMGCN: nodes of all modalities side by side after the graph, or gated pairs",
    paper="MMGCN: Multimodal Fusion via Deep Graph Convolution Network for Emotion Recognition in Conversation, https://arxiv.org/abs/2107.06779",
    code="https://github.com/hujingwen6666/MMGCN/tree/85732d984f",
    modalities=(2, 3),
)
