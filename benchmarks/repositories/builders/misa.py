"""MISA: six vectors stacked through a transformer, then concatenated; BERT with random weights and two layers."""

import sys
from argparse import Namespace
from typing import Any

import torch
from torch import nn

from fusionzoo.patching import Call
from repositories.batches import features
from repositories.pretrained import random_weights

REPOSITORY = "declare-lab/MISA"
COMMIT = "ec42faddde"
LENGTHS = [9, 7, 5, 4]
STREAMS = {1: 1, 2: 1, 4: 0}


def build(root: Any) -> Any:
    """The model for MOSI with BERT."""
    sys.path.insert(0, str(root / "src"))
    from models import MISA

    config = Namespace(
        embedding_size=300, visual_size=47, acoustic_size=74, num_classes=1, dropout=0.5, activation=nn.ReLU,
        rnncell="lstm", use_bert=True, use_cmd_sim=True, hidden_size=128, reverse_grad_weight=1.0,
    )  # fmt: skip
    with random_weights():
        model = MISA(config)
    steps, samples = max(LENGTHS), len(LENGTHS)
    video, audio = features(LENGTHS, 47, 74)
    sentences, tokens = torch.randint(1, 90, (steps, samples)), torch.randint(1, 90, (samples, steps + 2))
    mask = (torch.arange(steps + 2) < torch.tensor(LENGTHS)[:, None] + 2).long()
    call = Call(sentences, video, audio, torch.tensor(LENGTHS), tokens * mask, torch.zeros_like(tokens), mask)
    return model, call, {}
