"""LMAM's matching baseline: text in four versions, a list."""

from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask, speakers

REPOSITORY = "yuntaoshou/LMAM"
COMMIT = "1ac9f43823"
LENGTHS = [9, 7, 5, 4]
STREAMS = {(0, 0): 1, (0, 1): 1, (0, 2): 1, (0, 3): 1, 1: 1, 2: 1}


def build(root: Any, attention: str = "LMAM") -> Any:
    """The baseline with one of its attentions."""
    from baseline.LSTM import LSTMModel

    model = LSTMModel(2948, 256, 256, n_classes=6, dropout=0.5, attention=attention)
    text = features(LENGTHS, 1024, 1024, 1024, 1024)
    audio, visual = features(LENGTHS, 1582, 342)
    return model, Call(text, audio, visual, speakers(LENGTHS), lengths_mask(LENGTHS).float()), {}
