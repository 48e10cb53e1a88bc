"""MMGCN as hujingwen6666/MMGCN@85732d984f has it, and MM-DFN as zerohd4869/MM-DFN@da97036606, which is built upon it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from fusionzoo._options import check_positive
from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.graphs import GCNII
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import prefixed
from fusionzoo.seams import Dialogues, Streams
from fusionzoo_adapters.hosts.mm_dfn import MMDFN
from fusionzoo_adapters.hosts.mmgcn import MMGCN
from fusionzoo_adapters.hosts.official.conv_emotion import ConvEmotionHost, encoder_names
from fusionzoo_adapters.hosts.official.slot_edges import GRAPH_NAMES, SlotEdgeAttention, modern_names
from fusionzoo_adapters.parts.context_encoder import ContextEncoder
from fusionzoo_adapters.parts.modal_graph_host import ModalGraphHost
from fusionzoo_adapters.parts.modality_graph import GCNIIPerModality, MapPerModality, ModalGCN
from fusionzoo_adapters.parts.published_fusion import is_named

if TYPE_CHECKING:
    from fusionzoo_adapters.parts.relational_graph_per_modality import RelationGraphs

#: What modalities are called in the official weights, and their order there.
LETTERS = {"a": "a", "audio": "a", "acoustic": "a", "v": "v", "visual": "v", "video": "v", "l": "l", "text": "l"}
ORDER = "avl"

#: Fusions that the official code has under these prefixes.
FUSIONS = {"gatedatt.": "pairwise-gated", "mfn.": "mfn", "tfn.": "tfn", "lmf.": "lmf"}

#: Entries of an `MM_GCN` that take no part there.
MODAL_UNUSED = (
    *(f"{m}_{part}." for m in ORDER for part in ("fc", "spk_embs")),
    *("feature_fc.", "final_fc.", "speaker_embeddings.", "modal_embeddings.", "graph_net.rnn."),
)


def modal_names(graph: ModalGCN) -> dict[str, str]:
    """The entries of an official `MM_GCN`, and where a `ModalGCN` has them."""
    names = {"graph_net.fcs.": "gcn.fcs", "graph_net.convs.": "gcn.convs"}
    optional = {"graph_net.rnn.": "gcn.rnn", "speaker_embeddings.": "embed.speaker", "modal_embeddings.": "embed.modal"}
    has = (graph.gcn.rnn, graph.embed.speaker, graph.embed.modal)
    return names | {k: v for (k, v), module in zip(optional.items(), has, strict=True) if module is not None}


def modern_lstm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The one-layer LSTM over depth under the names of an LSTM cell."""
    return {k.removesuffix("_l0") if "graph_net" in k and ".rnn." in f".{k}" else k: v for k, v in state.items()}


class NoGraph(nn.Module):
    """What the official code has with one stream and no graph: the nodes as they are."""

    def forward(self, xs: Sequence[Tensor], *_: object) -> list[Tensor]:
        return list(xs)


class OfficialModalGraph(ModalGraphHost):
    """What both repositories have in common that differs from ours.

    All recurrences read padding; only the anchor's nodes know who speaks, and only those of the graph `modal`; ReLU comes
    before the classifier with the graphs `modal` and `deep` of several streams alone. With one stream the graph `relation`
    has DialogueGCN's nodal attention and classifier, and `none` maps nothing.
    """

    reads_padding = True
    fixed: ClassVar[Mapping[str, object]] = {"input_dropout": 0.0}

    def __init__(self, *args, nodal_attention: bool = True, max_seq_len: int = 110, **options):
        self.nodal_attention, self.slots = nodal_attention, check_positive(max_seq_len, "max_seq_len", self)
        super().__init__(*args, **options)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def make_graph(self, width: int, speakers: bool, modalities: bool) -> nn.Module:
        count = len(self.nodes)
        self.network: nn.Module | None = None
        if self.graph_kind == "modal":
            return ModalGCN(
                width,
                self.gcn,
                self.across,
                speakers=self.num_speakers if speakers else 0,
                targets=[i for i, m in enumerate(self.nodes) if m == self.anchor],
                rows=self._rows() if modalities else None,
                table=len(ORDER),
            )
        if self.graph_kind == "deep":
            return GCNIIPerModality(self.nodes, width, self.gcn)
        if self.graph_kind == "none":
            return NoGraph() if self.single else MapPerModality(count, width, self.gcn["width"])
        return self._relation_graphs(width)

    def _relation_graphs(self, width: int) -> nn.Module:
        from fusionzoo_adapters.parts.relational_graph import GraphNetwork
        from fusionzoo_adapters.parts.relational_graph_per_modality import BASES, RelationGraphs

        if self.single:
            self.network = GraphNetwork(
                width,
                self.gcn["width"],
                self.num_classes,
                2 * self.num_speakers**2,
                bases=BASES,
                dropout=self.dropout,
                nodal_attention=self.nodal_attention,
                rectify=False,
                matching=ConvEmotionHost.matching,
            )
        letters = [LETTERS.get(m.lower(), "") for m in self.nodes]
        return RelationGraphs(
            () if self.single else self.nodes,
            width,
            self.gcn["width"],
            self.num_speakers,
            self.window,
            attention=SlotEdgeAttention(width, self.slots),
            # The weights of the last modality computed overwrite those of the others.
            weighing=max(range(len(letters)), key=lambda i: (ORDER.find(letters[i]), i)),
            outwards=True,
            neighbours="add",
            rectify=False,
        )

    def _rows(self) -> list[int]:
        """The modalities' rows in the table of their embedding, where they have fixed places."""
        letters = [LETTERS.get(m.lower()) for m in self.nodes]
        if None not in letters and len(set(letters)) == len(letters):
            return [ORDER.index(m) for m in letters if m is not None]
        return list(range(len(self.nodes)))

    def node_width(self, width: int) -> int:
        return width if self.single and self.graph_kind == "none" else super().node_width(width)

    def make_classifier(self, width: int) -> nn.Module | None:
        return None if self.network is not None else super().make_classifier(width)

    # -- running -------------------------------------------------------------------------------------------------------

    def project(self, x: Tensor, linear: nn.Module, present: Tensor, recurrent: bool, dialogues: Dialogues) -> Tensor:
        # What stands at padded steps is read.
        if recurrent or self.graph_kind == "relation":
            return linear(x)
        return super().project(x, linear, present, recurrent, dialogues)

    def kept(self, node: Tensor, present: Tensor, mask: Tensor) -> Tensor:
        # Padded steps keep what the contexts make of them: the edge attention of `relation` reads them.
        return node if present is mask else zero_padded(node, present | ~mask)

    def relate(self, nodes: Streams, dialogues: Dialogues) -> dict[str, Tensor]:
        if self.network is not None:
            return {m: x for m, x in nodes.items() if x is not None}
        return super().relate(nodes, dialogues)

    def classify(self, x: Tensor, dialogues: Dialogues) -> Tensor:
        packing = dialogues.packing
        if self.network is not None:
            graph: RelationGraphs = self.graph  # type: ignore[assignment]
            *edges, weights = graph.edges(x, packing, dialogues.speakers, dialogues.mask)
            logits, nodal = self.network(packing.pack(x), *edges, packing, dialogues.mask)
            dialogues.show_attention(edges=weights, nodal=nodal)
            return logits
        if not self.single:
            return super().classify(x, dialogues)
        assert self.classifier is not None
        return packing.unpack(self.classifier(packing.pack(x)))

    def rectifies(self) -> bool:
        return self.graph_kind in ("modal", "deep") and super().rectifies()

    # -- weights -------------------------------------------------------------------------------------------------------

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load a `DialogueGCNModel` (MMGCN) or `DialogueGNNModel` (MM-DFN) and, where it has one, its fusion.

        Late, modalities must be called audio, visual, text (or a, v, l), any two or all; with `concat` they may come in any
        order, other fusions want the official one. A single modality, or an early placement, takes the weights of a model
        with one stream (`concat`).

        Raises
        ------
        ReferenceWeightsError : the host differs from that model, or an entry is missing, unknown or of another shape.
        """
        self.reference_names()
        if self.fusion is not None and not self.single:
            for prefix, name in FUSIONS.items():
                if is_named(self.fusion, name):
                    # Through the fusion's own loader, which knows its names; on a wrong state it raises before the rest.
                    self.fusion.load_reference(prefixed(state_dict, prefix))
        super().load_reference(state_dict)

    def reference_names(self) -> Mapping[str, str]:
        if self.placement == "pre-graph":
            raise ReferenceWeightsError(
                f"{type(self).__name__}: official weights fit the placements late and early; this host has {self.placement!r}"
            )
        letters = [""] if self.single else self._letters()
        names = {"rnn_parties.": "parties.rnn"} if self.parties is not None else {}
        for i, letter in enumerate(letters):
            mapped, context = isinstance(self.inputs[i], nn.Linear), self.contexts[i]
            if mapped:
                names[f"linear_{letter}."] = f"inputs.{i}"
            if isinstance(context, ContextEncoder):
                lstm = {f"lstm{_suffix(letter)}.": f"contexts.{i}.rnn"}
                names |= lstm if mapped else encoder_names(context, f"contexts.{i}")
        names |= self._graph_names(letters)
        if self.classifier is not None:
            alone = {"deep": "graph_net.fcs.1.", "none": "graph_net."}
            names[alone.get(self.graph_kind, "") if self.single else "smax_fc."] = "classifier"
        return names

    def _graph_names(self, letters: Sequence[str]) -> dict[str, str]:
        if self.graph_kind == "modal":
            if self.single:
                raise ReferenceWeightsError(f"{type(self).__name__}: the official modal graph needs two modalities")
            assert isinstance(self.graph, ModalGCN)
            return {f"graph_model.{theirs}": f"graph.{ours}" for theirs, ours in modal_names(self.graph).items()}
        if self.network is not None:
            names = {f"graph_net.{theirs}": f"network.{ours}" for theirs, ours in GRAPH_NAMES.items()}
            if not self.nodal_attention:
                del names["graph_net.matchatt."]
            return {"att_model.scalar.": "graph.attention.scalar", **names}
        if self.graph_kind == "relation":
            convs = [(i, m, k) for i, m in enumerate(letters) for k in ("conv1", "conv2")]
            names = {f"graph_net_{m}.{k}.": f"graph.nets.{i}.{k}" for i, m, k in convs}
            return {"att_model.scalar.": "graph.attention.scalar", **names}
        names = {}
        for i, (letter, net) in enumerate(zip(letters, self.graph.children(), strict=False)):
            prefix = f"graph_net{_suffix(letter)}."
            if isinstance(net, GCNII):
                names |= {f"{prefix}fcs.0.": f"graph.{i}.fcs.0", f"{prefix}convs.": f"graph.{i}.convs"}
                names |= {f"{prefix}rnn.": f"graph.{i}.rnn"} if net.rnn is not None else {}
            else:
                names[prefix] = f"graph.{i}"
        return names

    def reference_unused(self) -> Sequence[str]:
        unused = ["att_model.", "rnn_parties.", "graph_net.matchatt.", *FUSIONS]
        unused += [f"graph_net{_suffix(letter)}.rnn." for letter in ("", *ORDER)]
        unused += [f"graph_model.{k}" for k in MODAL_UNUSED]
        names = self.reference_names()
        return [u for u in unused if u not in names]

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        state = modern_lstm(modern_names(state_dict) if self.graph_kind == "relation" else state_dict)
        if not self.single and is_named(self.fusion, "concat") and "smax_fc.weight" in state:
            state["smax_fc.weight"] = self._reordered(state["smax_fc.weight"])
        return state

    def _letters(self) -> list[str]:
        letters = [LETTERS.get(m.lower(), "") for m in self.names]
        if "" in letters or len(set(letters)) != len(letters):
            raise ReferenceWeightsError(
                f"{type(self).__name__}: the official model's modalities are audio, visual and text; this host's are "
                f"{', '.join(self.names)}"
            )
        return letters

    def _reordered(self, weight: Tensor) -> Tensor:
        """The classifier's columns, block by block from the official order of the modalities to ours."""
        letters = self._letters()
        if weight.shape[1] % len(letters):
            return weight
        official = sorted(letters, key=ORDER.index)
        blocks = weight.chunk(len(letters), 1)
        return torch.cat([blocks[official.index(m)] for m in letters], 1)


def _suffix(letter: str) -> str:
    return f"_{letter}" if letter else ""


class OfficialMMGCN(OfficialModalGraph, MMGCN):
    """`DialogueGCNModel` and `MM_GCN`.

    Where the code differs from the paper, this follows the code:

    - the text's nodes alone know who speaks, and with the graph `modal` only;
    - the context encoder reads padding, in both directions;
    - with the graph `relation`, all modalities' edges are weighed by the text's nodes, whose weights overwrite the others,
      and what `dialogue-gcn` says of its official edges holds; no ReLU before the classifier, as with `none`;
    - 64 layers are built whatever the command line says (`depth` says it here); two recurrent layers; no dropout of inputs;
    - a single stream has a classifier without ReLU and dropout.

    Parameters
    ----------
    nodal_attention : of the graph `relation` with a single stream, as in `dialogue-gcn`.
    max_seq_len : position slots of the edge attention of `relation`.
    """

    variant = "official"
    preset: ClassVar[Mapping[str, object]] = {"layers": 2, "depth": 64}


class OfficialMMDFN(OfficialModalGraph, MMDFN):
    """`DialogueGNNModel` and `MM_GCN`.

    It differs from the default in this:

    - all recurrences read padding: the speakers' one the zeros up to the padded length, which follow each speaker's
      utterances, so that what comes out depends on the longest dialogue of the batch;
    - two recurrent layers, 16 layers of the graph, no dropout of inputs;
    - the speakers' embedding, which is off unless asked for, is added to the text's nodes alone.

    Its graph type `GF` builds this graph without memory and then overwrites it with one that fails: `dynamic=False` here.

    Parameters
    ----------
    nodal_attention, max_seq_len : of the graph `relation`, as for `mmgcn`.
    """

    variant = "official"
    preset: ClassVar[Mapping[str, object]] = {"layers": 2, "depth": 16}
