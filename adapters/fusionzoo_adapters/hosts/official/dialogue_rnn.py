"""DialogueRNN as declare-lab/conv-emotion @6128ca2 and yuntaoshou/LMAM @1ac9f43823 have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from fusionzoo_adapters.hosts.dialogue_rnn import DialogueRNNHost
from fusionzoo_adapters.hosts.official.conv_emotion import ConvEmotionHost
from fusionzoo_adapters.hosts.official.lmam import LMAMHost


class OfficialDialogueRNN(ConvEmotionHost, DialogueRNNHost):
    """`BiModel` of `DialogueRNN/model.py`.

    The forward direction reads padding (which changes padded steps only); the attention over the dialogue does not scale
    its scores, and what it attended to replaces the state, where the default divides by the root of the width and adds it;
    the classifier has dropout alone between its layers; no speaker embedding and no dropout of inputs; on the emotion
    states 15 % more than in the classifier.

    Its weights are of one recurrence: they need a single modality or an early placement. The fusion, which has no
    counterpart there, is left as it is. Entries of the attention that `att2=False` leaves unused are ignored with
    `attention=False`.
    """

    variant = "official"
    fixed: ClassVar[Mapping[str, object]] = {"input_dropout": 0.0}
    placements: ClassVar[tuple[str, ...]] = (*ConvEmotionHost.placements, "parallel")
    # DialogueRNN's own copy of the attention has no tanh.
    matching: ClassVar[Mapping[str, bool]] = {"scaled": False, "residual": False}

    def context_dropout_of(self, dropout: float) -> float:
        return min(1.0, dropout + 0.15)

    def reference_unused(self) -> Sequence[str]:
        return () if self.attention is not None else ("matchatt.",)


class LMAMDialogueRNN(LMAMHost, DialogueRNNHost):
    """`DialogueRNN` of `baseline/DialogueRNN.py`, the form in which LMAM was tried.

    Placement `parallel`, one direction that reads padding, `simple` attention over the past states, no attention over the
    dialogue, a single linear map as classifier, four batch-normalised text views; no dropout but between the states, and no
    speakers. Its weights are loaded with those of its fusion, `lmam` (`variant="official"`).
    """

    variant = "lmam"
    preset: ClassVar[Mapping[str, object]] = {"directions": 1}
    fixed: ClassVar[Mapping[str, object]] = {
        "attention": False,
        "context_attention": "simple",
        "input_dropout": 0.0,
        "speaker_embedding": False,
    }
    placements: ClassVar[tuple[str, ...]] = ("parallel", "late", "early", "early-residual")
    reads_padding = True

    def context_dropout_of(self, dropout: float) -> float:
        return 0.0

    def make_head(self, width: int, hidden: int, dropout: float) -> nn.Module:
        return nn.Linear(width, self.num_classes)

    def loads_fusion(self) -> bool:
        return True

    def reference_names(self) -> Mapping[str, str]:
        names = {**self.view_names(), "dialogue_cell.": "encoders.0.rnn.forward_cell", "smax_fc.": "head"}
        if self.placement == "parallel" and self.fusion is not None:
            maps = zip(("fc3.", "fc1.", "fc2."), range(len(self.projections)), strict=False)
            names |= {name: f"projections.{i}" for name, i in maps} | {"fc4.": "mix"}
        return names
