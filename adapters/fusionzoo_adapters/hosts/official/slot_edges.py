"""The edge attention of DialogueGCN's code, which MMGCN's has copied, and the names of the graph's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.errors import ShapeError
from fusionzoo.reference import copy_reference_parts

#: Attentions that the edge attention constructs beside its linear map, and never calls.
UNUSED_ATTENTIONS = ("matchatt.", "simpleatt.", "att.")

#: Entries of a `GraphNetwork`, in the names of torch-geometric 2.x, and where ours are.
GRAPH_NAMES = {
    "conv1.": "conv1",
    "conv2.": "conv2",
    "linear.": "head.hidden",
    "smax_fc.": "head.out",
    "matchatt.": "attention",
}


class SlotEdgeAttention(nn.Module):
    """Edge weights of the official code: the row of an utterance depends on its position, not on what it says.

    A linear map gives every step one score for each of `slots` absolute positions; a softmax over *time*, padding
    included, makes the row of slot `j`; the row is then restricted to the window of `j` and normalised.
    """

    def __init__(self, width: int, slots: int):
        super().__init__()
        self.slots = slots
        self.scalar = nn.Linear(width, slots, bias=False)

    def forward(self, x: Tensor, window: Tensor) -> Tensor:
        """`(B, slots, T)` from contexts `(B, T, width)` and the `window (B, T, T)`."""
        steps = x.shape[1]
        if steps > self.slots:
            raise ShapeError(
                f"a dialogue of {steps} utterances does not fit the {self.slots} position slots of the official "
                f"edge attention; build the host with max_seq_len={steps} or more, or with variant='default'"
            )
        rows = self.scalar(x).softmax(1).transpose(1, 2)
        edges = F.pad(window, (0, 0, 0, self.slots - steps)).to(rows.dtype)
        # The official constant: it keeps the sum of rows without edges away from zero.
        kept = rows * torch.where(edges > 0, 1.0, 1e-10)
        return kept / kept.sum(-1, keepdim=True) * edges

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load an official `MaskedEdgeAttention`; it constructs three more attentions and never calls them."""
        copy_reference_parts({"scalar.": self.scalar}, state, ignored=UNUSED_ATTENTIONS)


def modern_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the convolutions' entries of torch-geometric 1.3 renamed to those of 2.x."""
    if not any(k.endswith(("conv1.basis", "conv2.lin.weight")) for k in state):
        return dict(state)
    renamed = {}
    for key, value in state.items():
        if key.endswith("conv2.weight"):
            key, value = key.removesuffix("weight") + "lin_rel.weight", value.t()
        for old, new in (
            ("conv1.basis", "conv1.weight"),
            ("conv1.att", "conv1.comp"),
            ("conv2.lin.weight", "conv2.lin_root.weight"),
            ("conv2.lin.bias", "conv2.lin_rel.bias"),
        ):
            if key.endswith(old):
                key = key.removesuffix(old) + new
        renamed[key] = value
    return renamed
