"""The transformer encoder of the fairseq lineage: pre-norm, packed projections, sinusoids counted from one.

CFN-SR reads its audio with it. Batch-first; masks are bool and True where a step is real.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.errors import OptionError
from fusionzoo.layers import dropout
from fusionzoo.numerics import masked_softmax
from fusionzoo.reference import WithReference


def sinusoids(positions: Tensor, width: int, padding: int = 0) -> Tensor:
    r"""`(..., width)` in float32: :math:`[\sin(p f_k)\,|\,\cos(p f_k)]`, zero where p is `padding`.

    :math:`f_k = 10000^{-k / (\lfloor d / 2 \rfloor - 1)}`; an odd width ends in a zero.
    """
    half = width // 2
    # float32 whatever the streams are: bfloat16 cannot tell position 257 from 258.
    rates = torch.exp(
        torch.arange(half, dtype=torch.float32, device=positions.device) * -(math.log(1e4) / max(half - 1, 1))
    )
    angles = positions.unsqueeze(-1).float() * rates
    table = F.pad(torch.cat([angles.sin(), angles.cos()], -1), (0, width % 2))
    return torch.where((positions == padding).unsqueeze(-1), 0.0, table)


class SinusoidalPositions(WithReference, nn.Module):
    """Position vectors of a padded sequence, without parameters.

    Parameters
    ----------
    width : of the vectors.
    padding : the entry that marks padding; it gets a zero vector. Step t, from zero, has position `padding + 1 + t`:
        padding before a step does not shift it.
    left_pad : it does, so that the last step always has the position of a full sequence less the padding.
    """

    def __init__(self, width: int, padding: int = 0, left_pad: bool = False):
        super().__init__()
        self.width, self.padding, self.left_pad = width, padding, left_pad

    def forward(self, tokens: Tensor) -> Tensor:
        """`(B, T, width)` in float32 from `tokens (B, T)`, of any dtype."""
        real = tokens != self.padding
        positions = torch.arange(tokens.shape[1], device=tokens.device) + self.padding + 1
        positions = positions.expand(tokens.shape)
        if self.left_pad:
            positions = positions - tokens.shape[1] + real.sum(1, keepdim=True)
        return sinusoids(torch.where(real, positions, self.padding), self.width, self.padding)

    def reference_names(self) -> Mapping[str, str]:
        return {"": ""}

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Without the buffer that holds nothing."""
        return {k: v for k, v in state_dict.items() if k != "_float_tensor"}


class PackedAttention(WithReference, nn.Module):
    """Multi-head attention with one matrix for queries, keys and values.

    Parameters
    ----------
    width : of everything.
    heads : must divide it.
    dropout : on the weights.
    bias : of all four maps.
    bias_kv : append a learnt key and value.
    zero_attn : append a key and value of zeros.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        bias_kv: bool = False,
        zero_attn: bool = False,
    ):
        super().__init__()
        if width % heads:
            raise OptionError(f"PackedAttention: heads={heads} does not divide the width {width}")
        self.heads, self.dropout, self.zero_attn = heads, dropout, zero_attn
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width)) if bias else None
        self.out_proj = nn.Linear(width, width, bias)
        nn.init.xavier_uniform_(self.out_proj.weight)
        if bias:
            nn.init.zeros_(self.out_proj.bias)
        self.bias_k = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, 1, width))) if bias_kv else None
        self.bias_v = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, 1, width))) if bias_kv else None

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """`(B, Q, width)`, and the weights averaged over heads, `(B, Q, S)`, if asked for.

        query : `(B, Q, width)`.
        key, value : `(B, S, width)`.
        mask : bool, broadcastable to `(B, Q, S)`, True where a query may read a key; a query without any key attends
            to nothing.
        """
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, w, b) for x, w, b in zip((query, key, value), self.in_proj_weight.chunk(3), biases, strict=True)
        )
        added = 0
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (torch.cat([x, b.expand(x.shape[0], -1, -1)], 1) for x, b in ((k, self.bias_k), (v, self.bias_v)))
            added += 1
        if self.zero_attn:
            k, v, added = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1)), added + 1
        if mask is not None:
            mask = F.pad(mask, (0, added), value=True).unsqueeze(-3)
        q, k, v = (rearrange(x, "b t (h d) -> b h t d", h=self.heads) for x in (q, k, v))
        rate = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            full = masked_softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, mask)
            out, weights = dropout(full, rate, True) @ v, full.mean(1)
        elif mask is None:
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        else:
            # No kernel sees an empty softmax, whose result differs between backends.
            some = mask.any(-1, keepdim=True)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask | ~some, dropout_p=rate)
            out = torch.where(some, out, 0.0)
        return self.out_proj(rearrange(out, "b h t d -> b t (h d)")), weights

    def reference_names(self) -> Mapping[str, str]:
        return {"": ""}


class EncoderLayer(WithReference, nn.Module):
    """Pre-norm layer: attention, then a feed-forward net four times as wide; the first norm serves keys and values too.

    `causal`: a step reads only steps up to its own, or up to its own plus the difference of the two lengths.
    """

    def __init__(
        self, width: int, heads: int, dropout: float = 0.1, attention_dropout: float = 0.1, causal: bool = False
    ):
        super().__init__()
        self.self_attn = PackedAttention(width, heads, attention_dropout)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for part in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
        self.layer_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout, self.causal = dropout, causal

    def forward(
        self, x: Tensor, key: Tensor | None = None, value: Tensor | None = None, key_mask: Tensor | None = None
    ) -> Tensor:
        """`(B, T, width)` from `x (B, T, width)`; key, value : `(B, S, width)`, None for x itself; key_mask `(B, S)`."""
        query = self.layer_norms[0](x)
        keys: Tensor = query if key is None else self.layer_norms[0](key)
        values: Tensor = query if value is None else self.layer_norms[0](value)
        mask = None if key_mask is None else key_mask.unsqueeze(1)
        if self.causal:
            ahead = abs(keys.shape[1] - x.shape[1])
            past = torch.ones(x.shape[1], keys.shape[1], dtype=torch.bool, device=x.device).tril(ahead)
            mask = past.unsqueeze(0) if mask is None else past & mask
        out, _ = self.self_attn(query, keys, values, mask)
        x = x + dropout(out, self.dropout, self.training)
        hidden = dropout(F.relu(self.fc1(self.layer_norms[1](x))), self.dropout, self.training)
        return x + dropout(self.fc2(hidden), self.dropout, self.training)

    def reference_names(self) -> Mapping[str, str]:
        return {"": ""}


class CausalEncoder(WithReference, nn.Module):
    r"""Stack of pre-norm layers over :math:`\sqrt d\,x` plus positions, with a closing norm.

    Parameters
    ----------
    width, heads, layers : of the stack.
    dropout : of residuals and hidden layers. attention_dropout, embed_dropout.
    causal : a step reads only steps up to its own.
    zero_is_padding : a step whose first feature is exactly zero gets no position, as the published code does it.

    Parameters: :math:`12 d^2 + 13 d` a layer, and 2 d.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        *,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        embed_dropout: float = 0.0,
        causal: bool = False,
        zero_is_padding: bool = False,
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads, dropout, attention_dropout, causal) for _ in range(layers)
        )
        self.layer_norm = nn.LayerNorm(width)
        self.embed_dropout, self.zero_is_padding = embed_dropout, zero_is_padding

    def _embed(self, x: Tensor) -> Tensor:
        positions = torch.arange(1, x.shape[1] + 1, device=x.device).expand(x.shape[:2])
        if self.zero_is_padding:
            positions = torch.where(x[..., 0] == 0, 0, positions)
        embedded = x * x.shape[-1] ** 0.5 + sinusoids(positions, x.shape[-1]).to(x.dtype)
        return dropout(embedded, self.embed_dropout, self.training)

    def forward(
        self, x: Tensor, key: Tensor | None = None, value: Tensor | None = None, key_mask: Tensor | None = None
    ) -> Tensor:
        """`(B, T, width)`; key and value, if given, `(B, S, width)`, are embedded once and read by every layer.

        key_mask : bool `(B, S)`, True where a key is real; what it leaves out is never read, and must be free of NaN.
        """
        x = self._embed(x)
        key, value = (None if y is None else self._embed(y) for y in (key, value))
        for layer in self.layers:
            x = layer(x, key, value, key_mask)
        return self.layer_norm(x)

    def reference_names(self) -> Mapping[str, str]:
        return {"layers.": "layers", "layer_norm.": "layer_norm"}

    def reference_unused(self) -> Sequence[str]:
        return "version", "embed_positions."
