"""CORECT as leson502/CORECT_EMNLP2023 @96ad0127f2 has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusionzoo.kernels.bands import Band
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.grouped_attention import MULT_NAMES, Tokens
from fusionzoo.kernels.packing import Packing
from fusionzoo.seams import Dialogues, Streams
from fusionzoo_adapters.hosts.corect import Corect
from fusionzoo_adapters.hosts.official.cogmen import (
    UNUSED,
    OfficialSequenceEncoder,
    classifier_names,
    rename_transformers,
    score_by_seven,
)
from fusionzoo_adapters.hosts.official.concatenation import letters_of, padded_nodes

#: What upstream calls the modalities, in the order in which their letters are handed out.
MODALITIES = {"a": "audio", "t": "text", "v": "vision"}
GRAPH = {
    "speaker_embedding.": "speakers",
    "graph_model.gnn.conv1.": "convolution",
    "graph_model.gnn.conv2.": "attention",
    "graph_model.gnn.bn.": "norm",
    "pairs.": "cross",
    "memories.": "memory",
}


class OfficialCorect(Corect):
    """What the published code does differently.

    - Edges run from the centre of a window to its neighbours, and the last step is left out, so that 1 is the utterance
      alone and 0 takes its edge to itself away.
    - All attention, in the encoder or across modalities, reads padding.
    - The encoder's transformer has norms after its blocks, the width of the features and a feed-forward block of 2048.
    - A batch norm after the graph, which in training makes an output depend on the batch.
    - Modalities that were not recorded are nodes and keys like others.
    - No dropout on the encodings and across modalities, and by default none on the features; 7 heads of the graph.

    It hands text and audio on under each other's name, which changes nothing but the names.

    The official weights are those of modalities among text, audio and visual in this order, and of the fusion `concat`,
    late. `graph=False` is `no_gnn`, `crossmodal=False` no `use_crossmodal`, and so on; a model without text needs
    `base="mlp"`.
    """

    variant = "official"
    preset: ClassVar = {"heads": 7, "input_dropout": 0.0}
    graph_norm = nn.BatchNorm1d

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.context_dropout = Dropout(0.0)

    def build_encoder(self, width: int, *, inner: int | None = None, **options: Any) -> OfficialSequenceEncoder:
        return OfficialSequenceEncoder(width, self.hidden, inner=inner or None, **options)

    def crossmodal_dropout(self) -> float:
        return 0.0

    def band(self, packing: Packing) -> Band:
        past, future = self.window
        itself = future is None or future > 0
        return Band(packing, None if future is None else max(future - 1, 0), past, itself)

    def tokens(self, packing: Packing) -> Tokens:
        return Tokens(packing, stand_in=True)

    def nodes(self, streams: Streams, dialogues: Dialogues) -> list[Tensor]:
        return padded_nodes(self, streams, dialogues)

    def presence(self, names: list[str], dialogues: Dialogues) -> Tensor | None:
        return None

    def reference_names(self) -> Mapping[str, str]:
        order, names = letters_of(self, "tav"), {}
        for i, (letter, encoder) in enumerate(zip(order, self.encoders, strict=True)):
            assert isinstance(encoder, OfficialSequenceEncoder)
            names |= encoder.names(f"encoder.{MODALITIES[letter]}_encoder.", f"encoders.{i}", "lstm")
        there = dict(self.named_modules())
        return {**names, **{k: path for k, path in GRAPH.items() if path in there}, **classifier_names(self)}

    def reference_unused(self) -> Sequence[str]:
        order = letters_of(self, "tav")
        unused = [f"encoder.{name}_encoder." for letter, name in MODALITIES.items() if letter not in order]
        return [*unused, *(["speaker_embedding."] if self.speakers is None else []), *UNUSED]

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        state, order = dict(state_dict), letters_of(self, "tav")
        score_by_seven(state, self.num_classes)
        for letter, encoder in zip(order, self.encoders, strict=True):
            assert isinstance(encoder, OfficialSequenceEncoder)
            encoder.rename(state, f"encoder.{MODALITIES[letter]}_encoder.")
        if self.cross is not None and self.memory is not None:
            letters = [letter for letter in MODALITIES if letter in order]
            pairs = [f"crossmodal.layers.{j}{k}." for j, k in permutations(letters, 2)]
            memories = [f"crossmodal.layers.mem_{j}." for j in letters]
            rename_transformers(state, self.cross, pairs, "pairs.", MULT_NAMES, ("version",))
            rename_transformers(state, self.memory, memories, "memories.", MULT_NAMES, ("version",))
        self._reorder(state)
        return state

    def _reorder(self, state: dict[str, Tensor]) -> None:
        """Columns of the official classifier, graph of all modalities then attention of all, as ours: by modality."""
        modalities = len(self.names)
        graph = 0 if self.convolution is None else self.hidden
        graph *= 1 if self.attention is None else self.attention.heads
        others = 0 if self.cross is None else self.hidden * (modalities - 1)
        if not graph or not others:
            return
        columns = torch.arange(modalities * (graph + others))
        first, second = columns.split([modalities * graph, modalities * others])
        order = torch.cat([first.view(modalities, -1), second.view(modalities, -1)], 1).flatten()
        rows = [k for k in state if k.startswith("clf.highway.") and len(state[k]) == len(order)]
        for key in ("clf.lin1.weight", *(k for k in rows if k.endswith("weight"))):
            if key in state and state[key].shape[-1] == len(order):
                state[key] = state[key][:, order.to(state[key].device)]
        for key in rows:
            state[key] = state[key][order.to(state[key].device)]
