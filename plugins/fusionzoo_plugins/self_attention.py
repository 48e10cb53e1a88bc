"""All modalities of a dialogue as tokens of one self-attention."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import (
    Dims,
    Fused,
    Fusion,
    Streams,
    projection,
)
from fusionzoo.layers import dropout
from fusionzoo.numerics import SHIFT_INVARIANT, attend, masked_mean, masked_softmax, zero_padded

SCORES = ("scaled-dot", "dot", "additive", "bilinear")
SCOPES = ("dialogue", "utterance")


class TokenAttention(nn.Module):
    r"""Multi-head attention with the four score functions of LMAM's comparison.

    With head width h: `scaled-dot` :math:`q^\top k / \sqrt h`, `dot` :math:`q^\top k`, `additive`
    :math:`\tanh(w_k^\top k + w_q^\top q)`, `bilinear` :math:`q^\top W k`; w and W are shared by the heads.
    """

    #: Whether values have a map of their own; else keys serve as values.
    own_values: ClassVar[bool] = True

    def __init__(self, width: int, heads: int, hidden: int, score: str, out: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.hidden, self.score, self.dropout = heads, hidden, score, dropout
        inner = heads * hidden
        self.w_k = nn.Linear(width, inner)
        self.w_q = nn.Linear(width, inner)
        self.w_v = nn.Linear(width, inner) if self.own_values else None
        self.proj = nn.Linear(inner, out)
        shape = {"additive": (2 * hidden,), "bilinear": (hidden, hidden)}.get(score)
        bound = 1 / math.sqrt(hidden)
        self.weight = None if shape is None else nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

    def forward(
        self, memory: Tensor, query: Tensor, key_mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """`(B, Q, out)` and the weights, `(B, heads, Q, S)`."""
        rate = self.dropout if self.training else 0.0
        q, k = self.w_q(query), self.w_k(memory)
        if self.w_v is not None and self.score == "scaled-dot":
            out, weights = attend(q, k, self.w_v(memory), self.heads, key_mask, rate, need_weights)
            return self.proj(out), weights
        v = k if self.w_v is None else self.w_v(memory)
        q, k, v = (rearrange(x, "b t (heads d) -> b heads t d", heads=self.heads) for x in (q, k, v))
        weights, applied = self.weigh(self._scores(q, k), key_mask)
        return self.proj(rearrange(applied @ v, "b heads t d -> b t (heads d)")), weights

    def weigh(self, scores: Tensor, key_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The weights as they are reported, and as they are applied, from scores `(B, heads, Q, S)`."""
        weights = masked_softmax(scores, None if key_mask is None else key_mask[:, None, None, :])
        return weights, dropout(weights, self.dropout, True) if self.training and self.dropout else weights

    @property
    def without_gradient(self) -> dict[str, str]:
        """The bias of the keys learns nothing, unless keys are values too or a tanh stands before the softmax."""
        return {} if self.score == "additive" or not self.own_values else {"w_k.bias": SHIFT_INVARIANT}

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        if self.weight is not None:
            if self.score == "additive":
                of_key, of_query = self.weight.split(self.hidden)
                return torch.tanh((q @ of_query).unsqueeze(-1) + (k @ of_key).unsqueeze(-2))
            q = q @ self.weight
        scores = q @ k.transpose(-1, -2)
        return scores * self.hidden**-0.5 if self.score == "scaled-dot" else scores


class SelfAttention(Fusion):
    r"""Multi-head self-attention over the utterances of all modalities, averaged over modalities.

    .. math::
        u = [x_1 + e_1; \dots; x_M + e_M] \in \mathbb R^{MT \times w}, \qquad
        z = \operatorname{LN}\big(u + W^o \operatorname{MHA}(u, u, u)\big), \qquad
        y_i = \tfrac{1}{|\mathcal M_i|} \sum_{m \in \mathcal M_i} z^m_i

    with a learned modality embedding :math:`e_m`; modalities of another width are projected to w first.

    Options
    -------
    width : w; default the anchor's.
    heads : default the largest of 8, 4, 2, 1 that divides w.
    hidden : width of a head; default `w // heads`.
    score : `"scaled-dot"` (torch's fused kernels), `"dot"`, `"additive"`, `"bilinear"`.
    scope : `"dialogue"` (every utterance of every modality) or `"utterance"` (the modalities of one utterance).
    dropout : on the weights and the mixed output.
    variant : see `variants`.

    Parameters, with n = heads * hidden: projections, :math:`3(wn + n) + nw + w`, score parameters
    (additive 2 hidden, bilinear hidden^2), norm 2w, embeddings Mw. Source: Vaswani et al., "Attention Is All You Need",
    2017, section 3.2; score functions: yuntaoshou/LMAM@1ac9f43823, `baseline/LMAM.py:Attention`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.attention["self"]` is `(B, heads, M T, M T)`, with
    `scope="utterance"` `(B T, heads, M, M)`.

    >>> SelfAttention({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.self_attention:OfficialSelfAttention"}
    attention: TokenAttention

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        heads: int | None = None,
        hidden: int | None = None,
        score: str = "scaled-dot",
        scope: str = "dialogue",
        dropout: float = 0.1,
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.scope = check_choice(scope, SCOPES, "scope", self)
        self.width = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        heads, hidden = head_sizes(self.width, heads, hidden, self)
        check_choice(score, SCORES, "score", self)
        self.dropout = check_probability(dropout, "dropout", self)
        self.project = nn.ModuleList(projection(d, self.width) for d in self.dims.values())
        self.build_attention(heads, hidden, score)
        self.set_width(self.attention.proj.out_features)

    def build_attention(self, heads: int, hidden: int, score: str) -> None:
        """The attention and what stands around it."""
        self.attention = TokenAttention(self.width, heads, hidden, score, self.width, self.dropout)
        self.embedding = nn.Parameter(torch.randn(len(self.dims), self.width) * 0.02)
        self.norm = nn.LayerNorm(self.width)

    def embedded(self, x: Tensor) -> Tensor:
        """The tokens `(B, T, M, w)` with what says their modality."""
        return x + self.embedding

    def finished(self, tokens: Tensor, out: Tensor) -> Tensor:
        """The tokens `(N, S, w)` with what they read."""
        return self.norm(tokens + dropout(out, self.dropout, self.training))

    def combine(self, streams: Streams) -> Fused:
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        x = self.embedded(torch.stack(xs, 2))
        presence = streams.presence()
        sizes = dict(zip("btm", x.shape, strict=False))
        rows, columns = ("(b t)", "m") if self.scope == "utterance" else ("b", "(m t)")
        tokens = rearrange(x, f"b t m w -> {rows} {columns} w")
        keys = None if presence is None else rearrange(presence, f"b t m -> {rows} {columns}")
        out, weights = self.attention(tokens, tokens, keys, streams.attention)
        out = rearrange(self.finished(tokens, out), f"{rows} {columns} w -> b t m w", **sizes)
        fused = masked_mean(out, presence)
        maps = {"self": weights} if weights is not None and streams.attention else {}
        return Fused(fused, dict(zip(self.names, out.unbind(2), strict=True)), maps)


def head_sizes(width: int, heads: int | None, hidden: int | None, owner: object) -> tuple[int, int]:
    """Number of heads and width of a head, with the defaults of `SelfAttention`."""
    if heads is None:
        heads = next(h for h in (8, 4, 2, 1) if width % h == 0)
    check_positive(heads, "heads", owner)
    if hidden is None and width < heads:
        raise OptionError(f"SelfAttention: heads={heads} exceeds the width {width}; give hidden, the width of a head")
    return heads, width // heads if hidden is None else check_positive(hidden, "hidden", owner)


fusionzoo_register = fusionzoo.plugin(
    SelfAttention,
    summary="self-attention over the utterances of all modalities",
    paper="Vaswani et al., Attention Is All You Need, NeurIPS 2017",
    code="yuntaoshou/LMAM@1ac9f43823",
    level="dialogue",
    handles={"attention"},
    diagram="""
    x["x_1 ... x_M"] --> tokens["one token per utterance and modality, + modality embedding"]
    tokens --> attention["multi-head self-attention"] --> norm["+ residual, layer norm"]
    tokens --> norm
    norm --> mean(("mean over modalities")) --> y["y"]
    """,
)
