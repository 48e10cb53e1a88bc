"""GraphCFC: flat nodes; pairs of modalities as rows of one graph after another, and shared features."""

from typing import Any

from repositories.builders._gnn_model import LENGTHS, STREAMS, gnn_model

__all__ = ["LENGTHS", "STREAMS"]
REPOSITORY = "lijfrank-open/GraphCFC"
COMMIT = "30306b3"


def build(root: Any) -> Any:
    """As `run.py` does, narrower."""
    return gnn_model(multimodal_nlayers=[2, 2, 2])
