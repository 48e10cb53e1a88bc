"""A look at the first masks that a model gets, for somebody's whose True is padding."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from fusionzoo.errors import MaskWarning


class MaskWatch:
    """Warns, once, where an item holds data and none of it at a step that the mask calls real.

    So it is with an inverted mask, `key_padding_mask` of torch for example: in a batch that is padded with zeros every item
    has its data where the mask is False; in one that is padded with anything the longest item has no real step at all.
    Data are finite values other than zero, of any modality. No warning comes therefore of left padding, of values of any
    kind in the padding, of empty dialogues, or of modalities that are missing, as long as one that is there has data.
    Items of one step are looked at together, as one sequence. What it takes for inverted and may be meant: items of repeated data, masked as a whole, that fill up a batch.

    Only the first `CALLS` masks are looked at, on a CPU, since looking costs a pass over the data and, on an accelerator,
    a wait for it; and never while a program is compiled, exported or traced.
    """

    CALLS = 3

    def __init__(self) -> None:
        self.left = self.CALLS

    def look(self, owner: object, streams: Iterable[Tensor | None], mask: Tensor | None) -> None:
        """Look at one call: streams `(B, T, d_m)`, of which those of another length than the mask are left out; mask bool `(B, T)`."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        if self.left <= 0 or mask is None or type(mask) is not Tensor or mask.device.type != "cpu":
            return
        self.left -= 1
        try:
            item = _contradiction([x for x in streams if x is not None and x.shape[:2] == mask.shape], mask)
        except RuntimeError:  # Within torch.func's transforms tensors have no values to look at.
            return
        if item is None:
            return
        self.left = 0
        warnings.warn(
            f"{type(owner).__name__}: item {item} of the batch has data, and none of it where its mask is True. A mask is True "
            "where a step is real; torch's key_padding_mask and others mean the opposite. If yours is one of these, give ~mask",
            MaskWarning,
            stacklevel=7,
        )


@torch.no_grad()
def _contradiction(streams: list[Tensor], mask: Tensor) -> int | None:
    """The first item whose data all lie where the mask is False."""
    if not streams or bool(mask.all()):
        return None
    data = torch.stack([((x != 0) & x.isfinite()).any(-1) for x in streams]).any(0)
    if (
        mask.shape[1] == 1
    ):  # Items are steps then: the batch is looked at as one sequence, whose padding may hold anything.
        data, mask = data.t(), mask.t()
    wrong = data.any(1) & ~(data & mask).any(1)
    return int(wrong.int().argmax()) if bool(wrong.any()) else None
