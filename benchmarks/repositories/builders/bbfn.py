"""BBFN: two gated transformers of text with audio and with visual, their first steps concatenated."""

import sys
from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import features, token_ids
from repositories.pretrained import random_weights

REPOSITORY = "declare-lab/BBFN"
COMMIT = "1a251bd"
LENGTHS = [9, 7, 5, 4]
STREAMS = {1: 1, 2: 1, 4: 0}
OLD = True


def build(root: Any) -> Any:
    """The defaults of `main.py`, called as in `solver.py`."""
    sys.path.insert(0, str(root / "src"))
    from models import MULTModel

    hp = SimpleNamespace(
        orig_d_l=768, orig_d_a=5, orig_d_v=20, attn_dim=16, num_heads=2, layers=2, attn_dropout=0.1, attn_dropout_a=0.1,
        attn_dropout_v=0.1, relu_dropout=0.1, res_dropout=0.1, out_dropout=0.1, embed_dropout=0.1, div_dropout=0.1,
        attn_mask=True, l_ksize=3, v_ksize=3, a_ksize=3, output_dim=1, use_bert=True, proj_type="gru", num_enc_layers=1,
    )  # fmt: skip
    with random_weights(vocab_size=90, num_hidden_layers=1, intermediate_size=64):
        model = MULTModel(hp)
    visual, audio = features(LENGTHS, 20, 5)
    ids, mask = token_ids([n + 2 for n in LENGTHS])
    words = torch.randint(1, 90, (max(LENGTHS), len(LENGTHS)))
    return model, Call(words, visual, audio, torch.tensor(LENGTHS), ids, torch.zeros_like(ids), mask), {}
