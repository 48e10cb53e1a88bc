"""CORECT joins what its relational graph makes of each modality, utterance by utterance.

Source: https://github.com/leson502/CORECT_EMNLP2023 at 96ad0127f2 (no licence stated), corect/model/CORECT.py, GraphModel.py and
functions.py; none of its code is here. The site is `multi_concat` as the graph model calls it: the same function is called once
before, for a result that nobody reads. The encoder returns text, audio, visual and its caller names them audio, text, visual;
the order here is the true one. Lengths are `data["text_len_tensor"]`. `forward` returns labels; train through `get_loss` after
`model.forward = model.get_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site
from fusionzoo_adapters.repositories._known import given, named


class CORECT:
    """The model with its graph and all three modalities."""

    layout = "(N, d)"

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's name, the encoder and the graph model."""
        return named(model, "CORECT", "encoder", "graph_model", "clf") and bool(model.n_modals == 3)

    @staticmethod
    def site(model: Any) -> Site:
        """The nodes of the three modalities side by side, after the graph."""
        gnn = model.graph_model.gnn
        width = gnn.bn.num_features if hasattr(gnn, "bn") else gnn.conv1.out_channels
        return declare(
            model,
            "graph_model",
            [("forward", "multi_concat("), ("multi_concat", "torch.cat(feature, dim=-1)")],
            [("text", width), ("audio", width), ("visual", width)],
            layout="(N, d)",
        )

    @staticmethod
    def context(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The dialogues' lengths."""
        data = given(args, kwargs, 0, "data")
        return {} if data is None else {"lengths": data["text_len_tensor"]}


fusionzoo_register = fusionzoo.plugin(
    CORECT,
    kind="adapter",
    summary="CORECT: nodes of three modalities side by side, after the relational graph",
    paper="Conversation Understanding using Relational Temporal Graph Neural Networks with Auxiliary Cross-Modality Interaction, https://arxiv.org/abs/2311.04507",
    code="https://github.com/leson502/CORECT_EMNLP2023/tree/96ad0127f2",
    modalities=(3, 3),
)
