"""MM-DFN: rows of all modalities through a dynamic graph, called as `run_train_erc.py` does for IEMOCAP."""

import sys
from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask, speakers

REPOSITORY = "zerohd4869/MM-DFN"
COMMIT = "da97036606"
LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 1, 4: 1, 5: 1}


def build(root: Any) -> Any:
    """The model with its defaults."""
    sys.path.insert(0, str(root / "code"))
    from model import DialogueGNNModel

    model = DialogueGNNModel(
        "LSTM", 100, 150, 150, 100, 100, 100, 100, n_speakers=2, max_seq_len=200, window_past=10, window_future=10,
        n_classes=6, dropout=0.4, no_cuda=True, graph_type="GDF", alpha=0.2, D_m_v=342, D_m_a=1582, modals="avl",
        att_type="concat_subsequently", Deep_GCN_nlayers=16, use_crn_speaker=True, speaker_weights="3-0-1",
        use_speaker=False,
    )  # fmt: skip
    text, audio, visual = features(LENGTHS, 100, 1582, 342)
    return model, Call(text, speakers(LENGTHS), lengths_mask(LENGTHS).float(), LENGTHS, audio, visual), {}
