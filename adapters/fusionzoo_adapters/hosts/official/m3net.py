"""M3NET as feiyuchen7/M3NET @4d0fa88cd4 has it, `model.py` and `model_hyper.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fusionzoo._options import check_positive
from fusionzoo.errors import ReferenceWeightsError, ShapeError
from fusionzoo.graphs import ModalHypergraph, numbered_hypergraph
from fusionzoo.kernels.grouped_attention import TORCH_NAMES, GroupedTransformer, Tokens
from fusionzoo.kernels.packing import Packing
from fusionzoo.seams import Dialogues, Streams
from fusionzoo_adapters.hosts.m3net import M3Net
from fusionzoo_adapters.hosts.official.cogmen import rename_transformers
from fusionzoo_adapters.hosts.official.concatenation import letters_of, padded_nodes
from fusionzoo_adapters.parts.text_views import averaged


class Tables(nn.Module):
    """Weights of hyperedges and nodes by their running number in the batch, under their official names."""

    def __init__(self, edges: int, nodes: int):
        super().__init__()
        self.hyperedge_weight = nn.Parameter(torch.ones(edges))
        self.EW_weight = nn.Parameter(torch.ones(nodes))

    def check(self, edges: int, nodes: int) -> None:
        """Raise `ShapeError` when a batch has more than the tables."""
        if edges > len(self.hyperedge_weight) or nodes > len(self.EW_weight):
            raise ShapeError(
                f"a batch of {edges} hyperedges and {nodes} nodes does not fit the tables of the official M3NET, "
                f"{len(self.hyperedge_weight)} and {len(self.EW_weight)}; take smaller batches, larger max_edges and "
                "max_nodes, or variant='default', which has no such limit"
            )


class OfficialM3Net(M3Net):
    """What the published code does differently, with `graph_type="hyper"` and `att_type="concat_DHT"`, the ones that run.

    - Weights of hyperedges and nodes are tables indexed by running number in the batch, so that an utterance's weights
      depend on its place there, and a batch is limited to `max_edges` hyperedges and `max_nodes` nodes.
    - Recurrent encoders, the transformer and the norms of the views read padding.
    - The embedding of the speaker is added to text alone, after its encoder.
    - No dropout on the nodes; by default none on the features, no nodes beside what the branches make of them, and twice
      the widths. The transformer's feed-forward width is 2048.
    - Modalities that were not recorded are nodes like others.

    The official weights are those of text, audio and visual in this order (`modals="avl"`) and of the fusion `concat`,
    late. Parts that exist upstream and are not used there are left out.

    Parameters
    ----------
    max_edges, max_nodes : sizes of the tables.
    """

    variant = "official"
    preset: ClassVar = {"hidden": 512, "input_dropout": 0.0, "residue": False}
    reads_padding = True
    feed_forward = 2048
    #: What upstream calls the modalities, in the order of `dims`.
    letters: ClassVar[str] = "lav"

    def __init__(self, *args, max_edges: int = 1000, max_nodes: int = 5200, **options):
        self.sizes = check_positive(max_edges, "max_edges", self), check_positive(max_nodes, "max_nodes", self)
        super().__init__(*args, **options)

    def build_speakers(self, wanted: bool) -> nn.Embedding | None:
        self.tables = Tables(*self.sizes)  # here, where optimizers know their parameters
        return super().build_speakers(wanted)

    def build_weights(self, width: int, modalities: int) -> None:
        pass

    def averaged_views(self, streams: Streams, dialogues: Dialogues) -> dict[str, Tensor | None]:
        return averaged(self.views, streams, {m: torch.ones_like(x) for m, x in dialogues.present.items()})

    def encode_stream(self, number: int, x: Tensor, dialogues: Dialogues) -> Tensor:
        x = self.context(number, self.maps[number](x), dialogues)
        return x if number or self.speakers is None else x + self.speakers(dialogues.speakers)

    def hypergraph(self, nodes: Tensor, presence: Tensor, dialogues: Dialogues) -> ModalHypergraph:
        batch, modalities, steps, _ = nodes.shape
        total = sum(dialogues.packing.lengths)
        self.tables.check(total + modalities * batch, total * modalities)
        edges, weights = self.tables.hyperedge_weight, self.tables.EW_weight
        return numbered_hypergraph(edges, weights, (batch, modalities, steps), dialogues.mask)

    def tokens(self, packing: Packing) -> Tokens:
        return Tokens(packing, stand_in=True)

    def nodes(self, streams: Streams, dialogues: Dialogues) -> list[Tensor]:
        return padded_nodes(self, streams, dialogues)

    def presence(self, names: list[str], dialogues: Dialogues) -> Tensor:
        return dialogues.mask.unsqueeze(-1).expand(-1, -1, len(names))

    def drop_nodes(self, x: Tensor) -> Tensor:
        return x

    # -- official weights ----------------------------------------------------------------------------------------------

    def reference_names(self) -> Mapping[str, str]:
        letters = letters_of(self, self.letters)
        if len(letters) != len(self.letters):
            raise ReferenceWeightsError(f"M3Net: the official model has 3 modalities, this host has {len(letters)}")
        names = {"smax_fc.": "out", "graph_model.fc1.": "node_map", "graph_model.tables.": "tables"}
        names |= {f"linear_{m}.": f"maps.{i}" for i, m in enumerate(letters) if isinstance(self.maps[i], nn.Linear)}
        for i, (m, encoder) in enumerate(zip(letters, self.encoders, strict=False)):
            rnn = "" if isinstance(encoder, GroupedTransformer) else ".rnn"
            names[self.prefix(m)] = f"encoders.{i}{rnn}"
        optional = {"graph_model.speaker_embeddings.": "speakers", "graph_model.modal_embeddings.": "modes"}
        names |= {k: path for k, path in optional.items() if getattr(self, path) is not None}
        names |= {f"graph_model.hyperconv{i + 1}.": f"hyper.{i}" for i in range(len(self.hyper))}
        names |= {f"graph_model.conv{i + 1}.": f"frequency.{i}" for i in range(len(self.frequency))}
        norms = [] if self.views is None else list(self.views.norms)
        kinds = ["B" if isinstance(norm, nn.BatchNorm1d) else "L" for norm in norms]
        views = enumerate(zip(kinds, "abcdefgh", strict=False))
        return names | {f"norm{kind}N{letter}.": f"views.norms.{i}" for i, (kind, letter) in views}

    def reference_unused(self) -> Sequence[str]:
        unused = ["hidfc.", "graph_model.hyperedge_attr", *(f"norm{k}N{x}." for k in "BL" for x in "abcd")]
        unused += [f"linear_{m}." for m in self.letters]
        unused += ["graph_model.speaker_embeddings.", "graph_model.modal_embeddings."]
        # The transformers of the other modalities exist upstream whether they are used or not.
        return [*unused, *(self.prefix(m) for m in self.letters if self.base == "transformer")]

    def prefix(self, letter: str) -> str:
        """Of the encoder of a modality."""
        return f"{'trans' if self.base == 'transformer' else self.base}_{letter}."

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        state = dict(state_dict)
        for letter, encoder in zip(self.letters, self.encoders, strict=False):
            if isinstance(encoder, GroupedTransformer):
                prefix = self.prefix(letter)
                layer = {k: state.pop(k) for k in list(state) if k.startswith(prefix)}
                state |= {f"{prefix}layers.0.{k.removeprefix(prefix)}": v for k, v in layer.items()}
                rename_transformers(state, encoder, [prefix], prefix, TORCH_NAMES)
        modes = "graph_model.modal_embeddings.weight"
        if modes in state:
            state[modes] = state[modes].roll(1, 0)  # the official table is in the order a, v, l
        for k in ("hyperedge_weight", "EW_weight"):
            if f"graph_model.{k}" in state:
                state[f"graph_model.tables.{k}"] = state.pop(f"graph_model.{k}")
        for i in range(len(self.hyper)):
            for k in ("weight", "edgeweight", "edgefc.weight", "edgefc.bias"):
                state.pop(f"graph_model.hyperconv{i + 1}.{k}", None)
        return state
