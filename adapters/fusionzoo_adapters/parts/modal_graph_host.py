"""What MMGCN and MM-DFN are: contexts per modality, a graph over the utterances of all of them, a fusion, a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo._types import Options
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims
from fusionzoo.host import FusionLike, Host
from fusionzoo.kernels.dropout import dropout as drop
from fusionzoo.numerics import zero_padded
from fusionzoo.seams import Dialogues, Streams
from fusionzoo_adapters.parts.context_encoder import ContextEncoder
from fusionzoo_adapters.parts.modality_graph import GCNIIPerModality, MapPerModality, ModalGCN, NodeEmbeddings
from fusionzoo_adapters.parts.speaker_recurrence import PartyContext

GRAPHS = ("modal", "deep", "relation", "none")
CONTEXTS = ("anchor", "all", "none")


class ModalGraphHost(Host):
    """Contexts per modality, a graph, the fusion, a classifier; see `MMGCN` and `MMDFN`, which document the options."""

    placements: ClassVar[tuple[str, ...]] = ("late", "pre-graph", "early")
    #: Whether the recurrences run over padding.
    reads_padding: ClassVar[bool] = False

    without_effect: ClassVar[dict[str, str]] = {
        "window_past": "of graph='relation' alone",
        "window_future": "of graph='relation' alone",
    }

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "concat",
        placement: str | None = None,
        *,
        graph: str = "modal",
        anchor: str | None = None,
        context: str = "anchor",
        base: str = "lstm",
        base_options: Options | None = None,
        hidden: int = 100,
        layers: int = 1,
        input_width: int | None = None,
        speaker_weights: float | Sequence[float] = 0.0,
        graph_width: int = 100,
        depth: int = 4,
        lam: float = 0.5,
        alpha: float = 0.1,
        across: float = 1.0,
        dynamic: bool = False,
        residue: bool = True,
        window_past: int | None = 10,
        window_future: int | None = 10,
        speaker_embedding: bool = True,
        modal_embedding: bool = False,
        dropout: float = 0.4,
        input_dropout: float = 0.2,
        fusion_width: int | None = None,
        variant: str = "default",
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement, fusion_width=fusion_width)
        self.graph_kind = check_choice(graph, GRAPHS, "graph", self)
        self.anchor = self.names[0] if anchor is None else check_choice(anchor, self.names, "anchor", self)
        self.dropout = check_probability(dropout, "dropout", self)
        self.input_dropout = check_probability(input_dropout, "input_dropout", self)
        if isinstance(across, bool) or not isinstance(across, (int, float)) or across < 0:
            raise OptionError(f"{type(self).__name__}: across must be a number from 0 upwards, not {across!r}")
        self.gcn = {
            "width": check_positive(graph_width, "graph_width", self),
            "layers": check_positive(depth, "depth", self),
            **{"lam": lam, "alpha": alpha, "residue": residue, "dynamic": dynamic, "dropout": dropout},
        }
        self.across, self.window = across, (window_past, window_future)
        width = 2 * check_positive(hidden, "hidden", self)

        widths = self.seam("early", self.dims)
        #: One stream: one modality, or features that an early fusion has joined.
        self.single = len(widths) == 1
        recurrence = {
            "base": base,
            "layers": check_positive(layers, "layers", self),
            "options": dict(base_options or {}),
        }
        self.build_contexts(widths, width, check_choice(context, CONTEXTS, "context", self), input_width, recurrence)
        self.party_weights = self._weights_of(speaker_weights, tuple(widths))
        self.parties: PartyContext | None = None
        if any(self.party_weights):
            self.parties = PartyContext(self.read_width, hidden, layers, dropout, reads_padding=self.reads_padding)
        widths = self.seam("pre-graph", dict.fromkeys(widths, width), width, kind="beside")
        self.nodes = tuple(widths)
        self.embed: NodeEmbeddings | None = None
        self.graph = self.make_graph(width, speaker_embedding, modal_embedding)
        widths = self.seam("late", dict.fromkeys(self.nodes, self.node_width(width)), "sum")
        self.classifier = self.make_classifier(sum(widths.values()))

    # -- parts ---------------------------------------------------------------------------------------------------------

    def build_contexts(
        self, widths: Mapping[str, int], width: int, context: str, input_width: int | None, recurrence: dict[str, Any]
    ) -> None:
        """A linear map per stream, and a recurrence for those that have one."""
        self.read_width = self._read_width(widths, width, input_width)
        self.inputs = nn.ModuleList(
            nn.Identity() if input_width == 0 else nn.Linear(d, self.read_width) for d in widths.values()
        )
        recurrent = list(widths) if context == "all" or (self.single and context == "anchor") else [self.anchor]
        recurrent = [] if context == "none" else recurrent
        if not recurrent and self.read_width != width:
            raise OptionError(
                f"{type(self).__name__}: without a context encoder the nodes are what the linear map returns; "
                f"input_width must be {width} (twice hidden), not {input_width}"
            )
        recurrence["options"] = {"tanh": self.reads_padding, **recurrence["options"]}
        shared = {
            "dropout": self.dropout,
            "parties": self.num_speakers,
            "reads_padding": self.reads_padding,
            **recurrence,
        }
        self.contexts = nn.ModuleList(
            ContextEncoder(self.read_width, width // 2, **shared) if m in recurrent else nn.Identity() for m in widths
        )

    def make_graph(self, width: int, speakers: bool, modalities: bool) -> nn.Module:
        """The graph over `self.nodes`, with embeddings of the speakers and of the modalities added to its nodes."""
        count, parties = len(self.nodes), self.num_speakers if speakers else 0
        rows = range(count) if modalities else None
        if self.graph_kind == "modal":
            return ModalGCN(width, self.gcn, self.across, speakers=parties, targets=range(count), rows=rows)
        if parties or rows:
            self.embed = NodeEmbeddings(width, parties, range(count), rows)
        if self.graph_kind == "deep":
            return GCNIIPerModality(self.nodes, width, self.gcn)
        if self.graph_kind == "none":
            return MapPerModality(count, width, self.gcn["width"])
        # Here and not above: torch-geometric is slow to import and the card must not wait for it.
        from fusionzoo_adapters.parts.relational_graph_per_modality import RelationGraphs

        return RelationGraphs(self.nodes, width, self.gcn["width"], self.num_speakers, self.window)

    def node_width(self, width: int) -> int:
        """Width of a node after the graph."""
        keeps = self.gcn["residue"] or self.graph_kind in ("relation", "none")
        return self.gcn["width"] + width * bool(keeps)

    def make_classifier(self, width: int) -> nn.Module | None:
        """The classifier."""
        return nn.Linear(width, self.num_classes)

    def _read_width(self, widths: Mapping[str, int], width: int, input_width: int | None) -> int:
        """Width of what the recurrences read."""
        if input_width is None:
            return width
        if not self.single or isinstance(input_width, bool) or not isinstance(input_width, int) or input_width < 0:
            raise OptionError(
                f"{type(self).__name__}: input_width is for a single stream (one modality, or placement='early'): a "
                f"width, or 0 for no linear map before the context encoder; got {input_width!r} with "
                f"{', '.join(widths)} and placement={self.placement!r}"
            )
        return input_width or sum(widths.values())

    def _weights_of(self, weights: float | Sequence[float], streams: tuple[str, ...]) -> list[float]:
        """One weight per stream of what a speaker's own recurrence adds."""
        if isinstance(weights, str):
            raise OptionError(
                f"{type(self).__name__}: speaker_weights must be a number, or one per modality, not {weights!r}; the "
                "published '3-0-1' is (3, 0, 1) for modalities in the order audio, visual, text"
            )
        values = [weights] * len(streams) if isinstance(weights, (int, float)) else list(weights)
        if len(values) != len(streams) or not all(isinstance(w, (int, float)) for w in values):
            raise OptionError(
                f"{type(self).__name__}: speaker_weights must be one number per stream ({', '.join(streams)}), "
                f"not {weights!r}"
            )
        return [float(w) for w in values]

    # -- running -------------------------------------------------------------------------------------------------------

    def run(self, streams: dict[str, Tensor | None], dialogues: Dialogues) -> Tensor:
        nodes: Streams = self.encode_nodes(self.fuse_at("early", streams, dialogues), dialogues)
        related = self.relate(self.fuse_at("pre-graph", nodes, dialogues), dialogues)
        x = torch.cat([y for y in self.fuse_at("late", related, dialogues).values() if y is not None], -1)
        dialogues.show({m: y for m, y in related.items() if m in self.names and m not in dialogues.missing})
        dialogues.show({"fused": x})
        dialogues.streams["context"] = x
        return self.classify(x, dialogues)

    def encode_nodes(self, streams: Streams, dialogues: Dialogues) -> dict[str, Tensor]:
        """The nodes before the graph, `(B, T, width)` per stream; zeros where one is absent."""
        packing, mask, present = dialogues.packing, dialogues.mask, dialogues.present
        read: dict[str, Tensor] = {}
        nodes: dict[str, Tensor] = {}
        for (m, x), project, context in zip(streams.items(), self.inputs, self.contexts, strict=True):
            if x is not None:
                recurrent = isinstance(context, ContextEncoder)
                read[m] = x = self.project(x, project, present[m], recurrent, dialogues)
                nodes[m] = context(x, packing, mask, dialogues.speakers) if recurrent else x
        weights = dict(zip(streams, self.party_weights, strict=True))
        said = [m for m in read if weights[m]]
        if self.parties is not None and said:
            own = self.parties([read[m] for m in said], mask, dialogues.speakers, self.num_speakers)
            nodes |= {m: nodes[m] + weights[m] * y for m, y in zip(said, own, strict=True)}
        width = next(iter(nodes.values())).shape[-1]
        zeros = next(x for x in streams.values() if x is not None).new_zeros(*mask.shape, width)
        return {m: self.kept(nodes[m], present[m], mask) if m in nodes else zeros for m in streams}

    def project(self, x: Tensor, linear: nn.Module, present: Tensor, recurrent: bool, dialogues: Dialogues) -> Tensor:
        """What a recurrence, or where there is none the graph, reads of a stream."""
        packing = dialogues.packing
        x = packing.unpack(linear(drop(packing.pack(x), self.input_dropout, self.training)))
        return x if present is dialogues.mask else zero_padded(x, present)

    def kept(self, node: Tensor, present: Tensor, mask: Tensor) -> Tensor:
        """What the graph may see of a node."""
        return zero_padded(node, present)

    def relate(self, nodes: Streams, dialogues: Dialogues) -> dict[str, Tensor]:
        """The nodes after the graph, `(B, T, node_width)` each; zeros where one is absent."""
        xs = [x for x in nodes.values() if x is not None]
        present = [dialogues.present[m] for m in self.nodes]
        maps: dict[str, Tensor] | None = {} if self.keep_attention else None
        if self.embed is not None:
            xs = self.embed(xs, present, dialogues.speakers, dialogues.mask)
        ys = self.graph(xs, present, dialogues.packing, dialogues.speakers, maps, dialogues.mask)
        dialogues.show_attention(**(maps or {}))
        return dict(zip(self.nodes, ys, strict=True))

    def classify(self, x: Tensor, dialogues: Dialogues) -> Tensor:
        """Logits from what the classifier reads."""
        assert self.classifier is not None
        rows = drop(dialogues.packing.pack(x), self.dropout, self.training)
        return dialogues.packing.unpack(self.classifier(F.relu(rows) if self.rectifies() else rows))

    def rectifies(self) -> bool:
        """Whether ReLU comes before the classifier; what is a log-probability, never positive, is left as it is."""
        return not (self.placement == "late" and self.fusion is not None and self.fusion.decides)
