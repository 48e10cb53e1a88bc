"""The small network that most papers of this family put everywhere."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.layers import dropout


class TwoLayers(nn.Module):
    """Linear, ReLU, dropout, linear."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float):
        super().__init__()
        self.fc1, self.fc2, self.dropout = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs), dropout

    def rest(self, first: Tensor) -> Tensor:
        """The output from what the first linear map gave."""
        return self.fc2(dropout(F.relu(first), self.dropout, self.training))

    def forward(self, x: Tensor) -> Tensor:
        """`(..., outputs)` from `(..., inputs)`."""
        return self.rest(self.fc1(x))
