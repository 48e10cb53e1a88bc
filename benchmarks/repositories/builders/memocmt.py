"""MemoCMT: cross-attention, then tokens joined along their axis; BERT and HuBERT with random weights and two layers."""

import sys
from typing import Any

import torch
from torch import nn

from fusionzoo.patching import Call
from repositories.pretrained import random_weights

REPOSITORY = "tpnam0901/MemoCMT"
COMMIT = "d3248703e7"
SAMPLES = 3
STREAMS = {0: 0, 1: 0}


class Hubert(nn.Module):
    """In the place of torchaudio's: the same output, `(B, T, 768)`."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import HubertConfig, HubertModel

        self.model = HubertModel(HubertConfig(num_hidden_layers=2))

    def forward(self, x: Any) -> Any:
        """Features of a waveform."""
        return self.model(x).last_hidden_state


def build(root: Any) -> Any:
    """The model with its default configuration."""
    sys.path.insert(0, str(root / "src"))
    from configs.base import Config
    from models import modules, networks

    modules.build_hubert_base_encoder = lambda cfg: Hubert()
    with random_weights():
        model = networks.MemoCMT(Config())
    return model, Call(torch.randint(1, 900, (SAMPLES, 20)), torch.randn(SAMPLES, 8000)), {}
