"""COGMEN as Exploration-Lab/COGMEN @8c00c9bfec has it, and what CORECT's code has from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.kernels.grouped_attention import TORCH_NAMES, GroupedTransformer, Tokens
from fusionzoo.kernels.packing import Packing
from fusionzoo_adapters.hosts.cogmen import Cogmen
from fusionzoo_adapters.parts.sequence_encoder import SequenceEncoder

#: The classifier, with the highway layer that may come before it.
CLASSIFIER = {
    "clf.lin1.": "head.hidden",
    "clf.lin2.": "head.out",
    "clf.highway.gate.0.": "highway.gate",
    "clf.highway.nonlinear.0.": "highway.nonlinear",
    "clf.highway.linear.0.": "highway.linear",
}
#: Entries of the classifier that take no part in the result.
UNUSED = ("clf.emotion_att.", "clf.lin_7.", "clf.linear.", "clf.nll_loss.", "clf.bce_loss.")
#: The parts of an encoder by its base; a recurrent layer has another name in each repository.
TRANSFORMER = {"transformer_encoder.": "encoder", "transformer_out.": "onto"}


class OfficialSequenceEncoder(SequenceEncoder):
    """With what it makes of a dialogue's first padded step at padding.

    The transformer has norms after its blocks, a feed-forward width of 2048, as many heads as the first of 7 to 14 that
    divides the width (else 1), and attends to padded steps as to others; they must be alike within a dialogue.
    """

    def transformer(self, width: int, layers: int, dropout: float) -> GroupedTransformer:
        heads = next((h for h in range(7, 15) if width % h == 0), 1)
        return GroupedTransformer(1, width, layers, heads=heads, hidden=2048, norm="post", dropout=dropout)

    def output_map(self, width: int, out: int) -> nn.Module:
        return nn.Linear(width, out)

    def forward(self, x: Tensor, packing: Packing, mask: Tensor, tokens: Tokens) -> Tensor:
        return self.encoder(x) if self.base == "mlp" else super().forward(x, packing, mask, tokens)

    def names(self, prefix: str, path: str, recurrent: str) -> dict[str, str]:
        """Official names below `prefix` and own paths below `path`; recurrent : what upstream calls a recurrent layer."""
        parts = {"mlp": {"": "encoder"}, "transformer": TRANSFORMER}.get(self.base, {f"{recurrent}.": "encoder.rnn"})
        return {prefix + theirs: f"{path}.{ours}" for theirs, ours in parts.items()}

    def rename(self, state: dict[str, Tensor], prefix: str) -> None:
        """Put the official entries of the transformer below `prefix`, if there is one, under its own names, in place."""
        if isinstance(self.encoder, GroupedTransformer):
            stack = f"{prefix}transformer_encoder."
            rename_transformers(state, self.encoder, [stack], stack, TORCH_NAMES)


class OfficialCogmen(Cogmen):
    """What the published code does differently.

    - Edges run from the centre of a window to its neighbours, so that a receiver sees unequal windows swapped.
    - The transformer attends to padding, has norms after its blocks, the width of the joined features (1380) and a
      feed-forward block of 2048.
    - A batch norm after the graph, which in training makes an output depend on the batch.
    - Contexts do not know who speaks, and the classifier reads the graph alone (`joined=True` is `concat_gin_gout`).
    - No dropout on the contexts, and by default none on the features. Recurrent encoders are 200 wide.

    The official weights are those of one encoder, a single modality or `early`. The order of the joined features is audio,
    text, visual; give `dims` in that order with `concat`, whose own weights are left as they are.
    """

    variant = "official"
    preset: ClassVar = {"joined": False, "input_dropout": 0.0}
    fixed: ClassVar = {"speaker_embedding": False}
    graph_norm = nn.BatchNorm1d

    def __init__(self, *args, base: str = "transformer", context_width: int | None = None, **options):
        wide = 200 if base in ("lstm", "gru") else None
        super().__init__(*args, base=base, context_width=context_width or wide, **options)
        self.context_dropout = Dropout(0.0)

    def build_encoder(self, width: int, out: int, base: str, *, inner: int | None, **options: Any) -> SequenceEncoder:
        return OfficialSequenceEncoder(width, out, base, inner=inner or None, **options)

    def neighbours(self) -> tuple[int | None, int | None]:
        past, future = self.window
        return future, past

    def tokens(self, packing: Packing) -> Tokens:
        return Tokens(packing, stand_in=True)

    def reference_names(self) -> Mapping[str, str]:
        encoder = self.encoders[0]
        assert isinstance(encoder, OfficialSequenceEncoder)
        if len(self.encoders) != 1 or encoder.base == "mlp":
            raise ReferenceWeightsError(
                "Cogmen: official weights fit one encoder (placement='early' or one modality) that is no mlp; this host "
                f"has {len(self.encoders)} of base={encoder.base!r} and {self.placement!r}"
            )
        graph = {"gcn.conv1.": "convolution", "gcn.conv2.": "attention", "gcn.bn.": "norm"}
        return {**encoder.names("rnn.", "encoders.0", "rnn"), **graph, **classifier_names(self)}

    def reference_unused(self) -> Sequence[str]:
        return ("rnn.encoding_layer.", "rnn.LayerNorm.", *UNUSED)

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        state, encoder = dict(state_dict), self.encoders[0]
        score_by_seven(state, self.num_classes)
        assert isinstance(encoder, OfficialSequenceEncoder)
        encoder.rename(state, "rnn.")
        return state


def classifier_names(host: nn.Module) -> dict[str, str]:
    """The names of the parts of the classifier that a host has."""
    there = dict(host.named_modules())
    return {theirs: ours for theirs, ours in CLASSIFIER.items() if ours in there}


def score_by_seven(state: dict[str, Tensor], classes: int) -> None:
    """Put the second last layer for 7 classes that the classifiers have in the first one's place where it is meant."""
    last = state.get("clf.lin2.weight")
    if classes == 7 and last is not None and len(last) != 7:
        for kind in ("weight", "bias"):
            if f"clf.lin_7.{kind}" in state:
                state[f"clf.lin2.{kind}"] = state[f"clf.lin_7.{kind}"]


def rename_transformers(
    state: dict[str, Tensor],
    transformer: GroupedTransformer,
    prefixes: list[str],
    prefix: str,
    names: Mapping[str, str],
    unused: tuple[str, ...] = (),
) -> None:
    """Put the official entries of the transformers below `prefixes` under the names of ours below `prefix`, in place."""
    states = [{k[len(p) :]: v for k, v in state.items() if k.startswith(p)} for p in prefixes]
    used = transformer.official_names(names)
    own = transformer.renamed(states, names)
    for p in prefixes:
        for name in (*used, *unused):
            state.pop(p + name, None)
    state |= {prefix + k: v for k, v in own.items()}
