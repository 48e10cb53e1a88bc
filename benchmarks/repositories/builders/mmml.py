"""MMML: words and sound through pretrained encoders, cross-attention with CLS tokens, their vectors concatenated."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import lengths_mask, token_ids
from repositories.pretrained import random_weights

REPOSITORY = "zehuiwu/MMML"
COMMIT = "f558b1a"
LENGTHS = [9, 7, 5, 4]  # of the words
STREAMS = {0: 0, 2: 0}


def build(root: Any) -> Any:
    """`rob_d2v_cme` as `en_train.py` builds it."""
    from utils.en_model import rob_d2v_cme

    with random_weights(
        vocab_size=90, num_hidden_layers=1, intermediate_size=64, attn_implementation="eager", layerdrop=0.0
    ):
        model = rob_d2v_cme(SimpleNamespace(cme_version="v1", dropout=0.1, num_hidden_layers=1))
    ids, mask = token_ids(LENGTHS, pad=1)
    sound = lengths_mask([4000, 3600, 3000, 2400])
    return model, Call(ids, mask, torch.randn(sound.shape) * sound, sound.long()), {}
