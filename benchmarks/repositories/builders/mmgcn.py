"""MMGCN: rows of all modalities through one graph, `(T, B, d)` inputs; its code wants what `modernise` puts in force."""

from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import lengths_mask

REPOSITORY = "hujingwen6666/MMGCN"
COMMIT = "85732d984f"
LENGTHS = [22, 17, 15, 13]  # of each dialogue
STREAMS = {0: 1, 4: 1, 5: 1}  # argument -> its axis of samples


def build(root: Any) -> Any:
    """As `train.py` does for IEMOCAP."""
    from model import DialogueGCNModel

    model = DialogueGCNModel(
        "LSTM", 100, 150, 150, 100, 100, 100, 100, n_speakers=2, max_seq_len=200, window_past=10, window_future=10,
        n_classes=6, dropout=0.4, no_cuda=True, graph_type="MMGCN", alpha=0.2, use_residue=True,
        D_m_v=342, D_m_a=1582, modals="avl", att_type="concat_subsequently", av_using_lstm=False, Deep_GCN_nlayers=64,
        dataset="IEMOCAP", use_speaker=True, use_modal=False,
    )  # fmt: skip
    size = max(LENGTHS), len(LENGTHS)
    qmask = torch.nn.functional.one_hot(torch.randint(2, size), 2).float()
    text, audio, visual = (torch.randn(*size, d) for d in (100, 1582, 342))
    return model, Call(text, qmask, lengths_mask(LENGTHS).float(), LENGTHS, audio, visual), {}
