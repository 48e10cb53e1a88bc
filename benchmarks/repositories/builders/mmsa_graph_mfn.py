"""MMSA's Graph-MFN, behind its `AMIO`: a dynamic graph over a loop in time."""

from typing import Any

from repositories.builders import mmsa_mfn

REPOSITORY, COMMIT, SAMPLES, STREAMS = mmsa_mfn.REPOSITORY, mmsa_mfn.COMMIT, mmsa_mfn.SAMPLES, mmsa_mfn.STREAMS


def build(root: Any) -> Any:
    """The sizes of MOSI in `config_regression.json`."""
    return mmsa_mfn.build(root, "graph_mfn")
