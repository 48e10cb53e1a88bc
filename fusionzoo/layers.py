"""Layers shared by fusions and hosts: attention of queries over a memory, as this field writes it.

`dropout` is torch's own by name and meaning, and quicker on a CPU.

Everything is batch-first and vectorised over the queries; masks are bool and True where a step is real.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError, ShapeError, close_matches_hint
from fusionzoo.kernels.dropout import dropout as dropout
from fusionzoo.numerics import SHIFT_INVARIANT, attend, masked_softmax, zero_padded
from fusionzoo.reference import check_reference as check_reference
from fusionzoo.reference import copy_reference as copy_reference
from fusionzoo.reference import copy_reference_parts as copy_reference_parts
from fusionzoo.reference import prefixed as prefixed

#: Score functions of `MatchingAttention`.
FORMS = ("general2", "general", "dot", "concat")


class MatchingAttention(nn.Module):
    """Attention of queries over a memory that serves as key and value.

    With memory `M_j` and query `x_i` the scores are, by `form`:

    - `general2`: `<W x_i + b, M_j>`
    - `general`: `<W x_i, M_j>`
    - `dot`: `<x_i, M_j>`, equal widths only
    - `concat`: `v . tanh(W [M_j ; x_i])`

    and with `tanh=True` the tanh of that, before the softmax over the real memory steps.

    Sources: the `MatchingAttention` classes of declare-lab/conv-emotion and the low-rank matching attention of
    yuntaoshou/LMAM. LMAM, DialogueGCN and bc-LSTM there mean `general2` with tanh; DialogueRNN means all four forms
    without. `SimpleAttention` is the form that has no query.

    Parameters
    ----------
    memory_width, query_width : `d_m` and `d_q`.
    form : score function, one of `FORMS`.
    alpha_width : width of the hidden layer of `concat`.
    tanh : squash the scores to (-1, 1) before the softmax.
    scaled : divide the products by the square root of their width first; without it the softmax over wide vectors
        saturates and hardly learns.

    Learnt parameters: `general2` `d_q d_m + d_m`, `general` `d_q d_m`, `dot` none, `concat`
    `(d_m + d_q + 1) alpha_width`.

    Raises `OptionError` for an unknown form, `dot` with unequal widths, or `concat` without `alpha_width`.
    """

    def __init__(
        self,
        memory_width: int,
        query_width: int,
        form: str = "general2",
        alpha_width: int | None = None,
        tanh: bool = False,
        scaled: bool = False,
    ):
        super().__init__()
        if form not in FORMS:
            hint = close_matches_hint(str(form), FORMS)
            raise OptionError(f"unknown form {form!r} of matching attention{hint}; one of {', '.join(FORMS)}")
        if form == "dot" and memory_width != query_width:
            raise OptionError(
                f"form 'dot' needs equal widths, not memory {memory_width} and query {query_width}; use 'general'"
            )
        self.memory_width, self.query_width, self.form, self.tanh = memory_width, query_width, form, tanh
        self.factor = memory_width**-0.5 if scaled else 1.0
        if form in ("general2", "general"):
            self.transform = nn.Linear(query_width, memory_width, bias=form == "general2")
        elif form == "concat":
            if not alpha_width:
                raise OptionError("form 'concat' needs alpha_width, the width of its hidden layer, for example 100")
            self.transform = nn.Linear(memory_width + query_width, alpha_width, bias=False)
            self.vector_prod = nn.Linear(alpha_width, 1, bias=False)

    def project(self, query: Tensor) -> Tensor:
        """The part of the score that depends on the query alone; recurrent callers compute it once for all steps.

        `(..., d_q)` to `(..., d_m)`, for `concat` to `(..., alpha_width)`.
        """
        if self.form == "dot":
            return query
        if self.form == "concat":
            return F.linear(query, self.transform.weight[:, self.memory_width :])
        return self.transform(query)

    def key(self, memory: Tensor) -> Tensor:
        """The part of the score that depends on the memory alone: the memory, for `concat` `(..., alpha_width)`."""
        if self.form == "concat":
            return F.linear(memory, self.transform.weight[:, : self.memory_width])
        return memory

    def score(self, key: Tensor, projected: Tensor) -> Tensor:
        """Scores `(B, Q, S)` from `key(memory) (B, S, .)` and `project(query) (B, Q, .)`, before the softmax."""
        if self.form == "concat":
            scores = self.vector_prod(torch.tanh(key.unsqueeze(1) + projected.unsqueeze(2))).squeeze(-1)
        else:
            scores = projected @ key.transpose(-1, -2)
            scores = scores if self.factor == 1.0 else scores * self.factor
        return scores.tanh() if self.tanh else scores

    def forward(self, memory: Tensor, query: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pooled memory `(B, Q, d_m)` and weights `(B, Q, S)`.

        Parameters
        ----------
        memory : `(B, S, d_m)`.
        query : `(B, Q, d_q)`.
        mask : bool `(B, S)`, True where a memory step is real. Other steps get weight zero and are never read; a row
            without any real step gives zeros.
        """
        if memory.dim() != 3 or query.dim() != 3 or memory.shape[-1] != self.memory_width:
            raise ShapeError(
                f"matching attention takes memory (B, S, {self.memory_width}) and query (B, Q, {self.query_width}), "
                f"not {tuple(memory.shape)} and {tuple(query.shape)}"
            )
        # Zeroed rather than only given weight zero: 0 * NaN would bring padding back, in the value or in a gradient.
        memory = zero_padded(memory, mask)
        scores = self.score(self.key(memory), self.project(query))
        weights = masked_softmax(scores, None if mask is None else mask.unsqueeze(1))
        return weights @ memory, weights

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official weights: `transform.weight`, `transform.bias`, `vector_prod.weight`, where used."""
        copy_reference(self, state)

    def extra_repr(self) -> str:
        return f"{self.memory_width}, {self.query_width}, form={self.form!r}, tanh={self.tanh}"


class SimpleAttention(nn.Module):
    """Attention without a query: weights `softmax_j(w . M_j)`, pooled `sum_j a_j M_j`.

    Source: `SimpleAttention` of declare-lab/conv-emotion. Learnt parameters: `d_m`.
    """

    def __init__(self, memory_width: int):
        super().__init__()
        self.scalar = nn.Linear(memory_width, 1, bias=False)

    def forward(self, memory: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pooled memory `(B, d_m)` and weights `(B, S)` from memory `(B, S, d_m)` and mask `(B, S)`."""
        memory = zero_padded(memory, mask)
        weights = masked_softmax(self.scalar(memory).squeeze(-1), mask)
        return (weights.unsqueeze(1) @ memory).squeeze(1), weights

    def project(self, query: Tensor) -> Tensor:
        """The query as it is; nothing depends on it. Present so that recurrent callers treat all forms alike."""
        return query

    def key(self, memory: Tensor) -> Tensor:
        """The scores themselves, `(B, S, 1)`."""
        return self.scalar(memory)

    def score(self, key: Tensor, projected: Tensor) -> Tensor:
        """Scores `(B, Q, S)`, the same for every query."""
        return key.transpose(-1, -2).expand(-1, projected.shape[1], -1)

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official weights: `scalar.weight`."""
        copy_reference(self, state)


def pick_heads(width: int, heads: int | None, owner: object) -> int:
    """The number of heads asked for, or the largest of 8, 4, 2, 1 that divides the width."""
    if heads is None:
        return next(h for h in (8, 4, 2, 1) if width % h == 0)
    if check_positive(heads, "heads", owner) and width % heads:
        raise OptionError(f"{type(owner).__name__}: heads={heads} does not divide the width {width}")
    return heads


class MultiheadAttention(nn.Module):
    r"""Scaled-dot-product multi-head attention of one stream over another, on torch's fused kernels.

    .. math:: \operatorname{MHA}(x, m) = W^o\,[\operatorname{softmax}(Q_h K_h^\top / \sqrt h)\,V_h]_h + b^o

    Parameters
    ----------
    width : of the queries and of the output.
    memory_width : of keys and values; None for `width`.
    heads : number of heads.
    inner : heads times the width of a head; None for `width`.
    dropout : on the attention weights, in training.
    bias : of the query, key and value maps.

    `query`, `key`, `value` and `mix` are plain linear maps; an official `in_proj_weight` is their rows one after another.
    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.2.
    """

    def __init__(
        self,
        width: int,
        memory_width: int | None = None,
        *,
        heads: int,
        inner: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
    ):
        super().__init__()
        memory_width, inner = memory_width or width, inner or width
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, inner, bias)
        self.key = nn.Linear(memory_width, inner, bias)
        self.value = nn.Linear(memory_width, inner, bias)
        self.mix = nn.Linear(inner, width)

    def forward(
        self, x: Tensor, memory: Tensor, key_mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """`(B, Q, width)` and the weights `(B, heads, Q, S)` if asked for.

        x : `(B, Q, width)`.
        memory : `(B, S, memory_width)`, free of NaN.
        key_mask : bool `(B, S)`, True where real; a row without any real key attends to nothing: `mix` of zeros.
        """
        rate = self.dropout if self.training else 0.0
        q, k, v = self.query(x), self.key(memory), self.value(memory)
        out, weights = attend(q, k, v, self.heads, key_mask, rate, need_weights)
        return self.mix(out), weights

    @property
    def without_gradient(self) -> dict[str, str]:
        """The bias of the keys learns nothing."""
        return {} if self.key.bias is None else {"key.bias": SHIFT_INVARIANT}
