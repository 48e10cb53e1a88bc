"""MMSA's MFN, behind its `AMIO`: a memory over a loop in time."""

from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.builders._mmsa import amio

REPOSITORY = "thuiar/MMSA"
COMMIT = "a94e65d07f"
SAMPLES = 4
STREAMS = {0: 0, 1: 0, 2: 0}


def build(root: Any, name: str = "mfn") -> Any:
    """The sizes of MOSI in `config_regression.json`."""
    steps = 12
    model = amio(root, name, (steps, steps, steps))
    return model, Call(*(torch.randn(SAMPLES, steps, d) for d in (768, 5, 20))), {}
