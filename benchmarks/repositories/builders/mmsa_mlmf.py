"""MMSA's mlmf, behind its `AMIO`."""

from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.builders._mmsa import amio

REPOSITORY = "thuiar/MMSA"
COMMIT = "a94e65d07f"
SAMPLES = 4
STREAMS = {0: 0, 1: 0, 2: 0}


def build(root: Any) -> Any:
    """The sizes of SIMS, features of MOSI in `config_regression.json`."""
    model = amio(root, "mlmf", (9, 1, 1), "sims")
    return model, Call(torch.randn(SAMPLES, 9, 768), torch.randn(SAMPLES, 1, 5), torch.randn(SAMPLES, 1, 20)), {}
