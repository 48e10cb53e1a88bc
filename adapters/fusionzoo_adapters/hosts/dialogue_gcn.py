"""DialogueGCN: a sequential context encoder, then a graph over the utterances of a window."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike
from fusionzoo.seams import Dialogues
from fusionzoo_adapters.parts.classifier import DialogueAttention, Head
from fusionzoo_adapters.parts.context_host import ContextHost
from fusionzoo_adapters.parts.dialogue_rnn import state_options
from fusionzoo_adapters.parts.window_graph import check_window


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
    EMNLP 2019; code declare-lab/conv-emotion @6128ca2, `DialogueGCN`.

    Departures from the paper: both attentions divide their scores by :math:`\sqrt d` (unscaled, the softmax over wide
    contexts saturates), the nodal attention is a residual, the second convolution averages its neighbours
    (`neighbours="add"` sums them), and contexts know who speaks (`speaker_embedding`).

    Parameters
    ----------
    dims, num_classes, num_speakers, fusion : as for every host.
    placement : `late-skip` (an encoder per modality, a linear map of what it reads added, then the fusion, then the graph),
        `late` (without the linear map), `early` (the fusion, then one context encoder), or `early-residual` (as `early`, plus
        a linear map of the concatenated features).
    base : context encoder: `lstm`, `gru`, `dialogue-rnn`, or `none` for a linear map.
    hidden : its width per direction; the nodes have twice that.
    layers : depth of `lstm` and `gru`.
    graph : False leaves the graph out: contexts, attention, classifier.
    graph_width : width of the convolutions.
    bases : of the relational convolution; None: a free matrix per relation.
    window_past, window_future : neighbours on each side; None for all.
    neighbours : `mean`, or `add` as in the paper: how the second convolution joins them.
    nodal_attention : attention over the dialogue before the classifier.
    head_width : hidden width of the classifier; None for `graph_width`.
    dropout : between recurrent layers, on the contexts, on what the fusion returns and in the classifier.
    input_dropout : on what the context encoder reads.
    speaker_embedding : width of a learnt vector per speaker that the context encoder reads too; True is 16.
    fusion_width : width of what the fusion returns; None is the anchor's if it comes early, the
        summed width of the contexts if late.
    global_width, party_width, listener_state, context_attention, attention_width : of the base `dialogue-rnn`.
    variant : `default`, or the form of the authors' code.

    Shapes: features `(B, T, d_m)` to logits `(B, T, C)`; attention `nodal` and `edges` `(B, T, T)`.
    """

    variants: ClassVar[dict[str, str]] = {
        "official": "fusionzoo_adapters.hosts.official.dialogue_gcn:OfficialDialogueGCN"
    }
    #: Whether edges go from the centre of a window to its neighbours, and whether ReLU follows the convolutions.
    outwards: ClassVar[bool] = False
    rectify: ClassVar[bool] = True

    without_effect: ClassVar[dict[str, str]] = {
        "global_width": "of base='dialogue-rnn' alone",
        "party_width": "of base='dialogue-rnn' alone",
        "listener_state": "of base='dialogue-rnn' alone",
        "attention_width": "of base='dialogue-rnn' alone",
    }

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
        layers: int = 1,
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
        variant: str = "default",
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement, fusion_width=fusion_width)
        width = self.build_contexts(
            hidden,
            base=base,
            layers=check_positive(layers, "layers", self),
            dropout=dropout,
            input_dropout=input_dropout,
            speaker_embedding=speaker_embedding,
            options={
                **state_options(self, global_width, party_width, listener_state, context_attention, attention_width),
                "tanh": self.reads_padding,
            },
        )
        self.window = (check_window(window_past, "window_past"), check_window(window_future, "window_future"))
        head = check_positive(head_width or graph_width, "head_width", self)
        self.graph: nn.Module | None = None
        self.edge_attention: nn.Module | None = None
        self.attention: DialogueAttention | None = None
        if not graph:
            self.attention = DialogueAttention(width, **self.matching) if nodal_attention else None
            self.head = Head(width, head, self.num_classes, dropout)
            return
        # Here and not above: torch-geometric is slow to import and the card of this host must not wait for it.
        from fusionzoo_adapters.parts.relational_graph import GraphNetwork

        self.edge_attention = self.make_edge_attention(width)
        self.graph = GraphNetwork(
            width,
            check_positive(graph_width, "graph_width", self),
            self.num_classes,
            2 * self.num_speakers**2,
            head_width=head,
            bases=None if bases is None else check_positive(bases, "bases", self),
            dropout=dropout,
            nodal_attention=nodal_attention,
            neighbours=neighbours,
            rectify=self.rectify,
            matching=self.matching,
        )

    def make_edge_attention(self, width: int) -> nn.Module | None:
        """What weighs the edges; without it the messages of each relation are averaged."""
        from fusionzoo_adapters.parts.relational_graph import EdgeAttention

        return EdgeAttention(width)

    def run(self, streams: dict[str, Tensor | None], dialogues: Dialogues) -> Tensor:
        x = self.contexts(streams, dialogues)
        if self.graph is not None:
            return self._graph_logits(self.graph, x, dialogues)
        return self.head(self.attended(x, self.attention, "nodal", dialogues))

    def _graph_logits(self, graph: nn.Module, x: Tensor, dialogues: Dialogues) -> Tensor:
        from fusionzoo_adapters.parts.relational_graph import graph_inputs
        from fusionzoo_adapters.parts.window_graph import window_edges, window_mask

        packing, mask, weights = dialogues.packing, dialogues.mask, None
        if self.edge_attention is not None:
            window = window_mask(x.shape[1], *self.window, mask)
            weights = self.edge_attention(x, window)[:, : x.shape[1]]
        speakers = packing.pack(dialogues.speakers)
        edges = window_edges(packing, *self.window)
        inputs = graph_inputs(edges, weights, speakers, self.num_speakers, outwards=self.outwards)
        logits, nodal = graph(packing.pack(x), *inputs, packing, mask)
        dialogues.show_attention(edges=weights, nodal=nodal)
        return logits


fusionzoo_register = fusionzoo.plugin(
    DialogueGCN,
    summary="context encoder, then a relational graph over a window of utterances, with nodal attention",
    paper="DialogueGCN, https://aclanthology.org/D19-1015",
    code="https://github.com/declare-lab/conv-emotion/tree/6128ca20e9/DialogueGCN",
    level="dialogue",
)
