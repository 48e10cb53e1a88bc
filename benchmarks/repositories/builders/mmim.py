"""MMIM: one vector per modality, concatenated; losses over the whole batch are returned before the prediction."""

import sys
from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import features, token_ids
from repositories.pretrained import random_weights

REPOSITORY = "declare-lab/Multimodal-Infomax"
COMMIT = "cd0774c"
LENGTHS = [9, 7, 5, 4]
STREAMS = {1: 1, 2: 1, 5: 0}


def build(root: Any) -> Any:
    """The defaults of `config.py`, called as in `solver.py`."""
    sys.path.insert(0, str(root / "src"))
    from model import MMIM

    hp = SimpleNamespace(
        add_va=False, d_tin=768, d_vin=20, d_ain=5, d_vh=16, d_ah=16, d_vout=16, d_aout=16, n_layer=1, dropout_v=0.1,
        dropout_a=0.1, dropout_prj=0.1, bidirectional=False, mmilb_mid_activation="ReLU", mmilb_last_activation="Tanh",
        cpc_layers=1, cpc_activation="Tanh", d_prjh=16, n_class=1,
    )  # fmt: skip
    with random_weights(vocab_size=90, num_hidden_layers=1, intermediate_size=64):
        model = MMIM(hp)
    visual, audio = features(LENGTHS, 20, 5)
    ids, mask = token_ids([n + 2 for n in LENGTHS])
    words, n = torch.randint(1, 90, (max(LENGTHS), len(LENGTHS))), torch.tensor(LENGTHS)
    return model, Call(words, visual, audio, n, n, ids, torch.zeros_like(ids), mask), {}
