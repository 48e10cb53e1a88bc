"""Transformers over packed dialogues, several of equal size side by side.

Linear maps and norms see the real utterances only, `(G, N, d)` for G transformers; attention alone goes through the
padded form. G transformers of equal size are one batched product per layer, not G small ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._options import check_choice, check_positive
from fusionzoo.kernels import fast_form
from fusionzoo.kernels.dropout import draws_cheaply, dropout
from fusionzoo.kernels.packing import Buckets, Packing, to_device
from fusionzoo.layers import pick_heads
from fusionzoo.numerics import SHIFT_INVARIANT, attend


class Tokens:
    """The utterances of a batch that attention reads, dialogue after dialogue.

    With `stand_in` the first padded step of every dialogue is a token too, which stands in for all of them: official hosts
    attend to padding, whose steps are all alike.
    """

    def __init__(self, packing: Packing, stand_in: bool = False):
        steps = packing.steps
        lengths = [min(n + 1, steps) for n in packing.lengths] if stand_in else packing.lengths
        self.real, self.stand_in = packing, stand_in
        self.packing = Packing(lengths, steps, packing.device) if stand_in else packing
        self._places: dict[int, Tensor] = {}
        self._biases: dict[torch.dtype, Tensor] = {}

    @cached_property
    def _kept(self) -> Tensor:
        """Numbers of the tokens that are real utterances."""
        step = torch.arange(self.real.steps)
        real, token = (step < torch.tensor(x.lengths).unsqueeze(1) for x in (self.real, self.packing))
        return to_device(real[token].nonzero().squeeze(1), self.real.device)

    @cached_property
    def _at(self) -> Tensor:
        """The token `(B * T,)` of every step; a dialogue's last one for those that have none of their own."""
        lengths = torch.tensor(self.packing.lengths).unsqueeze(1)
        step = torch.minimum(torch.arange(self.packing.steps), (lengths - 1).clamp(min=0))
        first = lengths.cumsum(0) - lengths
        return to_device((first + step).clamp(max=max(self.packing.total - 1, 0)).flatten(), self.packing.device)

    @cached_property
    def _real_keys(self) -> Tensor:
        """bool `(B, T)`."""
        real = torch.arange(self.real.steps) < torch.tensor(self.real.lengths).unsqueeze(1)
        return to_device(real, self.real.device)

    def pack(self, x: Tensor) -> Tensor:
        """`(N, d)` from `(B, T, d)`."""
        return self.packing.pack(x)

    def utterances(self, x: Tensor) -> Tensor:
        """The real utterances `(..., N', d)` of tokens `(..., N, d)`."""
        return x.index_select(-2, self._kept) if self.stand_in else x

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, heads: int, key_mask: Tensor | None, rate: float
    ) -> Tensor:
        """Scaled-dot-product attention within every dialogue: tokens `(G, N, d)` to `(G, N, d)`.

        key_mask : bool `(G, B, T)`, which keys are there besides being real; a row without any key gives zeros.
        rate : of dropout on the weights.
        """
        return attend_tokens(self, query, key, value, heads, key_mask, rate)

    @cached_property
    def buckets(self) -> Buckets:
        """Dialogues of similar length."""
        return Buckets(self.packing)

    @cached_property
    def order(self) -> Tensor:
        """The dialogues `(B,)`, bucket after bucket."""
        return to_device(torch.tensor(self.buckets.order), self.packing.device)

    def bias(self, dtype: torch.dtype) -> Tensor:
        """`(B, T)`, what is added to the scores of a key: the logarithm of how often it counts; in the buckets' order."""
        if dtype not in self._biases:
            step, n = torch.arange(self.real.steps), torch.tensor(self.real.lengths)[self.buckets.order].unsqueeze(1)
            alike = torch.full(n.shape, -math.inf).double()
            if self.stand_in:
                alike = (self.real.steps - n).clamp(min=1).double().log()
            bias = torch.where(step < n, 0.0, torch.where(step == n, alike, -math.inf))
            self._biases[dtype] = to_device(bias.to(dtype), self.real.device)
        return self._biases[dtype]

    def place(self, groups: int) -> Tensor:
        """Row `(G * N,)` of every token where the buckets lie one after another, `(G, b, t)` each."""
        if groups not in self._places:
            starts, start = torch.zeros(groups, len(self.packing.lengths), dtype=torch.long), 0
            for rows, steps in self.buckets.groups:
                firsts = start + torch.arange(groups * len(rows)).view(groups, -1) * steps
                starts[:, rows] = firsts
                start += firsts.numel() * steps
            step = torch.arange(self.packing.steps)
            places = (starts.unsqueeze(-1) + step)[:, step < torch.tensor(self.packing.lengths).unsqueeze(1)]
            self._places[groups] = to_device(places.flatten(), self.packing.device)
        return self._places[groups]

    def padded(self, x: Tensor) -> Tensor:
        """`(G * B, T, d)` of tokens `(G, N, d)`, where every padded step is its stand-in."""
        return x.index_select(1, self._at).view(-1, self.packing.steps, x.shape[-1])

    def real_keys(self, key_mask: Tensor | None) -> Tensor | None:
        """bool `(G, B, T)` or `(B, T)`, None where every step of `padded` is one that counts."""
        if key_mask is not None:
            return self._real_keys & key_mask
        return None if self.stand_in else self._real_keys


def plain_attend_tokens(
    tokens: Tokens, query: Tensor, key: Tensor, value: Tensor, heads: int, key_mask: Tensor | None, rate: float
) -> Tensor:
    """`Tokens.attend`: padded, attended, packed again."""
    mask = tokens.real_keys(key_mask)
    if mask is not None:
        mask = mask.expand(len(query), -1, -1).flatten(0, 1)
    out, _ = attend(tokens.padded(query), tokens.padded(key), tokens.padded(value), heads, mask, rate)
    return out.reshape(len(query), -1, out.shape[-1]).index_select(1, tokens.packing.nodes)


@fast_form(plain_attend_tokens)
def attend_tokens(
    tokens: Tokens, query: Tensor, key: Tensor, value: Tensor, heads: int, key_mask: Tensor | None, rate: float
) -> Tensor:
    """Dialogues of similar length side by side; one stand-in counts for all padded steps."""
    groups, count, width = query.shape
    place, sizes = tokens.place(groups), [groups * b * t for b, t in tokens.buckets.shapes]

    def padded(x: Tensor) -> Sequence[Tensor]:
        rows = x.new_zeros(sum(sizes), width).index_copy_(0, place, x.reshape(groups * count, width))
        parts = zip(rows.split(sizes), tokens.buckets.shapes, strict=True)
        return [part.view(groups * b, t, heads, width // heads).transpose(1, 2) for part, (b, t) in parts]

    bias = tokens.bias(query.dtype).expand(groups, -1, -1)
    some: Tensor | None = None
    if key_mask is not None:
        there = key_mask.expand(groups, -1, -1).index_select(1, tokens.order) & (bias == 0)
        some = there.any(-1)
        # A row without any key attends to all of them and is zeroed below: no kernel sees an empty softmax.
        bias = torch.where(there | ~some.unsqueeze(-1), 0.0, -math.inf).to(query.dtype)
    outs, at = [], 0
    for q, k, v, (b, t) in zip(padded(query), padded(key), padded(value), tokens.buckets.shapes, strict=True):
        rows, at = slice(at, at + b), at + b
        out = _attend(q, k, v, bias[:, rows, :t].reshape(groups * b, 1, 1, t), rate)
        if some is not None:
            out = torch.where(some[:, rows].reshape(-1, 1, 1, 1), out, 0.0)
        outs.append(out.transpose(1, 2).reshape(-1, width))
    return torch.cat(outs).index_select(0, place).view(groups, count, width)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, rate: float) -> Tensor:
    # As in `fusionzoo.numerics.attend`: the dropout of torch's kernel costs more than its products.
    if not rate or not draws_cheaply(q):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=rate)
    return dropout((q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).softmax(-1), rate, True) @ v


class GroupedLinear(nn.Module):
    """G linear maps side by side: `(G, N, inputs)` to `(G, N, outputs)`; weight `(G, inputs, outputs)`."""

    def __init__(self, groups: int, inputs: int, outputs: int):
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(groups, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(groups, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class GroupedNorm(nn.Module):
    """G layer norms side by side."""

    def __init__(self, groups: int, width: int, eps: float = 1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(groups, 1, width)), nn.Parameter(torch.zeros(groups, 1, width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if len(self.weight) == 1:
            return F.layer_norm(x, x.shape[-1:], self.weight[0, 0], self.bias[0, 0], self.eps)
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:], eps=self.eps), self.weight)


class GroupedTransformerLayer(nn.Module):
    r"""G transformer layers side by side, `pre` or `post` norm, ReLU between the feed-forward maps.

    .. math::
        \text{pre: } h = x + \operatorname{MHA}(\operatorname{LN}_1 x, \operatorname{LN}_1 m), \quad
            y = h + W_2 \operatorname{ReLU}(W_1 \operatorname{LN}_2 h) \qquad
        \text{post: } h = \operatorname{LN}_1(x + \operatorname{MHA}(x, m)), \quad
            y = \operatorname{LN}_2(h + W_2 \operatorname{ReLU}(W_1 h))

    A memory m, x itself if there is none, shares its norm with the stream, as in MulT.
    """

    def __init__(self, groups: int, width: int, heads: int, hidden: int, norm: str, dropout: float):
        super().__init__()
        self.heads, self.pre, self.dropout = heads, norm == "pre", dropout
        self.query, self.key, self.value, self.mix = (GroupedLinear(groups, width, width) for _ in range(4))
        self.expand, self.reduce = GroupedLinear(groups, width, hidden), GroupedLinear(groups, hidden, width)
        self.norm1, self.norm2 = GroupedNorm(groups, width), GroupedNorm(groups, width)

    @property
    def without_gradient(self) -> dict[str, str]:
        """The biases of the keys learn nothing."""
        return {"key.bias": SHIFT_INVARIANT}

    def forward(self, x: Tensor, tokens: Tokens, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        q = self.norm1(x) if self.pre else x
        m = q if memory is None else self.norm1(memory) if self.pre else memory
        # Where the norms come first, dropout acts on what the blocks add alone: on attention weights and hidden layers it
        # is the most expensive part of a step, and torch's fused attention on a CPU has none.
        rate = self.dropout if self.training and not self.pre else 0.0
        a = self.mix(tokens.attend(self.query(q), self.key(m), self.value(m), self.heads, mask, rate))
        x = x + self._drop(a)
        if not self.pre:
            x = self.norm1(x)
        hidden = F.relu(self.expand(self.norm2(x) if self.pre else x))
        x = x + self._drop(self.reduce(hidden if self.pre else self._drop(hidden)))
        return x if self.pre else self.norm2(x)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


class GroupedTransformer(nn.Module):
    """G transformers of equal size side by side, each over one stream, or from one stream to another.

    Parameters
    ----------
    groups, width, layers : G, and size of each.
    heads : None for the largest of 8, 4, 2, 1 that divides the width.
    hidden : of the feed-forward block; None for four times the width.
    norm : `pre`, with one more norm at the end, or `post`.
    scaled : multiply what comes in by the square root of the width, as MulT does.
    dropout : on what each block adds, and with `post`, as in torch's layer, on attention weights and hidden layers.
    """

    def __init__(
        self,
        groups: int,
        width: int,
        layers: int,
        *,
        heads: int | None = None,
        hidden: int | None = None,
        norm: str = "pre",
        scaled: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_choice(norm, ("pre", "post"), "norm", self)
        heads, self.groups = pick_heads(width, heads, self), groups
        self.scale = math.sqrt(width) if scaled else 1.0
        self.layers = nn.ModuleList(
            GroupedTransformerLayer(groups, width, heads, hidden or 4 * width, norm, dropout)
            for _ in range(check_positive(layers, "layers", self))
        )
        self.norm = GroupedNorm(groups, width) if norm == "pre" else None

    def forward(self, x: Tensor, tokens: Tokens, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Tokens `(G, N, width)`; memory the same, None for x itself; mask bool `(G, B, T)`, which keys are there."""
        if self.scale != 1.0:
            x, memory = x * self.scale, None if memory is None else memory * self.scale
        for layer in self.layers:
            x = layer(x, tokens, memory, mask)
        return x if self.norm is None else self.norm(x)

    def renamed(self, states: Sequence[Mapping[str, Tensor]], names: Mapping[str, str]) -> dict[str, Tensor]:
        """The official states of the G transformers under the names of this one; what is not there is left out.

        names : official names of `layers`, `expand`, `reduce`, `norm1` and `norm2`, and of `norm` where there is one.
        The attention is torch's or fairseq's: `self_attn.in_proj_weight`, `self_attn.out_proj`.
        """
        out: dict[str, Tensor] = {}
        for own in self.state_dict():
            parts = own.split(".")
            found = [_official(state, parts, names) for state in states]
            if all(x is not None for x in found) and len({x.shape for x in found}) == 1:  # type: ignore[union-attr]
                out[own] = torch.stack(found)  # type: ignore[arg-type]
        return out

    def official_names(self, names: Mapping[str, str]) -> set[str]:
        """The entries of one official transformer that `renamed` reads."""
        kinds = ("weight", "bias")
        attention = [f"self_attn.in_proj_{k}" for k in kinds] + [f"self_attn.out_proj.{k}" for k in kinds]
        rest = [f"{names[part]}.{k}" for part in ("expand", "reduce", "norm1", "norm2") for k in kinds]
        out = {f"{names['layers']}.{i}.{x}" for i in range(len(self.layers)) for x in attention + rest}
        return out if self.norm is None else out | {f"{names['norm']}.{k}" for k in kinds}


def _official(state: Mapping[str, Tensor], own: list[str], names: Mapping[str, str]) -> Tensor | None:
    """One official tensor in the form of ours, named by its parts; None where it is missing."""
    kind = own[-1]
    if own[0] == "norm":
        x = state.get(f"{names['norm']}.{kind}")
        return None if x is None else x.unsqueeze(0)
    prefix, part = f"{names['layers']}.{own[1]}.", own[2]
    if part in ("query", "key", "value"):
        x = state.get(f"{prefix}self_attn.in_proj_{kind}")
        x = None if x is None or len(x) % 3 else x.chunk(3)[("query", "key", "value").index(part)]
    else:
        x = state.get(f"{prefix}{'self_attn.out_proj' if part == 'mix' else names[part]}.{kind}")
    if x is None:
        return None
    return x.t() if x.dim() == 2 else x.unsqueeze(0)


#: Names in `torch.nn.TransformerEncoder`.
TORCH_NAMES = {"layers": "layers", "expand": "linear1", "reduce": "linear2", "norm1": "norm1", "norm2": "norm2"}
#: Names in the transformer of MulT.
MULT_NAMES = {
    "layers": "layers",
    "expand": "fc1",
    "reduce": "fc2",
    "norm1": "layer_norms.0",
    "norm2": "layer_norms.1",
    "norm": "layer_norm",
}
