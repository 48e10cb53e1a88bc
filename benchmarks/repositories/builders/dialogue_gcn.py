"""conv-emotion's DialogueGCN; the training script joins the features, in a line that is commented out."""

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
    sys.path.insert(0, str(root / "DialogueGCN"))
    from model import DialogueGCNModel

    model = DialogueGCNModel(
        "LSTM", 712, 150, 150, 100, 100, 100, 100, n_speakers=2, max_seq_len=110, window_past=10, window_future=10,
        n_classes=6, dropout=0.5, nodal_attention=True, no_cuda=True,
    )  # fmt: skip
    call = Call(features(LENGTHS, 712)[0], speakers(LENGTHS), lengths_mask(LENGTHS).float(), LENGTHS)
    return model, call, {"modalities": {"U": {"text": 100, "audio": 100, "visual": 512}}}
