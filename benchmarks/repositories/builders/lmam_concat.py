"""LMAM's baseline that concatenates the features."""

from typing import Any

from repositories.builders import lmam

REPOSITORY, COMMIT, LENGTHS, STREAMS = lmam.REPOSITORY, lmam.COMMIT, lmam.LENGTHS, lmam.STREAMS


def build(root: Any) -> Any:
    """The baseline with early fusion."""
    return lmam.build(root, "Attention")
