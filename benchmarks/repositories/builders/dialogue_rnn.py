"""conv-emotion's DialogueRNN for MELD; the training script joins text and audio."""

import sys
from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask, speakers

REPOSITORY = "declare-lab/conv-emotion"
COMMIT = "6128ca20e9"
LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 1}


def build(root: Any) -> Any:
    """The bidirectional model of `train_MELD.py`."""
    sys.path.insert(0, str(root / "DialogueRNN"))
    from model import BiModel

    model = BiModel(900, 150, 150, 100, 100, n_classes=7, context_attention="general", D_a=100, dropout_rec=0.1)
    call = Call(features(LENGTHS, 900)[0], speakers(LENGTHS), lengths_mask(LENGTHS).float())
    return model, call, {"modalities": {"U": {"text": 600, "audio": 300}}}
