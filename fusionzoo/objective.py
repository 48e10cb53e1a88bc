"""The objective contract: `objective(out, batch) -> scalar`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from fusionzoo._options import Configured
from fusionzoo.errors import OptionError
from fusionzoo.reference import WithReference

if TYPE_CHECKING:
    from fusionzoo.batch import Batch
    from fusionzoo.host import Host, HostOutput

IGNORE = -100


class Objective(Configured, WithReference, nn.Module):
    """Base class of every objective (loss).

    Parameters
    ----------
    num_classes : number of classes C.
    class_counts : tensor `(C,)` of training utterances per class, for objectives that weight classes; None when unknown.

    Shapes
    ------
    out : `HostOutput` with logits `(B, T, C)`.
    batch : `Batch` with labels `(B, T)` long, -100 where padded or unlabelled.
    returns : a scalar, finite on every edge case (no labelled utterance gives zero with zero gradient).

    Class attributes: `uses_labels`, False for one that compares streams with each other and reads of the labels only
    which utterances have one; `needs_fusion`, the name of the one fusion that it works with, None for any; `variants`, what
    `variant=` accepts, the default first; `search_space`, what `compare --tune` searches of it: option -> choices or
    `{"low", "high", "log"}`.
    """

    kind: ClassVar[str] = "objective"
    uses_labels: ClassVar[bool] = True
    needs_fusion: ClassVar[str | None] = None
    search_space: ClassVar[Mapping[str, object]] = {}

    def __init__(self, num_classes: int, class_counts: Tensor | None = None):  # pyright: ignore[reportRedeclaration]
        super().__init__()
        self.num_classes = num_classes
        if class_counts is not None and tuple(class_counts.shape) != (num_classes,):
            raise OptionError(
                f"{type(self).__name__}: class_counts must be a tensor of {num_classes} numbers, one per class, "
                f"not of shape {tuple(class_counts.shape)}"
            )
        self.class_counts: Tensor | None
        self.register_buffer("class_counts", class_counts, persistent=False)

    if TYPE_CHECKING:
        # Of what `get` returns only the base class is known: the options that its constructor takes may be any.
        def __init__(self, num_classes: int, class_counts: Tensor | None = None, **options: object): ...

    def forward(self, out: HostOutput, batch: Batch) -> Tensor:
        """The loss of one batch."""
        raise NotImplementedError(f"{type(self).__name__} must implement forward(out, batch) -> scalar")

    def bind(self, host: Host) -> None:
        """Meet the host whose outputs are to come; the trainer calls it once, before the optimizer is made.

        The place to build weights whose widths the host decides (`stream_widths` tells them) or to take hold of a method
        of its fusion (a bound method: a module kept on `self` would become part of the objective). Does nothing here.
        """

    def _head_of_repr(self) -> str:
        return f"{self.num_classes} classes"


@torch.no_grad()
def stream_widths(host: Host) -> dict[str, int]:
    """Name and width of every stream that a host reports, found by running it in eval mode on zeros, or on its `example`."""
    batch = host.example() if hasattr(host, "example") else zero_features(host)  # type: ignore[operator]
    training = [part for part in host.modules() if part.training]
    try:
        streams = host.eval()(batch).streams
    finally:
        for part in training:
            part.training = True
    return {name: x.shape[-1] for name, x in streams.items()}


def zero_features(host: Host) -> Batch:
    """Two dialogues of two utterances, all zeros, on the host's device."""
    from fusionzoo.batch import Batch

    device = next((t.device for t in (*host.parameters(), *host.buffers())), torch.device("cpu"))
    zeros = torch.zeros(2, 2, dtype=torch.long, device=device)
    features = {m: torch.zeros(2, 2, d, device=device) for m, d in host.dims.items()}
    return Batch(features, zeros == 0, zeros, zeros, ["0", "1"], None, [2, 2])
