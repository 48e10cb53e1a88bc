"""Graph-MFN as thuiar/MMSA@a94e65d07f has it, and its weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fusionzoo.reference import check_modalities
from fusionzoo_plugins.graph_mfn import GraphMFN
from fusionzoo_plugins.official.mfn import LETTERS, memory_names
from fusionzoo_plugins.official.mfn import reference_unused as reference_unused


class OfficialGraphMFN(GraphMFN):
    """What the published code computes.

    Every network of the graph is a product of linear maps, and efficacies are not bounded to [0, 1] (the paper's are
    sigmoid). That code also keeps the vertices' networks where neither optimiser nor checkpoint sees them; here they are
    parameters.
    """

    variant = "official"
    linear = True


def reference_names(fusion: GraphMFN) -> Mapping[str, str]:
    """Three modalities, in the order language, audio, visual.

    Checkpoints of that code lack the vertices' networks: they are expected under `nets.0_1.0.` and so on, as
    `DynamicFusionGraph.networks` names them; then all other names may begin with `m.`.
    """
    check_modalities(fusion.names, len(LETTERS), "Graph-MFN")
    graph = fusion.vertex_graph
    networks = {f"nets.{name}.": f"nodes.{name}" for name in graph.nodes}
    networks |= {"graph_mfn.t_network.": "top", "graph_mfn.efficacy_model.": "efficacy"}
    names = memory_names(fusion) | {f"{m}_transform.": f"vertices.{i}" for i, m in enumerate(LETTERS)}
    for prefix, path in networks.items():
        names |= {f"{prefix}0.": f"vertex_graph.{path}.fc1", f"{prefix}1.0.": f"vertex_graph.{path}.fc2"}
    return names | {"graph_mfn.efficacy_model.2.": "vertex_graph.efficacy_out"}


def reference_state(fusion: GraphMFN, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Without the `m.` of the whole official network."""
    return {k.removeprefix("m."): v for k, v in state_dict.items()}
