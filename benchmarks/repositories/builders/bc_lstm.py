"""conv-emotion's bc-LSTM; the training script joins the features, in a line that is commented out."""

import sys
from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask, speakers

REPOSITORY = "declare-lab/conv-emotion"
COMMIT = "6128ca20e9"
LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 1}


def build(root: Any) -> Any:
    """The model for IEMOCAP, three modalities."""
    sys.path.insert(0, str(root / "bc-LSTM-pytorch"))
    from model import LSTMModel

    model = LSTMModel(712, 100, 100, n_classes=6, dropout=0.5, attention=True)
    call = Call(features(LENGTHS, 712)[0], speakers(LENGTHS), lengths_mask(LENGTHS).float())
    return model, call, {"modalities": {"U": {"text": 100, "audio": 100, "visual": 512}}}
