"""DialogueGCN as declare-lab/conv-emotion @6128ca2 has it, `DialogueGCN/model.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from fusionzoo._options import check_positive
from fusionzoo_adapters.hosts.dialogue_gcn import DialogueGCN
from fusionzoo_adapters.hosts.official.conv_emotion import ConvEmotionHost
from fusionzoo_adapters.hosts.official.slot_edges import GRAPH_NAMES, UNUSED_ATTENTIONS, SlotEdgeAttention, modern_names


class OfficialDialogueGCN(ConvEmotionHost, DialogueGCN):
    """`DialogueGCNModel`, or with `graph=False` an `LSTMModel`, `GRUModel` or `DialogRNNModel`.

    Where the code differs from the paper, this follows the code:

    - edges run from the centre of a window to its neighbours, so that unequal windows are swapped;
    - the row of edge weights of an utterance depends on its absolute position (one of `max_seq_len` slots), the softmax
      runs over time with its padding, and the outgoing edges sum to one;
    - a tanh squashes the scores of the nodal attention, so that no weight can be 7.4 times another, and its result, close
      to the mean of the dialogue, replaces the node;
    - no ReLU after the convolutions, and the second one sums its neighbours;
    - the context encoder reads padding;
    - two recurrent layers; no speaker embedding, and nothing is dropped between the context encoder and the classifier.

    Weights trained with torch-geometric 1.3 and 2.x are both understood. They are those of one stream: they need a single
    modality or an early placement. The fusion, which has no counterpart there, is left as it is.

    Parameters
    ----------
    max_seq_len : position slots of the edge attention.
    edge_norm : False leaves the edge weights out and averages the messages of each relation, which is what the official
        code computes with torch-geometric 2.
    """

    variant = "official"
    preset: ClassVar[Mapping[str, object]] = {"layers": 2}
    fixed: ClassVar[Mapping[str, object]] = {"neighbours": "add"}
    outwards = True
    rectify = False

    def __init__(self, *args, max_seq_len: int = 110, edge_norm: bool = True, **options):
        self.slots = check_positive(max_seq_len, "max_seq_len", self) if edge_norm else 0
        super().__init__(*args, **options)

    def make_edge_attention(self, width: int) -> nn.Module | None:
        return SlotEdgeAttention(width, self.slots) if self.slots else None

    def reference_names(self) -> Mapping[str, str]:
        if self.graph is None:
            return super().reference_names()
        graph = {f"graph_net.{theirs}": f"graph.{ours}" for theirs, ours in GRAPH_NAMES.items()}
        if self.graph.attention is None:
            del graph["graph_net.matchatt."]
        edges = {"att_model.scalar.": "edge_attention.scalar"} if self.slots else {}
        return {**self.encoder_names(), **graph, **edges}

    def reference_unused(self) -> Sequence[str]:
        if self.graph is None:
            return () if self.attention is not None else ("matchatt.",)
        unused = [f"att_model.{name}" for name in (*UNUSED_ATTENTIONS, "scalar.")]
        return [*unused, "graph_net.matchatt."]

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return modern_names(state_dict)
