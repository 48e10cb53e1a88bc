"""The classifier that most hosts of this field end with."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Head(nn.Module):
    """Linear, ReLU, dropout, linear: `(..., width)` to `(..., classes)`."""

    def __init__(self, width: int, hidden: int, classes: int, dropout: float = 0.0):
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(F.relu(self.hidden(x))))

    def reference_parts(self) -> dict[str, nn.Module]:
        """`{official prefix: module}` of this head in declare-lab/conv-emotion."""
        return {"linear.": self.hidden, "smax_fc.": self.out}
