"""The encoders of COGMEN and CORECT: from utterance features to contexts of one width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionzoo._options import check_choice, check_positive
from fusionzoo.errors import OptionError
from fusionzoo.kernels.grouped_attention import GroupedTransformer, Tokens
from fusionzoo.kernels.packing import Packing
from fusionzoo.numerics import zero_padded
from fusionzoo_adapters.parts.context_encoder import ContextEncoder

BASES = ("transformer", "lstm", "gru", "mlp")


class SequenceEncoder(nn.Module):
    """`(B, T, width)` to `(B, T, out)`, zero at padding.

    Parameters
    ----------
    width, out : as above.
    base : `transformer`, bidirectional `lstm` or `gru`, or `mlp`, two linear maps of each utterance with ReLU.
    layers : of the first three.
    dropout : within them.
    inner : width of the transformer, None for that of the input; a linear map comes before it where they differ.
    """

    def __init__(
        self,
        width: int,
        out: int,
        base: str = "transformer",
        *,
        layers: int = 2,
        dropout: float = 0.0,
        inner: int | None = None,
    ):
        super().__init__()
        self.base = check_choice(base, BASES, "base", self)
        check_positive(layers, "layers", self)
        self.into: nn.Module = nn.Identity()
        if base == "transformer":
            inner = width if inner is None else check_positive(inner, "inner", self)
            if inner != width:
                self.into = nn.Linear(width, inner)
            self.encoder: nn.Module = self.transformer(inner, layers, dropout)
            self.onto = self.output_map(inner, out)
        elif base == "mlp":
            self.encoder = nn.Sequential(nn.Linear(width, out), nn.ReLU(), nn.Linear(out, out), nn.ReLU())
        else:
            if out % 2:
                raise OptionError(f"base={base!r} has two directions: their width {out} must be even")
            self.encoder = ContextEncoder(width, out // 2, base, layers=layers, dropout=dropout)

    def transformer(self, width: int, layers: int, dropout: float) -> GroupedTransformer:
        """The transformer."""
        return GroupedTransformer(1, width, layers, dropout=dropout)

    def output_map(self, width: int, out: int) -> nn.Module:
        """What follows the transformer."""
        return nn.Identity() if width == out else nn.Linear(width, out)

    def forward(self, x: Tensor, packing: Packing, mask: Tensor, tokens: Tokens) -> Tensor:
        """What it makes of a stream.

        x : `(B, T, width)`, zero at padding.
        tokens : what a transformer reads.
        """
        if self.base == "mlp":
            return zero_padded(self.encoder(x), mask)
        if isinstance(self.encoder, ContextEncoder):
            return self.encoder(x, packing, mask, mask.long())
        y = self.encoder(self.into(tokens.pack(x)).unsqueeze(0), tokens)
        return tokens.packing.unpack(self.onto(y[0]))


class Highway(nn.Module):
    r"""`g relu(W x + b) + (1 - g) (V x + c)`, gate `g = sigmoid(U x + d)`, all of one width."""

    def __init__(self, width: int):
        super().__init__()
        self.gate, self.nonlinear, self.linear = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * self.nonlinear(x).relu() + (1 - gate) * self.linear(x)
