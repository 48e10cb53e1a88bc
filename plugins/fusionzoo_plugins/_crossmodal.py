"""The crossmodal transformer of MulT: a stack whose queries read one memory at every layer."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.layers import MultiheadAttention, dropout
from fusionzoo.numerics import masked_softmax


def sinusoids(x: Tensor) -> Tensor:
    """Positions 1 to T as `(T, d)`: sines in the first half of the width, cosines in the second, zero in an odd rest."""
    steps, width = x.shape[1:]
    half = width // 2
    # float32 whatever the streams are: bfloat16 cannot tell position 257 from 258.
    rates = torch.exp(torch.arange(half, device=x.device, dtype=torch.float32) * (-math.log(1e4) / max(half - 1, 1)))
    angles = torch.arange(1, steps + 1, device=x.device, dtype=torch.float32).unsqueeze(1) * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width % 2)).to(x.dtype)


class CrossmodalLayer(nn.Module):
    """Pre-norm transformer layer whose queries read a memory; without memory they read themselves."""

    def __init__(self, width: int, heads: int, attention_dropout: float, dropout: float):
        super().__init__()
        self.attention = MultiheadAttention(width, heads=heads, dropout=attention_dropout)
        self.norm = nn.LayerNorm(width)  # of queries and memory alike
        self.norm_hidden = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.reduce = nn.Linear(4 * width, width)
        self.dropout = dropout
        for linear, gain in (
            *((m, 0.5**0.5) for m in (self.attention.query, self.attention.key, self.attention.value)),
            *((m, 1.0) for m in (self.attention.mix, self.expand, self.reduce)),
        ):
            # The gain makes up for the published query, key and value being one matrix with three times the rows.
            nn.init.xavier_uniform_(linear.weight, gain)
            nn.init.zeros_(linear.bias)

    def _attend(self, x: Tensor, memory: Tensor, key_mask: Tensor | None, causal: bool, need_weights: bool):
        if not causal:
            return self.attention(x, memory, key_mask, need_weights)
        a = self.attention
        # Published streams may differ in length: step i then reads up to i + |T - S|.
        ahead = 1 + abs(memory.shape[1] - x.shape[1])
        allowed = x.new_ones(x.shape[1], memory.shape[1], dtype=torch.bool).triu(ahead).logical_not()
        if key_mask is not None:
            allowed = allowed & key_mask[:, None, None, :]
        projected = (a.query(x), a.key(memory), a.value(memory))
        q, k, v = (rearrange(y, "b t (h d) -> b h t d", h=a.heads) for y in projected)
        weights = masked_softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, allowed)
        out = dropout(weights, a.dropout, self.training) @ v
        return a.mix(rearrange(out, "b h t d -> b t (h d)")), weights if need_weights else None

    def forward(
        self, x: Tensor, memory: Tensor | None, key_mask: Tensor | None, causal: bool, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """`(B, Q, width)`, and the weights `(B, heads, Q, S)` if asked for."""
        query = self.norm(x)
        keys = query if memory is None else self.norm(memory)
        out, weights = self._attend(query, keys, key_mask, causal, need_weights)
        x = x + dropout(out, self.dropout, self.training)
        hidden = dropout(F.relu(self.expand(self.norm_hidden(x))), self.dropout, self.training)
        return x + dropout(self.reduce(hidden), self.dropout, self.training), weights


class CrossmodalEncoder(nn.Module):
    """Stack of crossmodal layers over one memory, the target's positions and a closing norm.

    Parameters
    ----------
    width, heads, layers : of the stack.
    positions : add sinusoidal positions.
    zero_is_padding : a step whose first feature is exactly zero gets no position.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        *,
        positions: bool,
        zero_is_padding: bool,
        attention_dropout: float,
        dropout: float,
        embed_dropout: float,
    ):
        super().__init__()
        self.layers = nn.ModuleList(CrossmodalLayer(width, heads, attention_dropout, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.positions, self.zero_is_padding, self.embed_dropout = positions, zero_is_padding, embed_dropout

    def _embed(self, x: Tensor) -> Tensor:
        embedded = x * x.shape[-1] ** 0.5
        if self.positions:
            places = sinusoids(x)
            embedded = embedded + (places * (x[..., :1] != 0) if self.zero_is_padding else places)
        return dropout(embedded, self.embed_dropout, self.training)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        key_mask: Tensor | None = None,
        causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """`(B, T, width)` and the last layer's weights `(B, heads, T, S)`.

        x : `(B, T, width)`.
        memory : `(B, S, width)`, None for x itself.
        key_mask : bool `(B, S)`, True where real.
        causal : a step reads only steps up to its own.
        """
        x = self._embed(x)
        memory = None if memory is None else self._embed(memory)
        weights = None
        for i, layer in enumerate(self.layers):
            x, weights = layer(x, memory, key_mask, causal, need_weights and i + 1 == len(self.layers))
        return self.norm(x), weights
