"""The classifier that most hosts of this field end with."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.kernels.dropout import Dropout
from fusionzoo.layers import MatchingAttention


class Head(nn.Module):
    """Linear, ReLU (or `activation="gelu"`), dropout, linear: `(..., width)` to `(..., classes)`."""

    def __init__(self, width: int, hidden: int, classes: int, dropout: float = 0.0, activation: str = "relu"):
        super().__init__()
        self.activation = {"relu": F.relu, "gelu": F.gelu}[activation]
        self.hidden = nn.Linear(width, hidden)
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(self.activation(self.hidden(x))))


class DialogueAttention(MatchingAttention):
    """Matching attention (`general2`) of every utterance over its dialogue.

    Parameters
    ----------
    width : of the utterances.
    scaled : divide the scores by the square root of the width.
    tanh : squash the scores, so that no weight can be 7.4 times another.
    residual : add what was attended to to the utterance; without, it takes the utterance's place.
    """

    def __init__(self, width: int, *, scaled: bool = True, tanh: bool = False, residual: bool = True):
        super().__init__(width, width, "general2", tanh=tanh, scaled=scaled)
        self.residual = residual

    def over(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, T, width)` and the weights `(B, T, T)`, from `x (B, T, width)` and `mask (B, T)`."""
        pooled, weights = self(x, x, mask)
        return x + pooled if self.residual else pooled, weights
