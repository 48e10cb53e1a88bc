"""GA2MIF: flat nodes, a graph of each modality, then attention between them in padded batches."""

from typing import Any

from repositories.builders._gnn_model import LENGTHS, STREAMS, gnn_model

__all__ = ["LENGTHS", "STREAMS"]
REPOSITORY = "lijfrank-open/GA2MIF"
COMMIT = "56104c3"


def build(root: Any) -> Any:
    """As `run.py` does, narrower."""
    return gnn_model(crossmodal_nlayers=2)
