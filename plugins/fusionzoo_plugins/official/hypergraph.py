"""M3NET's fusion as feiyuchen7/M3NET@4d0fa88cd4 has it, `model_hyper.py:HyperGCN`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fusionzoo.errors import OptionError
from fusionzoo.fusion import Streams
from fusionzoo.graphs import ModalHypergraph, numbered_hypergraph
from fusionzoo_plugins.hypergraph import HypergraphFusion


class OfficialHypergraphFusion(HypergraphFusion):
    """What the published code computes.

    The weights of nodes and hyperedges are free parameters, indexed by the running number of the node or hyperedge in the
    batch, so that the output depends on a dialogue's place in the batch; the hyperedge weight only divides, and hyperedges
    are sums divided by a sum of weights. More nodes than `incidences` or hyperedges than `edges` raise IndexError. Its
    three modalities are in the order text, audio, visual, and absent ones have a node like the others; no attention maps.

    Parameters: edges + incidences in the place of 2 h + M. The weights fit modalities of one width, for there are no
    projections; the embeddings of speakers and modalities there are the host's.
    """

    variant = "official"

    def build_weights(self, hidden: int, edges: int, incidences: int) -> None:
        if len(self.dims) != 3:
            raise OptionError(
                f"HypergraphFusion(variant='official') fuses exactly 3 modalities, got {len(self.dims)} "
                f"({', '.join(self.names)}); the default variant takes any number from two"
            )
        self.tables = _Tables(edges, incidences)

    def nodes_present(self, streams: Streams) -> list[Tensor | None]:
        return [streams.mask] * len(self.dims)

    def hypergraph(self, nodes: Tensor, mask: Tensor | None, presence: Tensor | None) -> ModalHypergraph:
        batch, modalities, steps, _ = nodes.shape
        return numbered_hypergraph(
            self.tables.hyperedge_weight, self.tables.EW_weight, (batch, modalities, steps), mask
        )

    def attention_maps(self, hypergraph: ModalHypergraph) -> dict[str, Tensor]:
        return {}

    def reference_names(self) -> Mapping[str, str]:
        names = {"fc1.": "fc1", "hyperedge_weight": "tables.hyperedge_weight", "EW_weight": "tables.EW_weight"}
        names |= {f"hyperconv{i + 1}.": f"hyperconvs.{i}" for i in range(len(self.hyperconvs))}
        return names | {f"conv{i + 1}.": f"convs.{i}" for i in range(len(self.convs))}

    def reference_unused(self) -> Sequence[str]:
        return "hyperedge_attr", "modal_embeddings.", "speaker_embeddings."

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Without the weights of the hypergraph convolutions that take no part."""
        idle = ("weight", "edgeweight", "edgefc.weight", "edgefc.bias")
        dropped = {f"hyperconv{i + 1}.{k}" for i in range(len(self.hyperconvs)) for k in idle}
        return {k: v for k, v in state_dict.items() if k not in dropped}


class _Tables(nn.Module):
    """The weights by running number."""

    def __init__(self, edges: int, incidences: int):
        super().__init__()
        self.hyperedge_weight = nn.Parameter(torch.ones(edges))
        self.EW_weight = nn.Parameter(torch.ones(incidences))
