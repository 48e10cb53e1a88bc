"""GraphMFT: flat nodes; three graphs of two modalities each, joined on features."""

from typing import Any

from repositories.builders._gnn_model import LENGTHS, STREAMS, gnn_model

__all__ = ["LENGTHS", "STREAMS"]
REPOSITORY = "lijfrank-open/GraphMFT"
COMMIT = "2cebeae"


def build(root: Any) -> Any:
    """As `run.py` does, narrower."""
    return gnn_model(multimodal_nlayers=[2, 2, 2])
