"""Visual question answering of the BLOCK paper: attention over regions by a fusion, then the fusion of both: MUTAN.

Its packages are replaced as in `vqa_block.py`.
"""

from typing import Any

from repositories.builders.vqa_block import network

REPOSITORY = "Cadene/block.bootstrap.pytorch"
COMMIT = "e938e9e269"
SAMPLES = 3
STREAMS = {(0, "visual"): 0, (0, "question"): 0}


def build(root: Any) -> Any:
    """With this fusion in both places."""
    return network(type="mutan", mm_dim=24, rank=2)
