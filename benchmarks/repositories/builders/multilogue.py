"""Multilogue-Net: a recurrent state per modality, pairs of them attended to each other, all six concatenated."""

from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask, speakers

REPOSITORY = "amanshenoy/multilogue-net"
COMMIT = "b44dcb1"
LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 1, 1: 1, 2: 1, 3: 1}


def build(root: Any) -> Any:
    """As `train_categorical.py` does, narrower: the context is all features concatenated by the trainer."""
    from model import CategoricalModel

    model = CategoricalModel(20, 14, 10, 12, 8, 8, 8, 8, n_classes=2, D_a=6, dropout=0.1)
    streams = features(LENGTHS, 20, 14, 10, 12)
    return model, Call(*streams, speakers(LENGTHS), lengths_mask(LENGTHS).float()), {}
