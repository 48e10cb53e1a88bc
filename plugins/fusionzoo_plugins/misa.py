"""Modality-invariant and -specific representations: what modalities share and what each keeps, fused as tokens."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from itertools import combinations
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.layers import MultiheadAttention, dropout, pick_heads
from fusionzoo.numerics import masked_mean, zero_padded
from fusionzoo.reference import WithReference
from fusionzoo_plugins._misa_losses import cmd, orthogonality, reconstruction
from fusionzoo_plugins._two_layers import TwoLayers

SIMILARITIES = ("cmd", "adversarial")
CELLS = ("lstm", "gru")


class TokenTransformer(nn.Module):
    """Post-norm transformer layer over a few tokens."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.attention = MultiheadAttention(width, heads=heads, dropout=dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = TwoLayers(width, feedforward, width, dropout)
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor | None, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        """`(N, tokens, width)` and the weights `(N, heads, tokens, tokens)`; mask bool `(N, tokens)`."""
        out, weights = self.attention(x, x, mask, need_weights)
        x = self.norm1(x + dropout(out, self.dropout, self.training))
        return self.norm2(x + dropout(self.feed(x), self.dropout, self.training)), weights


class MISA(Fusion):
    r"""Modality-invariant and -specific representations (MISA).

    .. math::
        u_m &= \operatorname{LN}(\operatorname{relu}(W_m x_m + b_m)), \qquad
        p_m = \sigma(W^p_m u_m + b^p_m), \qquad s_m = \sigma(W^s u_m + b^s) \\
        H &= \operatorname{Transformer}(p_1, \dots, p_M, s_1, \dots, s_M), \qquad
        y = W_2 \operatorname{relu}(W_1 \operatorname{vec} H + b_1) + b_2

    Acts within an utterance; one map makes the shared parts s of all modalities. Three losses, in `Fused.losses`, weighted
    by the options of the same names:

    .. math::
        L_\text{similarity} = \underset{m < n}{\operatorname{mean}}\ \operatorname{CMD}_5(s_m, s_n), \quad
        L_\text{difference} = \sum_m \|\hat p_m^\top \hat s_m\|_F^2 + \sum_{m < n} \|\hat p_m^\top \hat p_n\|_F^2, \quad
        L_\text{reconstruction} = \underset{m}{\operatorname{mean}}\ \|W^r_m (p_m + s_m) + b^r_m - u_m\|^2

    Every pair of streams is compared over the utterances at which both are present, and over none that is padding, where
    the published code takes all rows; the difference is a mean over the d x d products, as published. An absent modality
    has no tokens. Any number of modalities from two; the paper has three.

    Departs from the published code in taking utterance vectors: `MISANetwork` has its recurrent encoders in front.

    Options
    -------
    width : of the common space, default 128.
    heads : default 2, or 1 for an odd width.
    feedforward : hidden width of the transformer layer, default 4 width (published: 2048).
    dropout : default 0.1, in transformer and output map.
    similarity, difference, reconstruction : weights of the losses, default 1, 0.3, 1 (declare-lab/MISA).
    match : `"cmd"`, or `"adversarial"`: a classifier tells the modality from s behind a gradient reversal of weight
        `reverse`, default 1, and its cross-entropy is the similarity loss.

    Parameters: with w the width, f feedforward: :math:`\sum_m (d_m + 3) w + (2 M + 1)(w^2 + w)`, the transformer
    :math:`4 w^2 + 9 w + 2 f w + f`, the output map :math:`2 M w \to M w \to` out_dim; adversarial adds
    :math:`w \to w \to M`.
    Source: Hazarika et al., "MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment Analysis",
    ACM MM 2020, section 3; thuiar/MMSA@a94e65d07f.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.streams` has u_m as `"text"`, and `"text.private"`,
    `"text.shared"`, `"text.reconstruction"`, all `(B, T, w)`; `Fused.attention["tokens"]` is `(B, T, heads, 2 M, 2 M)`.

    >>> MISA({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    reference_table = "fusionzoo_plugins.official.misa"

    without_effect: ClassVar[dict[str, str]] = {
        "reverse": "of match='adversarial' alone",
    }

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int = 128,
        heads: int | None = None,
        feedforward: int | None = None,
        dropout: float = 0.1,
        similarity: float = 1.0,
        difference: float = 0.3,
        reconstruction: float = 1.0,
        match: str = "cmd",
        reverse: float = 1.0,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        w = self.width = check_positive(width, "width", self)
        heads = pick_heads(w, (1 if w % 2 else 2) if heads is None else heads, self)
        feedforward = 4 * w if feedforward is None else check_positive(feedforward, "feedforward", self)
        self.weights = {
            "similarity": _weight(similarity, "similarity"),
            "difference": _weight(difference, "difference"),
            "reconstruction": _weight(reconstruction, "reconstruction"),
        }
        self.match = check_choice(match, SIMILARITIES, "match", self)
        self.reverse = _weight(reverse, "reverse")
        self.dropout = check_probability(dropout, "dropout", self)
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(d, w), nn.ReLU(), nn.LayerNorm(w)) for d in self.dims.values()
        )
        self.private = nn.ModuleList(nn.Linear(w, w) for _ in self.names)
        self.shared = nn.Linear(w, w)
        self.restore = nn.ModuleList(nn.Linear(w, w) for _ in self.names)
        self.discriminator = TwoLayers(w, w, len(self.names), self.dropout) if match == "adversarial" else None
        self.transformer = TokenTransformer(w, heads, feedforward, self.dropout)
        self.head = TwoLayers(2 * len(self.names) * w, len(self.names) * w, self.out_dim, self.dropout)
        self.set_width(self.out_dim)

    def combine(self, streams: Streams) -> Fused:
        steps = streams.shape[1]
        masks = streams.present
        common = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, masks, strict=True)]
        private = [zero_padded(p(u).sigmoid(), m) for p, u, m in zip(self.private, common, masks, strict=True)]
        shared = [zero_padded(self.shared(u).sigmoid(), m) for u, m in zip(common, masks, strict=True)]
        restored = [zero_padded(r(p + s), m) for r, p, s, m in zip(self.restore, private, shared, masks, strict=True)]
        presence = streams.presence()
        there = None if presence is None else repeat(presence, "b t m -> (b t) (twice m)", twice=2)
        tokens = rearrange([*private, *shared], "tokens b t w -> (b t) tokens w")
        hidden, weights = self.transformer(tokens, there, streams.attention)
        hidden = rearrange(zero_padded(hidden, there), "(b t) tokens w -> b t (tokens w)", t=steps)
        fused = self.head(hidden)
        named = {
            f"{name}{suffix}": stream
            for suffix, group in (
                ("", common),
                (".private", private),
                (".shared", shared),
                (".reconstruction", restored),
            )
            for name, stream in zip(self.names, group, strict=True)
        }
        maps = {} if weights is None else {"tokens": rearrange(weights, "(b t) h q k -> b t h q k", t=steps)}
        return Fused(fused, named, maps, self._losses(common, private, shared, restored, masks))

    def _losses(
        self,
        common: list[Tensor],
        private: list[Tensor],
        shared: list[Tensor],
        restored: list[Tensor],
        masks: list[Tensor | None],
    ) -> dict[str, Tensor]:
        exact = torch.promote_types(common[0].dtype, torch.float32)
        pairs = list(combinations(range(len(common)), 2))
        told = None if self.discriminator is None else self._told_apart(shared, masks)
        # Losses divide small differences: no products in half precision. The meta device knows no autocast.
        device = common[0].device.type
        with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):
            u, p, s, r = ([x.to(exact) for x in group] for group in (common, private, shared, restored))
            both = {(m, n): _and(masks[m], masks[n]) for m, n in pairs}
            similarity = [cmd(s[m], s[n], both[m, n]) for m, n in pairs] if told is None else [told.to(exact)]
            own = [orthogonality(a, b, m) for a, b, m in zip(p, s, masks, strict=True)]
            across = [orthogonality(p[m], p[n], both[m, n]) for m, n in pairs]
            errors = [reconstruction(a, b, m) for a, b, m in zip(r, u, masks, strict=True)]
        losses = {
            "similarity": torch.stack(similarity).mean(),
            "difference": torch.stack([*own, *across]).sum(),
            "reconstruction": torch.stack(errors).mean(),
        }
        return {name: self.weights[name] * loss for name, loss in losses.items()}

    def tell_apart(self, shared: Tensor) -> Tensor:
        """Scores `(..., M)` of which modality `shared` `(..., w)` came from; its gradient comes back reversed.

        Only with `match="adversarial"`.
        """
        if self.discriminator is None:
            raise OptionError(
                f"MISA: no classifier tells modalities apart with match={self.match!r}; build it with match='adversarial'"
            )
        # The value is shared; the slope 1 - (1 + reverse).
        return self.discriminator(shared - (1 + self.reverse) * (shared - shared.detach()))

    def _told_apart(self, shared: list[Tensor], masks: list[Tensor | None]) -> Tensor:
        """Cross-entropy of telling the modality from what is shared."""
        x = torch.stack(shared, 2)  # (B, T, M, w)
        truth = torch.eye(len(shared), device=x.device, dtype=x.dtype)
        entropy = -(self.tell_apart(x).log_softmax(-1) * truth).sum(-1)  # (B, T, M)
        ones = entropy.new_ones(entropy.shape[:2], dtype=torch.bool)
        mask = torch.stack([ones if m is None else m for m in masks], -1)
        return masked_mean(entropy.reshape(-1, 1), mask.reshape(-1)).squeeze(-1)


class SequenceEncoder(nn.Module):
    """Two bidirectional recurrent layers with a norm between them; their final states, `(B, 4 d)`.

    Parameters: dim, width of the frames and of the states. cell : `"lstm"` or `"gru"`.
    """

    def __init__(self, dim: int, cell: str):
        super().__init__()
        build = {"lstm": nn.LSTM, "gru": nn.GRU}[check_choice(cell, CELLS, "cell", self)]
        self.first = build(dim, dim, bidirectional=True, batch_first=True)
        self.norm = nn.LayerNorm(2 * dim)
        self.second = build(2 * dim, dim, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x `(B, T, d)`; mask bool `(B, T)`, True where real, padding at the end; zeros without any real frame."""
        lengths = torch.full((len(x),), x.shape[1]) if mask is None else mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(zero_padded(x, mask), lengths, batch_first=True, enforce_sorted=False)
        packed, first = self.first(packed)
        _, second = self.second(packed._replace(data=self.norm(packed.data)))
        states = [s[0] if isinstance(s, tuple) else s for s in (first, second)]
        out = torch.cat(states, -1).transpose(0, 1).flatten(1)
        return out if mask is None else torch.where(mask.any(1, keepdim=True), out, 0.0)


class MISANetwork(WithReference, nn.Module):
    """The whole published MISA: sequences in, one answer per utterance; text is averaged, the others are encoded.

    Parameters
    ----------
    dims : modality to width of its frames; the first is the text.
    num_classes : width of the answer.
    cell : of the encoders, `"lstm"` or `"gru"`. options : of the fusion `MISA`, which is `.fusion`.

    Shapes: streams `(B, T, d_m)`, mask bool `(B, T)` -> what `MISA.fuse` returns, of `(B, num_classes)`.
    Source: as of `MISA`. `classify` is the published classifier of shared and private parts, which no loss reads.
    """

    reference_table = "fusionzoo_plugins.official.misa_network"

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, cell: str = "lstm", **options: Any):
        super().__init__()
        self.text, *others = dims
        self.encoders = nn.ModuleDict({m: SequenceEncoder(dims[m], cell) for m in others})
        self.fusion = MISA({m: d if m == self.text else 4 * d for m, d in dims.items()}, num_classes, **options)
        self.classify = nn.Linear(self.fusion.width, len(dims) + 1)

    def forward(self, streams: Mapping[str, Tensor], mask: Tensor | None = None) -> Fused:
        """The fusion's result for utterances; mask bool `(B, T)`, padding at the end."""
        vectors = {self.text: masked_mean(streams[self.text], mask)}
        return self.fusion.fuse(vectors | {m: e(streams[m], mask) for m, e in self.encoders.items()})


def _and(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a & b


def _weight(value: float, option: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise OptionError(f"MISA: {option} must be a number of at least 0, not {value!r}")
    return float(value)


fusionzoo_register = fusionzoo.plugin(
    MISA,
    summary="shared and private parts of every modality, fused as tokens",
    paper="Hazarika et al., MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment "
    "Analysis, ACM MM 2020",
    code="thuiar/MMSA@a94e65d07f",
    handles={"attention", "losses"},
    diagram="""
    x["x_m of every modality"] --> u["common space"]
    u --> p["private part"]
    u --> s["shared part, one map for all"]
    p --> tokens["transformer over 2 M tokens"]
    s --> tokens
    tokens --> y["output map"]
    p -. "losses" .-> s
    """,
)
