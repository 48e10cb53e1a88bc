"""MM-DFN stacks the nodes of all modalities through its dynamic fusion layers and splits them again.

Source: https://github.com/zerohd4869/MM-DFN at da97036606 (MIT), code/model.py and model_mm.py; none of its code is here. The site is the
concatenation after the split. Lengths are `seq_lengths`. Without CUDA and with numpy index arrays (torch 2) the adjacency needs
`fusionzoo.modernise`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repairs import CUDA, NUMPY_INDEX
from fusionzoo.patching.sites import Site
from fusionzoo_adapters.repositories._known import lengths_of, named, stacked_nodes


class MMDFN:
    """`DialogueGNNModel` with the graph types GF and GDF and two or three modalities."""

    layout = "(N, d)"
    repairs = (CUDA, NUMPY_INDEX)

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's names and the parts of the graph model."""
        graph = getattr(model, "graph_model", None)
        return named(model, "DialogueGNNModel", "smax_fc", "modals") and type(graph).__name__ == "MM_GCN"

    @staticmethod
    def site(model: Any) -> Site:
        """The nodes side by side."""
        return stacked_nodes(model)

    @staticmethod
    def context(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The dialogues' lengths."""
        return lengths_of(args, kwargs, 3, "seq_lengths")


fusionzoo_register = fusionzoo.plugin(
    MMDFN,
    kind="adapter",
    summary="MM-DFN: nodes of all modalities side by side, after the dynamic fusion layers",
    paper="MM-DFN: Multimodal Dynamic Fusion Network for Emotion Recognition in Conversations, https://arxiv.org/abs/2203.02385",
    code="https://github.com/zerohd4869/MM-DFN/tree/da97036606",
    modalities=(2, 3),
)
