"""MMSA's bert_mag, behind its `AMIO`."""

from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features, packed_tokens
from repositories.builders._mmsa import amio
from repositories.pretrained import random_weights

REPOSITORY = "thuiar/MMSA"
COMMIT = "a94e65d07f"
LENGTHS = [9, 7, 5, 4]
STREAMS = {1: 0, 2: 0}  # not the packed token ids


def build(root: Any) -> Any:
    """The sizes of MOSI in `config_regression.json`."""
    with random_weights(vocab_size=90, num_hidden_layers=1, intermediate_size=64):
        model = amio(root, "bert_mag", (9, 9, 9))
    audio, visual = features(LENGTHS, 5, 20, time_first=False)
    return model, Call(packed_tokens(LENGTHS), audio, visual), {}
