"""AGF-IB: a recurrent encoder per modality with adversaries, flat nodes of each dialogue in one hypergraph, then side by side."""

import sys
from typing import Any
from unittest import mock

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask, speakers

REPOSITORY = "yuntaoshou/AGF-IB"
COMMIT = "d96d870"
LENGTHS = [9, 7, 5, 4]
STREAMS = {**{(0, i): 1 for i in range(4)}, 4: 1, 5: 1}
OLD = True


def build(root: Any) -> Any:
    """As `train.py` does for IEMOCAP, narrower."""
    sys.modules.setdefault("spacy", mock.MagicMock())  # train.py loads a pipeline that it never uses
    from model import Model
    from train import Discriminator, Generator

    made = {f"generator_{m}": Generator(d, 16) for m, d in (("a", 14), ("v", 10), ("t", 1024))}
    made |= {f"discriminator_{m}": Discriminator(8) for m in "avt"}
    model = Model(
        "LSTM", 1024, 16, 16, 16, n_speakers=2, n_classes=6, dropout=0.4, no_cuda=True, graph_type="hyper", D_m_v=10, D_m_a=14,
        modals="avl", att_type="concat_DHT", dataset="IEMOCAP", use_speaker=True, use_modal=False, num_L=2, num_K=2, **made,
    )  # fmt: skip
    *text, audio, visual = features(LENGTHS, *[1024] * 4, 14, 10)
    return model, Call(text, speakers(LENGTHS), lengths_mask(LENGTHS).float(), LENGTHS, audio, visual, 0), {}
