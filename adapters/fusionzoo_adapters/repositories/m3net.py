"""M3NET joins the features of its two graphs' nodes, modality by modality, in `reverse_features`.

Source: https://github.com/feiyuchen7/M3NET at 4d0fa88cd4 (no licence stated), model.py and model_hyper.py; none of its code is here. The
site is the last concatenation, after hypergraph and high-frequency graph; the lists `[text; audio; visual]` of each dialogue
before them are sites too, found by `find_sites`. Lengths are `seq_lengths`.

`fusionzoo.modernise` sees to the hard-coded `.cuda` calls and to `HypergraphConv`, which hands `propagate` a size against its
flow. What the repository imports (torch_scatter, `topk` of an old torch-geometric, ipdb) has to be there before: no instance
exists yet that could be modernised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

import fusionzoo
from fusionzoo.patching.repairs import CUDA, HYPERGRAPH_SIZE
from fusionzoo.patching.repositories import declare
from fusionzoo.patching.sites import Site
from fusionzoo_adapters.repositories._known import lengths_of, named


class M3NET:
    """`Model` with `graph_type="hyper"` and three modalities."""

    layout = "(N, d)"
    repairs = (CUDA, HYPERGRAPH_SIZE)

    @staticmethod
    def recognise(model: nn.Module) -> bool:
        """Told by the class's names and the parts of the hypergraph model."""
        graph = getattr(model, "graph_model", None)
        return (
            named(model, "Model", "smax_fc", "linear_a", "linear_v")
            and type(graph).__name__ == "HyperGCN"
            and len(model.modals) == 3  # type: ignore[arg-type]
        )

    @staticmethod
    def site(model: Any) -> Site:
        """What both graphs made of the three modalities."""
        width = model.smax_fc.in_features // 3
        streams = [("text", width), ("audio", width), ("visual", width)]
        steps = [("reverse_features", "torch.cat([tmpl, tmpa, tmpv]")]
        return declare(model, "graph_model", steps, streams, layout="(N, d)")

    @staticmethod
    def context(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The dialogues' lengths."""
        return lengths_of(args, kwargs, 3, "seq_lengths")


fusionzoo_register = fusionzoo.plugin(
    M3NET,
    kind="adapter",
    summary="M3NET: nodes of three modalities side by side, after hypergraph and graph",
    paper="Multivariate, Multi-Frequency and Multimodal: Rethinking Graph Neural Networks for Emotion Recognition in Conversation, CVPR 2023",
    code="https://github.com/feiyuchen7/M3NET/tree/4d0fa88cd4",
    modalities=(3, 3),
)
