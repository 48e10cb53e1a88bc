"""The objective contract: `objective(out, batch) -> scalar`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from fusionzoo._options import CheckedOptions
from fusionzoo.errors import ReferenceWeightsError

if TYPE_CHECKING:
    from fusionzoo.data.batch import Batch
    from fusionzoo.host import HostOutput

IGNORE = -100


class Objective(nn.Module, metaclass=CheckedOptions):
    """Base class of every objective (loss).

    Parameters
    ----------
    num_classes : number of classes C.
    class_counts : tensor `(C,)` of training utterances a class, for objectives that weight classes; None when unknown.

    Shapes
    ------
    out : `HostOutput` with logits `(B, T, C)`.
    batch : `Batch` with labels `(B, T)` long, -100 where padded or unlabelled.
    returns : a scalar, finite on every edge case (no labelled utterance gives zero with zero gradient).
    """

    def __init__(self, num_classes: int, class_counts: Tensor | None = None):
        super().__init__()
        self.num_classes = num_classes
        self.class_counts: Tensor | None
        self.register_buffer("class_counts", class_counts, persistent=False)

    def forward(self, out: HostOutput, batch: Batch) -> Tensor:
        """The loss of one batch."""
        raise NotImplementedError(f"{type(self).__name__} must implement forward(out, batch) -> scalar")

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the weights of the authors' official implementation, where the objective has weights."""
        raise ReferenceWeightsError(f"{type(self).__name__} has no weights to load")
