"""DialogueGCN: a sequential context encoder, then a graph over the utterances of a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, MaskLike
from fusionzoo.host import FusionLike, HostOutput
from fusionzoo.reference import copy_reference_parts
from fusionzoo_adapters.parts.classifier import DialogueAttention, Head
from fusionzoo_adapters.parts.frontend import Context, ContextHost
from fusionzoo_adapters.parts.reference import need_official

if TYPE_CHECKING:
    from fusionzoo.batch import Batch


class DialogueGCN(ContextHost):
    r"""Context encoder, relational graph over a window of utterances, nodal attention and classifier.

    With contexts :math:`g_i` and the window :math:`N(i)` of `window_past` utterances before to `window_future` after i:

    .. math::
        \alpha_{ij} = \operatorname{softmax}_{j \in N(i)} g_i^\top W_e g_j / \sqrt{d}, \qquad
        h_i = \sigma\Big(\sum_{j \in N(i)} \alpha_{ij} W_{r(i,j)} g_j + W_0 g_i\Big), \qquad
        h'_i = \sigma\Big(\tfrac{1}{|N(i)|} \sum_{j \in N(i)} W h_j + W' h_i\Big)

    then matching attention of every :math:`[g_i; h'_i]` over the dialogue, and a two-layer classifier. The relation
    r(i, j) is one of :math:`2 P^2`: both speakers, and whether j comes before i; :math:`W_r` is a mixture of `bases`.

    Source: Ghosal et al., "DialogueGCN: A Graph Convolutional Neural Network for Emotion Recognition in Conversation",
    EMNLP 2019; official code declare-lab/conv-emotion @6128ca2, `DialogueGCN`.

    Where the code differs from the paper, `variant="default"` follows the paper and `official` the code:

    - edges bring the neighbours to the centre, so that `window_past` is the receiver's past; officially they run the
      other way, so that unequal windows are swapped;
    - the weights come from the two utterances and sum to one over the incoming edges; officially the row of an
      utterance depends on its absolute position (one of `max_seq_len` slots), the softmax runs over time with its
      padding, and the outgoing edges sum to one;
    - the nodal attention's scores are bilinear, and its result is added to the node; officially a tanh squashes the
      scores, so that no weight can be 7.4 times another, and the result, close to the mean of the dialogue, replaces it;
    - ReLU after the convolutions; officially none;
    - the context encoder does not read padding; officially it does.

    Departures of the default from the paper too: both attentions divide their scores by :math:`\sqrt d` (unscaled, the
    softmax over wide contexts saturates), the nodal attention is a residual, the second convolution averages its
    neighbours (`neighbours="add"` sums them), and contexts know who speaks (`speaker_embedding`).

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `early` (the fusion, then one context encoder), `early-residual` (as `early`, plus a linear map of the
        concatenated features), or `late` (an encoder per modality, then the fusion, then the graph).
    base : context encoder: `lstm`, `gru`, `dialogue-rnn`, or `none` for a linear map.
    hidden, layers : its width a direction (the nodes have twice that), and the depth of `lstm` and `gru`: None is 1,
        with `official` 2.
    graph : False leaves the graph out: contexts, attention, classifier.
    graph_width, bases : width of the convolutions, and bases of the relational one (None: a free matrix per relation).
    window_past, window_future : neighbours on each side; None for all.
    neighbours : `mean`, or `add` as in paper and code: how the second convolution joins them; `official` always adds.
    nodal_attention : attention over the dialogue before the classifier.
    head_width : hidden width of the classifier; None for `graph_width`.
    dropout : between recurrent layers, on the contexts, on what the fusion returns and in the classifier; officially
        only between layers and in the classifier. input_dropout : on what the context encoder reads.
    speaker_embedding : width of a learnt vector per speaker that the context encoder reads too; True is 16.
    fusion_width : width of what the fusion returns; None is the anchor's if it comes early, the
        summed width of the contexts if late.
    global_width, party_width, listener_state, context_attention, attention_width : of the base `dialogue-rnn`.
    max_seq_len : position slots of the official edge attention.
    edge_norm : only with `official`: False leaves the edge weights out and averages the messages of each relation,
        which is what the official code computes with torch-geometric 2.
    variant : `default` or `official`, see above.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; attention `nodal` and `edges` `(B, T, T)`.
    """

    variants = ("default", "official")
    placements: ClassVar[tuple[str, ...]] = ("late", "early", "early-residual")

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "concat",
        placement: str | None = None,
        *,
        base: str = "lstm",
        hidden: int = 100,
        layers: int | None = None,
        graph: bool = True,
        graph_width: int = 100,
        bases: int | None = 30,
        window_past: int | None = 10,
        window_future: int | None = 10,
        neighbours: str = "mean",
        nodal_attention: bool = True,
        head_width: int | None = None,
        dropout: float = 0.4,
        input_dropout: float = 0.2,
        speaker_embedding: int | bool = True,
        fusion_width: int | None = None,
        global_width: int = 150,
        party_width: int = 150,
        listener_state: bool = False,
        context_attention: str = "general",
        attention_width: int = 100,
        max_seq_len: int = 110,
        edge_norm: bool = True,
        variant: str = "default",
    ):
        official = check_choice(variant, self.variants, "variant", self) == "official"
        check_probability(dropout, "dropout", self)
        if not edge_norm and not official:
            raise OptionError(
                "edge_norm=False belongs to variant='official'; the default variant always weighs its edges"
            )
        recurrence = {
            "global_width": check_positive(global_width, "global_width", self),
            "party_width": check_positive(party_width, "party_width", self),
            "listener_state": listener_state,
            "context_attention": context_attention,
            "attention_width": check_positive(attention_width, "attention_width", self),
            # The copy of general2 in the official DialogueGCN has a tanh that DialogueRNN's own has not.
            "tanh": official,
        }
        super().__init__(
            dims,
            num_classes,
            num_speakers,
            fusion,
            placement,
            encoder={
                "base": base,
                "layers": check_positive(layers or (2 if official else 1), "layers", self),
                "dropout": dropout,
                "bare": official,
                "options": recurrence,
            },
            hidden=hidden,
            input_dropout=input_dropout,
            speaker_embedding=False if official else speaker_embedding,
            fusion_width=fusion_width,
            # The official hosts drop nothing between the context encoder and the classifier.
            context_dropout=0.0 if official else dropout,
        )
        self.variant = variant
        self.window = (_window(window_past, "window_past"), _window(window_future, "window_future"))
        width, head = self.context_width, head_width or graph_width
        self.graph: nn.Module | None = None
        self.edge_attention: nn.Module | None = None
        self.attention: DialogueAttention | None = None
        self.head: Head | None = None
        if not graph:
            self.attention = DialogueAttention(width, official) if nodal_attention else None
            self.head = Head(width, head, self.num_classes, dropout)
            return
        # Here and not above: torch-geometric is slow to import and the card of this host must not wait for it.
        from fusionzoo_adapters.parts.relational_graph import EdgeAttention, GraphNetwork, SlotEdgeAttention

        if edge_norm:
            self.edge_attention = SlotEdgeAttention(width, max_seq_len) if official else EdgeAttention(width)
        self.graph = GraphNetwork(
            width,
            check_positive(graph_width, "graph_width", self),
            self.num_classes,
            2 * self.num_speakers**2,
            head_width=check_positive(head, "head_width", self),
            bases=None if bases is None else check_positive(bases, "bases", self),
            dropout=dropout,
            nodal_attention=nodal_attention,
            neighbours="add" if official else neighbours,
            official=official,
        )

    def encode(self, features: dict[str, Tensor | None], mask: MaskLike, batch: Batch) -> HostOutput:
        context = self.contextualize(features, mask, batch)
        if self.graph is not None:
            logits, maps = self._graph_logits(context, batch.mask)
            return self.output(context, logits, maps)
        assert self.head is not None
        x, maps = context.x, {}
        if self.attention is not None:
            x, maps["nodal"] = self.attention.over(x, batch.mask)
        return self.output(context, self.head(x), maps)

    def _graph_logits(self, context: Context, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        from fusionzoo_adapters.parts.relational_graph import graph_inputs
        from fusionzoo_adapters.parts.window_graph import window_edges, window_mask

        assert self.graph is not None
        x, layout, maps, weights = context.x, context.layout, {}, None
        if self.edge_attention is not None:
            window = window_mask(x.shape[1], *self.window, mask)
            weights = self.edge_attention(x, window)[:, : x.shape[1]]
            maps["edges"] = weights
        edge_index, types, chosen = graph_inputs(
            window_edges(layout, *self.window),
            weights,
            layout.pack(context.speakers),
            self.num_speakers,
            outwards=self.variant == "official",
        )
        logits, nodal = self.graph(layout.pack(x), edge_index, types, chosen, layout, mask)
        if nodal is not None:
            maps["nodal"] = nodal
        return logits, maps

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load an official `DialogueGCNModel`, or with `graph=False` an `LSTMModel`, `GRUModel` or `DialogRNNModel`.

        Weights trained with torch-geometric 1.3 and 2.x are both understood. Needs `variant="official"` and one context
        encoder: a single modality or an early placement. The fusion, which has no counterpart there, is left as it is.
        """
        parts = dict(need_official(self).reference_parts())
        state, ignored = dict(state_dict), []
        if self.graph is not None:
            from fusionzoo_adapters.parts.relational_graph import (
                UNUSED_ATTENTIONS,
                GraphNetwork,
                SlotEdgeAttention,
                modern_names,
            )

            assert isinstance(self.graph, GraphNetwork)
            state = modern_names(state)
            parts |= {f"graph_net.{prefix}": module for prefix, module in self.graph.reference_parts().items()}
            ignored = [f"att_model.{name}" for name in UNUSED_ATTENTIONS]
            if isinstance(self.edge_attention, SlotEdgeAttention):
                parts["att_model.scalar."] = self.edge_attention.scalar
            else:
                ignored.append("att_model.scalar.")
            if self.graph.attention is None:
                ignored.append("graph_net.matchatt.")
        else:
            assert self.head is not None
            parts |= self.head.reference_parts()
            if self.attention is not None:
                parts["matchatt."] = self.attention
            else:
                ignored.append("matchatt.")
        copy_reference_parts(parts, state, ignored)


def _window(value: int | None, option: str) -> int | None:
    """A window side; None and the official code's -1 mean all."""
    if value is None or value == -1:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"{option} must be a number of utterances, 0 or more, or None for all; got {value!r}")
    return value


fusionzoo_register = fusionzoo.plugin(
    DialogueGCN,
    summary="context encoder, then a relational graph over a window of utterances, with nodal attention",
    paper="DialogueGCN, https://aclanthology.org/D19-1015",
    code="https://github.com/declare-lab/conv-emotion/tree/6128ca20e9/DialogueGCN",
    level="dialogue",
)
