"""MMGCN: rows of all modalities through one graph, called as `train.py` does for IEMOCAP, with four layers in place of 64."""

from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask, speakers

REPOSITORY = "hujingwen6666/MMGCN"
COMMIT = "85732d984f"
LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 1, 4: 1, 5: 1}


def build(root: Any, graph: str = "MMGCN", attention: str = "concat_subsequently", modals: str = "avl") -> Any:
    """The model with its multimodal graph."""
    from model import DialogueGCNModel

    model = DialogueGCNModel(
        "LSTM", 100, 150, 150, 100, 100, 100, 100, n_speakers=2, max_seq_len=200, window_past=10, window_future=10,
        n_classes=6, dropout=0.4, no_cuda=True, graph_type=graph, D_m_v=342, D_m_a=1582, modals=modals,
        att_type=attention, Deep_GCN_nlayers=4,
    )  # fmt: skip
    text, audio, visual = features(LENGTHS, 100, 1582, 342)
    return model, Call(text, speakers(LENGTHS), lengths_mask(LENGTHS).float(), LENGTHS, audio, visual), {}
