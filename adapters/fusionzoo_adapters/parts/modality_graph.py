"""What MMGCN and MM-DFN share: contexts per modality, a graph over the utterances of all of them, a fusion, a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.fusion import Dims, Fused, Fusion, MaskLike, projection
from fusionzoo.graphs import GCNII
from fusionzoo.host import FusionLike, Host, HostOutput
from fusionzoo.kernels.dropout import dropout
from fusionzoo.kernels.graph_blocks import propagate
from fusionzoo.kernels.packing import Layout
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import copy_reference_parts, prefixed
from fusionzoo_adapters.parts.context_encoder import ContextEncoder
from fusionzoo_adapters.parts.frontend import named_for
from fusionzoo_adapters.parts.published_fusion import is_named
from fusionzoo_adapters.parts.speaker_recurrence import PartyContext
from fusionzoo_adapters.parts.text_views import mask_of

if TYPE_CHECKING:
    from fusionzoo.batch import Batch
    from fusionzoo_adapters.parts.relational_graph import GraphNetwork
    from fusionzoo_adapters.parts.relational_graph_per_modality import RelationGraphs

GRAPHS = ("modal", "deep", "relation", "none")
CONTEXTS = ("anchor", "all", "none")

#: What modalities are called in the official weights, and their order there.
LETTERS = {"a": "a", "audio": "a", "acoustic": "a", "v": "v", "visual": "v", "video": "v", "l": "l", "text": "l"}
ORDER = "avl"

#: Fusions that the official code has under these prefixes.
_FUSIONS = {"gatedatt.": "pairwise-gated", "mfn.": "mfn", "tfn.": "tfn", "lmf.": "lmf"}


class NodeEmbeddings(nn.Module):
    """Learnt vectors of speakers and of modalities, added to the nodes.

    Parameters
    ----------
    width : of the nodes. speakers : their number, 0 for no embedding of theirs. targets : the nodes, by number, that it is
        added to. rows : every node's row in the embedding of modalities, None for none. table : rows of that embedding
        at least; the official one has three.
    """

    def __init__(
        self,
        width: int,
        speakers: int = 0,
        targets: Sequence[int] = (),
        rows: Sequence[int] | None = None,
        table: int = 0,
    ):
        super().__init__()
        self.targets, self.rows = list(targets), None if rows is None else list(rows)
        self.speaker = nn.Embedding(speakers, width) if speakers and self.targets else None
        self.modal = nn.Embedding(max(table, 1 + max(self.rows)), width) if self.rows else None

    def forward(
        self, xs: Sequence[Tensor], present: Sequence[Tensor], speakers: Tensor, mask: Tensor | None = None
    ) -> list[Tensor]:
        """`(B, T, width)` per node. present, speakers, mask : `(B, T)`; padding is what `mask` leaves out.

        Zero where a node is absent; not at padding, where no graph looks, if `present` is `mask` itself.
        """
        out = list(xs)
        if self.speaker is not None:
            who = self.speaker(speakers)
            for i in self.targets:
                out[i] = out[i] + who
        if self.modal is not None and self.rows is not None:
            out = [x + self.modal.weight[row] for x, row in zip(out, self.rows, strict=True)]
        same = [x is old or p is mask for x, old, p in zip(out, xs, present, strict=True)]
        return [x if kept else zero_padded(x, p) for x, p, kept in zip(out, present, same, strict=True)]


class ModalGCN(nn.Module):
    """The graph of MMGCN and MM-DFN: embeddings of speakers and modalities added to the nodes, and GCNII over them.

    Parameters
    ----------
    width : of the nodes. gcn : further options of `GCNII`. across : weight of the edges across modalities.
    embeddings : options of `NodeEmbeddings`.
    """

    def __init__(self, width: int, gcn: Mapping[str, Any], across: float = 1.0, **embeddings: Any):
        super().__init__()
        self.gcn, self.across = GCNII(width, **gcn), across
        self.embed = NodeEmbeddings(width, **embeddings)

    def forward(
        self,
        xs: Sequence[Tensor],
        present: Sequence[Tensor],
        layout: Layout,
        speakers: Tensor,
        maps: dict[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> list[Tensor]:
        """`[x; h]` per modality, `(B, T, .)`; see `propagate`. speakers : `(B, T)`."""
        return propagate(self.gcn, self.embed(xs, present, speakers, mask), present, layout, self.across, maps, mask)

    def reference_parts(self) -> tuple[dict[str, nn.Module], list[str]]:
        """`{official prefix: module}` of an official `MM_GCN`, and the prefixes of what takes no part there."""
        parts: dict[str, nn.Module] = {"graph_net.fcs.": self.gcn.fcs, "graph_net.convs.": self.gcn.convs}
        if self.gcn.rnn is not None:
            parts["graph_net.rnn."] = self.gcn.rnn
        if self.embed.speaker is not None:
            parts["speaker_embeddings."] = self.embed.speaker
        if self.embed.modal is not None:
            parts["modal_embeddings."] = self.embed.modal
        unused = [f"{m}_{part}." for m in ORDER for part in ("fc", "spk_embs")]
        unused += ["feature_fc.", "final_fc.", "speaker_embeddings.", "modal_embeddings.", "graph_net.rnn."]
        return parts, [u for u in unused if u not in parts]

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load an official `MM_GCN` of MMGCN or MM-DFN."""
        parts, ignored = self.reference_parts()
        copy_reference_parts(parts, modern_lstm(state), ignored)


def modern_lstm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The one-layer LSTM over depth under the names of an LSTM cell."""
    return {k.removesuffix("_l0") if "graph_net" in k and ".rnn." in f".{k}" else k: v for k, v in state.items()}


# -- the host ----------------------------------------------------------------------------------------------------------


class ModalGraphHost(Host):
    """Contexts per modality, a graph, the fusion, a classifier; see `MMGCN` and `MMDFN`, which document the options."""

    placements: ClassVar[tuple[str, ...]] = ("late", "pre-graph", "early")
    variants = ("default", "official")
    #: The recurrence of the contexts where `base` is not given; upstream both are called LSTM.
    recurrence: ClassVar[str] = "lstm"

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike,
        placement: str | None,
        *,
        graph: str,
        anchor: str | None,
        context: str,
        base: str | None,
        base_options: Mapping[str, Any] | None,
        hidden: int,
        layers: int | None,
        input_width: int | None,
        gcn: Mapping[str, Any],
        across: float,
        window_past: int | None,
        window_future: int | None,
        nodal_attention: bool,
        max_seq_len: int,
        speaker_embedding: bool,
        modal_embedding: bool,
        party_weights: Sequence[float] | None,
        dropout: float,
        input_dropout: float,
        fusion_width: int | None,
        variant: str,
    ):
        official = check_choice(variant, self.variants, "variant", self) == "official"
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        self.variant = variant
        self.graph_kind = check_choice(graph, GRAPHS, "graph", self)
        check_choice(context, CONTEXTS, "context", self)
        self.anchor = self.names[0] if anchor is None else check_choice(anchor, self.names, "anchor", self)
        check_probability(dropout, "dropout", self)
        layers = check_positive(layers or (2 if official else 1), "layers", self)
        graph_width = check_positive(gcn["width"], "graph_width", self)
        check_positive(gcn["layers"], "depth", self)
        if isinstance(across, bool) or not isinstance(across, (int, float)) or across < 0:
            raise OptionError(f"{type(self).__name__}: across must be a number from 0 upwards, not {across!r}")
        if fusion_width is not None:
            check_positive(fusion_width, "fusion_width", self)
        width = 2 * check_positive(hidden, "hidden", self)
        # An instance brings its own width; its dims and out_dim are checked where they must fit.
        free = isinstance(fusion, Fusion)
        self.fusion: Fusion | None = None
        self.single = len(self.dims) == 1 or self.placement == "early"
        if len(self.dims) == 1:
            del self.fusion_like
            inputs = dict(self.dims)
        elif self.placement == "early":
            self.fusion = self.make_fusion(self.dims, fusion_width)
            inputs = {"fused": self.fusion.out_dim}
        else:
            inputs = dict(self.dims)
        self.inside = tuple(inputs)
        self.input_dropout = 0.0 if official else check_probability(input_dropout, "input_dropout", self)
        self._build_contexts(inputs, width, context, base, base_options, layers, input_width, dropout)
        self.party_weights = self._weights(party_weights)
        self.parties: PartyContext | None = None
        if any(self.party_weights):
            self.parties = PartyContext(self.read_width, hidden, layers, dropout, bare=official)
        self.join: nn.Module | None = None
        nodes = list(self.inside)
        if self.placement == "pre-graph" and not self.single:
            self.fusion = self.make_fusion(dict.fromkeys(self.dims, width), fusion_width or (None if free else width))
            self.join = projection(self.fusion.out_dim, width)
            nodes.append("fused")
        self.nodes = tuple(nodes)

        self.dropout = dropout
        self.rectify = not official or (self.graph_kind in ("modal", "deep") and not self.single)
        residue = gcn.get("residue", True)
        out_width = graph_width + width if residue or self.graph_kind in ("relation", "none") else graph_width
        self.embed: NodeEmbeddings | None = None
        self.graph: nn.Module | None = None
        self.network: GraphNetwork | None = None
        speakers = self.num_speakers if speaker_embedding else 0
        window = (window_past, window_future)
        targets = range(len(nodes)) if not official else self._anchored()
        rows = self._modal_rows(official) if modal_embedding else None
        options = {**gcn, "dropout": dropout}
        if self.graph_kind == "modal":
            self.graph = ModalGCN(
                width,
                gcn=options,
                across=across,
                speakers=speakers,
                targets=targets,
                rows=rows,
                table=len(ORDER) if official else 0,
            )
        else:
            self._build_other_graph(width, options, window, nodal_attention, max_seq_len, speakers, rows)
            if official and self.single and self.graph_kind == "none":
                out_width = width
        self.node_width = out_width
        joined = out_width * len(nodes)
        if not self.single and self.placement == "late":
            # The summed width by default, so that concatenation is concatenation.
            self.fusion = self.make_fusion(
                dict.fromkeys(self.dims, out_width), fusion_width or (None if free else joined)
            )
            joined = self.fusion.out_dim
        self.classifier = nn.Linear(joined, self.num_classes) if self.network is None else None

    def _build_contexts(
        self,
        inputs: Mapping[str, int],
        width: int,
        context: str,
        base: str | None,
        base_options: Mapping[str, Any] | None,
        layers: int,
        input_width: int | None,
        dropout: float,
    ) -> None:
        """A linear map per stream, and a recurrence for those that have one."""
        official = self.variant == "official"
        self.read_width = width
        if input_width is not None:
            if not self.single or isinstance(input_width, bool) or not isinstance(input_width, int) or input_width < 0:
                raise OptionError(
                    f"{type(self).__name__}: input_width is for a single stream (one modality, or placement='early'): a "
                    f"width, or 0 for no linear map before the context encoder; got {input_width!r} with "
                    f"{', '.join(self.inside)} and placement={self.placement!r}"
                )
            self.read_width = input_width or sum(inputs.values())
        self.inputs = nn.ModuleList(
            nn.Identity() if input_width == 0 else nn.Linear(d, self.read_width) for d in inputs.values()
        )
        recurrent = {"anchor": [self.anchor], "all": list(inputs), "none": []}[context]
        if self.single and context != "none":
            recurrent = list(inputs)
        options = {"tanh": official, **(base_options or {})}
        if not recurrent and self.read_width != width:
            raise OptionError(
                f"{type(self).__name__}: without a context encoder the nodes are what the linear map returns; "
                f"input_width must be {width} (twice hidden), not {input_width}"
            )
        self.contexts = nn.ModuleList(
            ContextEncoder(
                self.read_width,
                width // 2,
                base or self.recurrence,
                layers=layers,
                dropout=dropout,
                parties=self.num_speakers,
                bare=official,
                options=options,
            )
            if m in recurrent
            else nn.Identity()
            for m in inputs
        )

    def _build_other_graph(
        self,
        width: int,
        gcn: Mapping[str, Any],
        window: tuple[int | None, int | None],
        nodal_attention: bool,
        max_seq_len: int,
        speakers: int,
        rows: Sequence[int] | None,
    ) -> None:
        """The graphs without edges across modalities, which have their own weights for each of them."""
        official, count, hidden = self.variant == "official", len(self.nodes), gcn["width"]
        if not official and (speakers or rows):
            # The official code has its embeddings inside the modal graph only.
            self.embed = NodeEmbeddings(width, speakers, range(count), rows)
        if self.graph_kind == "deep":
            self.graph = nn.ModuleList(GCNII(width, **gcn) for _ in range(count))
        elif self.graph_kind == "none":
            self.graph = nn.ModuleList(
                nn.Identity() if official and self.single else nn.Linear(width, hidden) for _ in range(count)
            )
        else:
            # Here and not above: torch-geometric is slow to import and the card must not wait for it.
            from fusionzoo_adapters.parts.relational_graph_per_modality import RelationGraphs, single_network

            relations = 2 * self.num_speakers**2
            if official and self.single:
                self.network = single_network(
                    width, hidden, self.num_classes, relations, gcn["dropout"], nodal_attention
                )
            letters = [LETTERS.get(m.lower(), "") for m in self.nodes]
            self.graph = RelationGraphs(
                width,
                hidden,
                0 if self.network is not None else count,
                relations,
                window,
                max_seq_len,
                official,
                max(range(count), key=lambda i: (ORDER.find(letters[i]), i)),
            )

    def _weights(self, weights: Sequence[float] | None) -> list[float]:
        """One weight per stream of what a speaker's own recurrence adds."""
        count = len(self.inside)
        values = [0.0] * count if weights is None else list(weights)
        if len(values) != count or not all(isinstance(w, (int, float)) for w in values):
            raise OptionError(
                f"{type(self).__name__}: party_weights must be one number per stream ({', '.join(self.inside)}), "
                f"not {weights!r}"
            )
        return [float(w) for w in values]

    def _anchored(self) -> list[int]:
        return [i for i, m in enumerate(self.nodes) if m == self.anchor]

    def _modal_rows(self, official: bool) -> list[int]:
        """The modalities' rows in the table of their embedding; in the official one they have fixed places."""
        letters = [LETTERS.get(m.lower()) for m in self.nodes]
        if official and None not in letters and len(set(letters)) == len(letters):
            return [ORDER.index(m) for m in letters if m is not None]
        return list(range(len(self.nodes)))

    def encode(self, features: dict[str, Tensor | None], mask: MaskLike, batch: Batch) -> HostOutput:
        layout = Layout.of(batch)
        # The surplus of a dialogue with more speakers than the host was built for shares the last one's parameters, and
        # padding may carry any number.
        speakers = batch.speakers.clamp(0, self.num_speakers - 1)
        tensors = [features[m] for m in self.names]
        masks = [mask_of(mask, m, batch.mask) for m in self.names]
        fused: Fused | None = None
        if self.placement == "early" and self.fusion is not None:
            fused = self._fuse(self.fusion, tensors, mask)
            tensors, masks = [fused.fused], [batch.mask]
        present = [torch.zeros_like(batch.mask) if x is None else m for x, m in zip(tensors, masks, strict=True)]
        xs = self._context(tensors, present, layout, batch.mask, speakers)
        if self.join is not None:
            assert self.fusion is not None
            some = [None if given is None else x for given, x in zip(tensors, xs, strict=True)]
            fused = self._fuse(self.fusion, some, mask)
            xs, present = [*xs, zero_padded(self.join(fused.fused), batch.mask)], [*present, batch.mask]
        maps: dict[str, Tensor] | None = {} if self.keep_attention else None
        if self.network is not None:
            z, logits = xs[0], self._network_logits(xs[0], layout, speakers, batch.mask, maps)
            streams = {}
        else:
            ys = self._graph(xs, present, layout, speakers, batch.mask, maps)
            streams = {m: y for m, y, x in zip(self.names, ys, tensors, strict=False) if x is not None}
            if not self.single and self.placement == "late":
                assert self.fusion is not None
                some = [None if given is None else y for given, y in zip(tensors, ys, strict=True)]
                fused = self._fuse(self.fusion, some, mask)
                z = fused.fused
            else:
                z = torch.cat(ys, -1)
            assert self.classifier is not None
            rows = layout.pack(z)
            bare = self.single and self.variant == "official"
            rows = rows if bare else dropout(rows, self.dropout, self.training)
            decided = self.placement == "late" and self.fusion is not None and self.fusion.decides
            logits = layout.unpack(self.classifier(F.relu(rows) if self.rectify and not decided else rows))
        out = HostOutput(logits, {"fused": z}) if fused is None else self.fused_output(fused, logits)
        if self.single and len(self.names) > 1:
            streams = {}
        out.streams = {**streams, **out.streams, "context": z}
        if maps:
            out.attention |= maps
        return out

    def _context(
        self,
        tensors: Sequence[Tensor | None],
        present: Sequence[Tensor],
        layout: Layout,
        mask: Tensor,
        speakers: Tensor,
    ) -> list[Tensor]:
        """The nodes before the graph, `(B, T, width)` per stream; zeros where one is absent."""
        official = self.variant == "official"
        read, xs = [], []
        like = next(x for x in tensors if x is not None)
        for x, there, project, context in zip(tensors, present, self.inputs, self.contexts, strict=True):
            if x is None:
                read.append(None)
                xs.append(None)
                continue
            recurrent = isinstance(context, ContextEncoder)
            if official and (recurrent or self.graph_kind == "relation"):
                # What stands at padded steps is read.
                x = project(x)
            else:
                x = layout.unpack(project(dropout(layout.pack(x), self.input_dropout, self.training)))
                x = zero_padded(x, there) if there is not mask else x
            read.append(x)
            xs.append(context(x, layout, mask, speakers) if recurrent else x)
        if self.parties is not None:
            chosen = [i for i, x in enumerate(read) if x is not None and self.party_weights[i]]
            if chosen:
                own = self.parties([read[i] for i in chosen], mask, speakers, self.num_speakers)  # type: ignore[misc]
                for i, y in zip(chosen, own, strict=True):
                    xs[i] = xs[i] + self.party_weights[i] * y  # type: ignore[operator]
        width = next(x for x in xs if x is not None).shape[-1]
        zeros = like.new_zeros(*mask.shape, width)
        # Officially padded steps keep what the contexts make of them: the edge attention of `relation` reads them.
        kept = [None if there is mask else there | ~mask if official else there for there in present]
        return [zeros if x is None else zero_padded(x, there) for x, there in zip(xs, kept, strict=True)]

    def _graph(
        self,
        xs: Sequence[Tensor],
        present: Sequence[Tensor],
        layout: Layout,
        speakers: Tensor,
        mask: Tensor,
        maps: dict[str, Tensor] | None,
    ) -> list[Tensor]:
        """The nodes after the graph, `(B, T, node_width)` each; zeros where one is absent."""
        if self.graph_kind == "modal":
            assert isinstance(self.graph, ModalGCN)
            return self.graph(xs, present, layout, speakers, maps, mask)
        if self.embed is not None:
            xs = self.embed(xs, present, speakers, mask)
        if self.graph_kind == "relation":
            assert self.graph is not None
            ys, edges = self.graph(xs, layout, speakers, self.num_speakers, mask)
            if maps is not None:
                maps |= {f"edges.{m}": e for m, e in zip(self.nodes, edges, strict=True)}
            return [zero_padded(y, p) for y, p in zip(ys, present, strict=True)]
        assert isinstance(self.graph, nn.ModuleList)
        out = []
        for name, net, x, there in zip(self.nodes, self.graph, xs, present, strict=True):
            if isinstance(net, GCNII):
                own: dict[str, Tensor] | None = None if maps is None else {}
                (y,) = propagate(net, [x], [there], layout, maps=own, mask=mask)
                if maps is not None and own:
                    maps[f"edges.{name}"] = own["edges"][:, 0]
            elif isinstance(net, nn.Identity):
                y = x
            else:
                y = zero_padded(torch.cat([net(x), x], -1), there)
            out.append(y)
        return out

    def _network_logits(
        self, x: Tensor, layout: Layout, speakers: Tensor, mask: Tensor, maps: dict[str, Tensor] | None
    ) -> Tensor:
        """The official DialogueGCN over a single stream."""
        assert self.graph is not None
        assert self.network is not None
        graph: RelationGraphs = self.graph  # type: ignore[assignment]
        edge_index, types, chosen, weights = graph.edges(x, layout, speakers, self.num_speakers, mask)
        logits, nodal = self.network(layout.pack(x), edge_index, types, chosen, layout, mask)
        if maps is not None:
            maps["edges"] = weights
            if nodal is not None:
                maps["nodal"] = nodal
        return logits

    def _fuse(self, fusion: Fusion, tensors: Sequence[Tensor | None], mask: MaskLike) -> Fused:
        return fusion.fuse(list(tensors), named_for(fusion, self.names, mask), attention=self.keep_attention)

    # -- official weights ----------------------------------------------------------------------------------------------

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load an official `DialogueGCNModel` (MMGCN) or `DialogueGNNModel` (MM-DFN) and, where it has one, its fusion.

        Needs `variant="official"`. Late, modalities must be called audio, visual, text (or a, v, l), any two or all; with
        `concat` they may come in any order, other fusions want the official one. A single modality, or an early
        placement, takes the weights of a model with one stream (`concat`).
        """
        state = dict(state_dict)
        parts, ignored = self._reference(state)
        if self.fusion is not None and not self.single:
            for prefix, name in _FUSIONS.items():
                if is_named(self.fusion, name):
                    # Through the fusion's own loader, which knows its names; on a wrong state it raises before the rest.
                    self.fusion.load_reference(prefixed(state, prefix))
        copy_reference_parts(parts, state, [i for i in ignored if i not in parts])

    def _reference(self, state: dict[str, Tensor]) -> tuple[dict[str, nn.Module], list[str]]:
        """Official prefixes of our modules, and those that take no part; `state` gets today's names."""
        if self.variant != "official" or self.placement == "pre-graph":
            raise ReferenceWeightsError(
                f"{type(self).__name__}: official weights fit variant='official' and the placements late and early; this "
                f"host has {self.variant!r} and {self.placement!r}"
            )
        parts: dict[str, nn.Module] = {}
        ignored = ["att_model.", "rnn_parties.", "graph_net.matchatt.", *_FUSIONS]
        if self.parties is not None:
            parts["rnn_parties."] = self.parties.rnn
        letters = [""] if self.single else self._letters()
        for i, letter in enumerate(letters):
            if isinstance(self.inputs[i], nn.Linear):
                parts[f"linear_{letter}."] = self.inputs[i]
            if isinstance(encoder := self.contexts[i], ContextEncoder):
                named = {f"lstm{'_' * bool(letter)}{letter}.": encoder.rnn}
                parts |= named if isinstance(self.inputs[i], nn.Linear) else encoder.reference_parts()
        if self.graph_kind == "relation":
            self._relation_reference(parts, letters, state)
        elif self.graph_kind == "modal":
            assert isinstance(self.graph, ModalGCN)
            if self.single:
                raise ReferenceWeightsError(f"{type(self).__name__}: the official modal graph needs two modalities")
            own, unused = self.graph.reference_parts()
            parts |= {f"graph_model.{k}": v for k, v in own.items()}
            ignored += [f"graph_model.{k}" for k in unused]
        else:
            assert isinstance(self.graph, nn.ModuleList)
            for letter, net in zip(letters, self.graph, strict=True):
                prefix = f"graph_net{'_' * bool(letter)}{letter}."
                if isinstance(net, GCNII):
                    parts |= {f"{prefix}fcs.0.": net.fcs[0], f"{prefix}convs.": net.convs}
                    ignored.append(f"{prefix}rnn.")
                    if net.rnn is not None:
                        parts[f"{prefix}rnn."] = net.rnn
                elif isinstance(net, nn.Linear):
                    parts[prefix] = net
        if self.classifier is not None:
            head = (
                {"deep": "graph_net.fcs.1.", "none": "graph_net."}.get(self.graph_kind, "")
                if self.single
                else "smax_fc."
            )
            parts[head] = self.classifier
        renamed = modern_lstm(state)
        if not self.single and is_named(self.fusion, "concat") and "smax_fc.weight" in renamed:
            renamed["smax_fc.weight"] = self._reordered(renamed["smax_fc.weight"], letters)
        state.clear()
        state.update(renamed)
        return parts, ignored

    def _letters(self) -> list[str]:
        letters = [LETTERS.get(m.lower(), "") for m in self.names]
        if "" in letters or len(set(letters)) != len(letters):
            raise ReferenceWeightsError(
                f"{type(self).__name__}: the official model's modalities are audio, visual and text; this host's are "
                f"{', '.join(self.names)}"
            )
        return letters

    def _reordered(self, weight: Tensor, letters: Sequence[str]) -> Tensor:
        """The classifier's columns, block by block from the official order of the modalities to ours."""
        if weight.shape[1] % len(letters):
            return weight
        official = sorted(letters, key=ORDER.index)
        blocks = weight.chunk(len(letters), 1)
        return torch.cat([blocks[official.index(m)] for m in letters], 1)

    def _relation_reference(
        self, parts: dict[str, nn.Module], letters: Sequence[str], state: dict[str, Tensor]
    ) -> None:
        from fusionzoo_adapters.parts.relational_graph import modern_names

        renamed = modern_names(state)
        state.clear()
        state.update(renamed)
        graph: RelationGraphs = self.graph  # type: ignore[assignment]
        parts["att_model.scalar."] = graph.attention.scalar  # type: ignore[union-attr]
        if self.network is not None:
            parts |= {f"graph_net.{k}": v for k, v in self.network.reference_parts().items()}
        else:
            for letter, net in zip(letters, graph.nets, strict=True):
                parts |= {f"graph_net_{letter}.{k}.": getattr(net, k) for k in ("conv1", "conv2")}
