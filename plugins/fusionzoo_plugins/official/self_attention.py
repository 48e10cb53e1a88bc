"""The attention of LMAM's comparison: yuntaoshou/LMAM@1ac9f43823, `baseline/LMAM.py:Attention`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from einops import rearrange
from torch import Tensor

from fusionzoo_plugins.self_attention import SelfAttention, TokenAttention


class OfficialTokenAttention(TokenAttention):
    """Keys serve as values, and the softmax runs over the axis that holds heads and samples, not over the keys."""

    own_values = False

    def weigh(self, scores: Tensor, key_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        weights = rearrange(scores, "b heads q s -> (heads b) q s").softmax(0)
        return weights, rearrange(weights, "(heads b) q s -> b heads q s", heads=self.heads)


class OfficialSelfAttention(SelfAttention):
    """The attention of LMAM's comparison; for parity only.

    Keys serve as values, there is no residual, norm or embedding, and the softmax runs over heads and samples instead of
    keys, so that samples of a batch depend on each other and masks cannot be honoured. Its weights are reported as
    `(heads B, Q, S)`, and its projection goes straight to `out_dim`.
    """

    variant = "official"
    without_effect: ClassVar[dict[str, str]] = {"dropout": "the published attention drops nothing"}

    def build_attention(self, heads: int, hidden: int, score: str) -> None:
        self.attention = OfficialTokenAttention(self.width, heads, hidden, score, self.out_dim, self.dropout)

    def embedded(self, x: Tensor) -> Tensor:
        return x

    def finished(self, tokens: Tensor, out: Tensor) -> Tensor:
        return out

    def reference_names(self) -> Mapping[str, str]:
        return {"": "attention"}
