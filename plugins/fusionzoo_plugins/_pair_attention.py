"""What fusions of ordered pairs of modalities share: attention over one other stream, and the anchor's clock."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from fusionzoo.errors import OptionError, ShapeError
from fusionzoo.numerics import SHIFT_INVARIANT, attend, masked_mean, same_length


class PairAttention(nn.Module):
    r"""Scaled-dot-product multi-head attention with every width free, and keys apart from values.

    .. math:: W^o\,[\operatorname{softmax}(Q_h K_h^\top / \sqrt{d_K})\,V_h]_h + b^o

    Parameters
    ----------
    width : of the queries and, unless `out` says otherwise, of the output.
    memory_width : of keys and values; None for `width`.
    heads : their number.
    key_width, value_width : of one head; None for `width // heads`, which need not divide, and for `key_width`.
    out : width of the output.
    mix : False leaves the last linear map out; the output then has `heads value_width`.
    """

    def __init__(
        self,
        width: int,
        memory_width: int | None = None,
        *,
        heads: int,
        key_width: int | None = None,
        value_width: int | None = None,
        out: int | None = None,
        mix: bool = True,
    ):
        super().__init__()
        memory_width, key_width = memory_width or width, key_width or width // heads
        value_width = value_width or key_width
        self.heads = heads
        self.query = nn.Linear(width, heads * key_width)
        self.key = nn.Linear(memory_width, heads * key_width)
        self.value = nn.Linear(memory_width, heads * value_width)
        self.mix = nn.Linear(heads * value_width, out or width) if mix else nn.Identity()

    def forward(
        self,
        x: Tensor,
        key: Tensor,
        value: Tensor,
        key_mask: Tensor | None = None,
        need_weights: bool = False,
        fill: float | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """`(B, Q, out)`, and the weights `(B, heads, Q, S)` if asked for.

        x : `(B, Q, width)`.
        key, value : `(B, S, memory_width)`, free of NaN.
        key_mask : bool `(B, S)`, True where real; a row without any real key gives zeros, without the bias of the last
            map.
        fill : score of the other keys, as some published code has it; such a row then attends to all of them alike.
        """
        q, k, v = self.query(x), self.key(key), self.value(value)
        if fill is not None and key_mask is not None:
            q, k, v = (rearrange(x, "b t (h d) -> b h t d", h=self.heads) for x in (q, k, v))
            scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            weights = torch.where(key_mask[:, None, None, :], scores, fill).softmax(-1)
            return self.mix(rearrange(weights @ v, "b h t d -> b t (h d)")), weights
        out, weights = attend(q, k, v, self.heads, key_mask, need_weights=need_weights)
        out = self.mix(out)
        if key_mask is not None:
            out = torch.where(key_mask.any(1)[:, None, None], out, 0.0)
        return out, weights

    @property
    def without_gradient(self) -> dict[str, str]:
        """The bias of the keys learns nothing."""
        return {"key.bias": SHIFT_INVARIANT}


def pairs(count: int) -> list[tuple[int, int]]:
    """Every ordered pair of different numbers: who asks, who is asked."""
    return [(q, n) for q in range(count) for n in range(count) if q != n]


def check_aligned(aligned: bool | None, owner: object) -> bool | None:
    """`aligned` if it is True, False or None, else `OptionError`."""
    if aligned is not None and not isinstance(aligned, bool):
        raise OptionError(f"{type(owner).__name__}: aligned must be True, False or None, not {aligned!r}")
    return aligned


def one_clock(xs: Sequence[Tensor], aligned: bool | None, owner: object, names: Sequence[str]) -> bool:
    """Whether equal positions in these streams are the same step; `ShapeError` if they should be and cannot."""
    same = same_length(xs)
    if aligned and not same:
        found = {m: int(x.shape[1]) for m, x in zip(names, xs, strict=True)}
        raise ShapeError(
            f"{type(owner).__name__}(aligned=True) takes streams of one length, got {found}; build it with aligned=None "
            "or aligned=False for unaligned sequences"
        )
    return aligned is not False and same


def at_every_step(x: Tensor, mask: Tensor | None, steps: int) -> Tensor:
    """The masked mean of `x (B, T, d)` at each of so many steps, `(B, steps, d)`."""
    return masked_mean(x, mask).unsqueeze(1).expand(-1, steps, -1)
