"""MMSA's LF-DNN, behind its `AMIO`; audio and visual come as one step each."""

from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.builders._mmsa import amio

REPOSITORY = "thuiar/MMSA"
COMMIT = "a94e65d07f"
SAMPLES = 4
STREAMS = {0: 0, 1: 0, 2: 0}
MAIN = 4  # the prediction comes after the features


def build(root: Any) -> Any:
    """The sizes of MOSI in `config_regression.json`."""
    model = amio(root, "lf_dnn", (SAMPLES, 1, 1))
    return model, Call(torch.randn(SAMPLES, 20, 768), torch.randn(SAMPLES, 1, 5), torch.randn(SAMPLES, 1, 20)), {}
