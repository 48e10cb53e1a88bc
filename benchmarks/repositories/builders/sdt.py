"""SDT: nine transformers, gates per stream and over streams; hidden size 256 in place of 1024."""

from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask, speakers

REPOSITORY = "butterfliesss/SDT"
COMMIT = "60af921823"
LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 1, 1: 1, 2: 1}
MAIN = 3  # the prediction comes after each modality's own


def build(root: Any) -> Any:
    """The model for IEMOCAP."""
    from model import Transformer_Based_Model

    model = Transformer_Based_Model(
        "IEMOCAP", 1, 1024, 342, 1582, 8, n_classes=6, hidden_dim=256, n_speakers=2, dropout=0.5
    )
    text, visual, audio = features(LENGTHS, 1024, 342, 1582)
    mask = lengths_mask(LENGTHS).float()
    return model, Call(text, visual, audio, mask, speakers(LENGTHS, time_first=False), LENGTHS), {}
