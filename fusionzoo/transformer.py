"""Transformer layers shared by fusions and hosts: attention, feed-forward, a layer of both, and SDT's encoder.

Everything is batch-first; masks are bool and True where a step is real. `load_reference` takes the names that SDT's
official code (butterfliesss/SDT@60af921823, `model.py`) gives these layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.kernels.dropout import dropout
from fusionzoo.layers import MultiheadAttention, pick_heads
from fusionzoo.numerics import attend
from fusionzoo.reference import copy_reference_parts

#: Where a layer normalises; see `TransformerLayer`.
NORMS = ("pre", "post", "carried")
ACTIVATIONS = ("gelu", "gelu-tanh", "relu")
#: Attention of streams that lie otherwise than `(B, T, d)`: queries, keys, values, heads, key mask and dropout rate to
#: what is attended to. Everything else in these layers looks at one step at a time, wherever it lies.
Through = Callable[[Tensor, Tensor, Tensor, int, Tensor | None, float], Tensor]


def sinusoidal_positions(x: Tensor) -> Tensor:
    """Sinusoidal positions 0 to T - 1 for `x (B, T, d)`, as `(T, d)`: sine and cosine take turns along the width.

    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.5.
    """
    steps, width = x.shape[-2:]
    # float32 whatever the stream is: bfloat16 cannot tell position 257 from 258.
    rates = torch.exp(torch.arange(0, width, 2, device=x.device, dtype=torch.float32) * (-math.log(1e4) / width))
    angles = torch.arange(steps, device=x.device, dtype=torch.float32).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width].to(x.dtype)


class Attention(MultiheadAttention):
    """`MultiheadAttention` whose values may come from another stream than its keys.

    Official names: `linear_q`, `linear_k`, `linear_v`, `linear`, as SDT's `MultiHeadedAttention`.
    """

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        key_mask: Tensor | None = None,
        need_weights: bool = False,
        values: Tensor | None = None,
        through: Through | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As `MultiheadAttention`; values : `(B, S, memory_width)`, None for the memory. through : see `Through`."""
        memory_values = memory if values is None else values
        rate = self.dropout if self.training else 0.0
        parts = self.query(x), self.key(memory), self.value(memory_values)
        if through is not None:
            return self.mix(through(*parts, self.heads, key_mask, rate)), None
        out, weights = attend(*parts, self.heads, key_mask, rate, need_weights)
        return self.mix(out), weights

    def reference_parts(self, prefix: str = "") -> dict[str, nn.Module]:
        """Official prefix -> the part that holds its weights."""
        names = {"linear_q": self.query, "linear_k": self.key, "linear_v": self.value, "linear": self.mix}
        return {f"{prefix}{name}.": part for name, part in names.items()}

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official weights; see `fusionzoo.layers.copy_reference_parts` for what is refused."""
        copy_reference_parts(self.reference_parts(), state)


class FeedForward(nn.Module):
    r"""Position-wise feed-forward block with residual and layer norm.

    .. math::
        \text{pre: } x + W_2\,\phi(W_1 \operatorname{LN}(x) + b_1) + b_2 \qquad
        \text{post: } \operatorname{LN}\big(x + W_2\,\phi(W_1 x + b_1) + b_2\big)

    Parameters
    ----------
    width : of input and output.
    hidden : of the layer between; None for four times the width.
    activation : `"gelu"`, `"gelu-tanh"` (its tanh approximation) or `"relu"`.
    norm : `"pre"` or `"post"`.
    eps : of the norm.
    dropout : after the activation and on the result.

    Official names: `w_1`, `w_2`, `layer_norm`, as SDT's `PositionwiseFeedForward`, which is
    `FeedForward(width, hidden, activation="gelu-tanh", eps=1e-6)`.
    """

    def __init__(
        self,
        width: int,
        hidden: int | None = None,
        *,
        activation: str = "gelu",
        norm: str = "pre",
        eps: float = 1e-5,
        dropout: float = 0.0,
    ):
        super().__init__()
        hidden = 4 * width if hidden is None else check_positive(hidden, "hidden", self)
        self.activation = check_choice(activation, ACTIVATIONS, "activation", self)
        self.after = check_choice(norm, ("pre", "post"), "norm", self) == "post"
        self.dropout = check_probability(dropout, "dropout", self)
        self.expand = nn.Linear(width, hidden)
        self.reduce = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., width)` to `(..., width)`."""
        out = self.update(x if self.after else self.norm(x))
        return self.norm(x + out) if self.after else x + out

    def update(self, x: Tensor) -> Tensor:
        """What the block adds to the residual, from its input after the norm that comes first, if one does."""
        hidden = self.expand(x)
        if self.activation == "relu":
            hidden = F.relu(hidden)
        else:
            hidden = F.gelu(hidden, approximate="tanh" if self.activation == "gelu-tanh" else "none")
        hidden = dropout(hidden, self.dropout, self.training)
        return dropout(self.reduce(hidden), self.dropout, self.training)

    def reference_parts(self, prefix: str = "") -> dict[str, nn.Module]:
        """Official prefix -> the part that holds its weights."""
        return {f"{prefix}w_1.": self.expand, f"{prefix}w_2.": self.reduce, f"{prefix}layer_norm.": self.norm}

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official weights; see `fusionzoo.layers.copy_reference_parts` for what is refused."""
        copy_reference_parts(self.reference_parts(), state)


class TransformerLayer(nn.Module):
    r"""Attention of a stream over itself or over a memory, then a feed-forward block.

    With :math:`q = \operatorname{LN}(x)`, or x where the norm comes after or not at all, memory m and
    :math:`a = \operatorname{MHA}(q, m)`:

    - `norm="pre"`: :math:`\operatorname{FF}(x + a)`
    - `norm="post"`: :math:`\operatorname{FF}(\operatorname{LN}(x + a))`, with the norm of FF after its residual too
    - `norm="carried"`: :math:`\operatorname{FF}(q + a)`: the residual carries the normalised stream, as in SDT

    Parameters
    ----------
    width : of the stream.
    memory_width : of the memory; None for `width`.
    heads : attention heads; None for the largest of 8, 4, 2, 1 that divides the width.
    hidden, activation : of `FeedForward`.
    norm_query : False leaves the first norm out (`"pre"` and `"carried"`).
    norm_memory : normalise the memory too.
    eps : of the norms.
    dropout : on the weights and on each block's result.
    """

    def __init__(
        self,
        width: int,
        memory_width: int | None = None,
        *,
        heads: int | None = None,
        hidden: int | None = None,
        activation: str = "gelu",
        norm: str = "pre",
        norm_query: bool = True,
        norm_memory: bool = False,
        eps: float = 1e-5,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.placement = check_choice(norm, NORMS, "norm", self)
        if norm == "post" and not norm_query:
            raise OptionError(
                "TransformerLayer: norm_query=False needs norm='pre' or 'carried'; 'post' has no such norm"
            )
        heads = pick_heads(width, heads, self)
        self.dropout = check_probability(dropout, "dropout", self)
        self.attention = Attention(width, memory_width, heads=heads, dropout=self.dropout)
        self.norm = nn.LayerNorm(width, eps) if norm_query else None
        self.memory_norm = nn.LayerNorm(memory_width or width, eps) if norm_memory else None
        block_norm = "post" if norm == "post" else "pre"
        self.feed_forward = FeedForward(
            width, hidden, activation=activation, norm=block_norm, eps=eps, dropout=self.dropout
        )

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        key_mask: Tensor | None = None,
        need_weights: bool = False,
        through: Through | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """`(B, Q, width)`, and the weights `(B, heads, Q, S)` if asked for.

        x : `(B, Q, width)`.
        memory : `(B, S, memory_width)`, None for x itself; free of NaN.
        key_mask : bool `(B, S)`.
        through : see `Through`; it gives no weights.
        """
        query = x if self.norm is None or self.placement == "post" else self.norm(x)
        if memory is None:
            memory = query
        elif self.memory_norm is not None:
            memory = self.memory_norm(memory)
        out, weights = self.attention(query, memory, key_mask, need_weights, through=through)
        x = (query if self.placement == "carried" else x) + dropout(out, self.dropout, self.training)
        if self.placement == "post" and self.norm is not None:
            x = self.norm(x)
        return self.feed_forward(x), weights

    def reference_parts(self, prefix: str = "") -> dict[str, nn.Module]:
        """Official prefix -> the part that holds its weights."""
        own = {} if self.norm is None else {f"{prefix}layer_norm.": self.norm}
        return {
            **self.attention.reference_parts(f"{prefix}self_attn."),
            **self.feed_forward.reference_parts(f"{prefix}feed_forward."),
            **own,
        }

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official weights; entries of a norm that this layer does without are ignored."""
        copy_reference_parts(self.reference_parts(), state, () if self.norm is not None else ("layer_norm.",))


class DialogueTransformer(nn.Module):
    r"""SDT's encoder of one stream, over itself (intra-modal) or over another modality (inter-modal).

    .. math::
        x^0 = x + p + s, \qquad m = \text{memory} + p + s, \qquad
        q = \operatorname{LN}(x^l) \;(x^0 \text{ for } l = 0), \qquad
        x^{l+1} = \operatorname{FF}\big(q + \operatorname{MHA}(q, m)\big)

    with sinusoidal positions p and an offset s, SDT's speaker embedding. Without a memory m is q; a memory is the same,
    never normalised, in every layer. The residual carries the normalised stream.

    Departs from the official code: whether a stream attends to itself is decided by `memory=None`, not by comparing the
    values of two tensors at run time; the first layer has no norm, which upstream builds and never uses; dialogues may be
    longer than 512 utterances; a dialogue without any real utterance attends to nothing.

    Parameters
    ----------
    width, heads : of the attention.
    hidden : of the feed-forward block; None for `width`, as SDT has it.
    layers : number of layers.
    dropout : on the input, the attention weights and each block's result.

    Parameters: per layer :math:`4 w^2 + 2 w h + 7 w + h`, and :math:`2 w` for each after the first.
    Source: Ma et al., "A Transformer-Based Model With Self-Distillation for Multimodal Emotion Recognition in
    Conversations", IEEE TMM 26, 2024, arXiv 2310.20494; butterfliesss/SDT@60af921823, `model.py:TransformerEncoder`.
    """

    def __init__(
        self, width: int, *, heads: int | None = None, hidden: int | None = None, layers: int = 1, dropout: float = 0.1
    ):
        super().__init__()
        self.dropout = check_probability(dropout, "dropout", self)
        self.layers = nn.ModuleList(
            TransformerLayer(
                width,
                heads=heads,
                hidden=width if hidden is None else hidden,
                activation="gelu-tanh",
                norm="carried",
                norm_query=i > 0,
                eps=1e-6,
                dropout=dropout,
            )
            for i in range(check_positive(layers, "layers", self))
        )

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        key_mask: Tensor | None = None,
        offset: Tensor | None = None,
        memory_offset: Tensor | None = None,
        need_weights: bool = False,
        positions: Tensor | None = None,
        through: Through | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """`(B, T, width)`, and the last layer's weights `(B, heads, T, S)` if asked for.

        x : queries, `(B, T, width)`.
        memory : keys and values, `(B, S, width)`; None for x itself.
        key_mask : bool `(B, S)`, True where a key is real.
        offset : added to x with the positions, `(B, T, width)`.
        memory_offset : the same for the memory; None for `offset`.
        positions, through : of streams that lie otherwise, for x and memory alike; see `Through`.
        """
        x = self._embed(x, offset, positions)
        if memory is not None:
            memory = self._embed(memory, offset if memory_offset is None else memory_offset, positions)
        weights = None
        for i, layer in enumerate(self.layers):
            x, weights = layer(x, memory, key_mask, need_weights and i + 1 == len(self.layers), through)
        return x, weights

    def _embed(self, x: Tensor, offset: Tensor | None, positions: Tensor | None) -> Tensor:
        x = x + (sinusoidal_positions(x) if positions is None else positions)
        return dropout(x if offset is None else x + offset, self.dropout, self.training)

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load SDT's `TransformerEncoder`; the buffer of positions and the first layer's norm are ignored."""
        parts: dict[str, nn.Module] = {}
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, TransformerLayer)
            parts |= layer.reference_parts(f"transformer_inter.{i}.")
        copy_reference_parts(parts, state, ("pos_emb.pe", "transformer_inter.0.layer_norm."))
