"""MMSA's mlmf, behind its `AMIO`."""

from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features
from repositories.builders._mmsa import amio

REPOSITORY = "thuiar/MMSA"
COMMIT = "a94e65d07f"
LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 0, 1: 0, 2: 0}


def build(root: Any) -> Any:
    """The sizes of MOSI in `config_regression.json`."""
    model = amio(root, "mlmf", (9, 9, 9))
    text, audio, visual = features(LENGTHS, 768, 5, 20, time_first=False)
    return model, Call(text, audio, visual), {}
