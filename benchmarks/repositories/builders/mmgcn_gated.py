"""MMGCN with a graph per modality and gated pairs: `--graph_type relation --mm_fusion_mthd gated`."""

from typing import Any

from repositories.builders import mmgcn

REPOSITORY, COMMIT, LENGTHS, STREAMS = mmgcn.REPOSITORY, mmgcn.COMMIT, mmgcn.LENGTHS, mmgcn.STREAMS


def build(root: Any) -> Any:
    """The model with its gated attention."""
    return mmgcn.build(root, "relation", "gated")
