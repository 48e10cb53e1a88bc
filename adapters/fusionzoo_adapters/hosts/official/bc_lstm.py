"""bc-LSTM as declare-lab/conv-emotion @6128ca2 and yuntaoshou/LMAM @1ac9f43823 have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from fusionzoo_adapters.hosts.bc_lstm import BcLSTM
from fusionzoo_adapters.hosts.official.conv_emotion import ConvEmotionHost
from fusionzoo_adapters.hosts.official.lmam import LMAMHost
from fusionzoo_adapters.parts.classifier import Head


class OfficialBcLSTM(ConvEmotionHost, BcLSTM):
    """`LSTMModel` of `bc-LSTM-pytorch`.

    The LSTM runs over padding, so that the backward direction starts on it; the scores of the attention are squashed with
    tanh (no weight can then be 7.4 times another), and the attended context takes the utterance's place instead of being
    added; two layers; no speaker embedding, and nothing is dropped between the LSTM and the classifier.

    Its weights are the context LSTM, the matching attention and the classifier of one stream: they need a single modality
    or an early placement. The fusion, which has no counterpart there, is left as it is.
    """

    variant = "official"
    preset: ClassVar[Mapping[str, object]] = {"layers": 2}


class LMAMBcLSTM(LMAMHost, BcLSTM):
    """`LSTMModel` of `baseline/LSTM.py`, the form in which LMAM was tried.

    Four layers of 256 over padding for the first modality, linear maps for the others (`early`: one LSTM over the
    concatenation), GELU in the classifier, no dropout but that between layers, no speakers, and text views that are batch
    normalised. Published with the fusion `lmam` (`variant="official"`) late and `concat` early.

    Its weights are of three modalities (text, audio, visual): late with the fusion `lmam` (`variant="official"`), whose
    weights are loaded too, or early.
    """

    variant = "lmam"
    preset: ClassVar[Mapping[str, object]] = {"layers": 4, "hidden": 256}
    fixed: ClassVar[Mapping[str, object]] = {"input_dropout": 0.0, "speaker_embedding": False}
    placements: ClassVar[tuple[str, ...]] = ("late", "early", "early-residual")
    reads_padding = True
    matching: ClassVar[Mapping[str, bool]] = {"scaled": False, "tanh": True, "residual": False}

    def context_dropout_of(self, dropout: float) -> float:
        return 0.0

    def early_width(self) -> Any:
        # Concatenation, without a linear map.
        return "sum" if self.placement == "early" else None

    def encoder_options(self, stream: str) -> Mapping[str, Any]:
        return {"base": "none"} if stream in self.names[1:] else {}

    def make_head(self, width: int, hidden: int, dropout: float) -> Head:
        return Head(width, hidden, self.num_classes, activation="gelu")

    def classify(self, x: Tensor) -> Tensor:
        return self.head(x if self.placement == "late" else F.gelu(x))

    def reference_names(self) -> Mapping[str, str]:
        encoders = ("lstm2.", "fc1.", "fc2.") if self.placement == "late" else ("lstm.",)
        names = {name: f"encoders.{i}.rnn" for i, name in zip(range(len(self.encoders)), encoders, strict=False)}
        return {**self.view_names(), **names, "linear.": "head.hidden", "smax_fc.": "head.out"}
