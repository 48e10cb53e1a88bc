"""MemoCMT: a cross-modal transformer whose every reading of one modality is asked for by another, then pooled."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
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
from fusionzoo.layers import MultiheadAttention, dropout, pick_heads
from fusionzoo.numerics import masked_mean, zero_padded
from fusionzoo_plugins._pair_attention import at_every_step, check_aligned, one_clock, pairs

POOLS = ("cls", "mean", "max", "min")


def pool_rows(rows: Tensor, mask: Tensor | None, pool: str) -> Tensor:
    """`rows (B, N, d)` to one `(B, d)`: the first real row (`"cls"`), or mean, max or min of the real ones.

    mask : bool `(B, N)`, True where real, None for everywhere. Zeros where there is no real row.
    """
    if pool == "mean":
        return masked_mean(rows, mask)
    if pool == "cls":
        if mask is None:
            return rows[:, 0]
        first = mask.int().argmax(1).view(-1, 1, 1).expand(-1, 1, rows.shape[-1])
        found = zero_padded(rows, mask).gather(1, first)
        return found.squeeze(1)
    if mask is not None:
        limit = torch.finfo(rows.dtype)
        rows = torch.where(mask.unsqueeze(-1), rows, limit.min if pool == "max" else limit.max)
    found = rows.amax(1) if pool == "max" else rows.amin(1)
    return found if mask is None else torch.where(mask.any(1, keepdim=True), found, 0.0)


class Reading(nn.Module):
    """Multi-head attention of one stream over another, a linear map and a layer norm; no residual."""

    def __init__(self, width: int, fused_width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = MultiheadAttention(width, heads=heads, dropout=dropout)
        self.linear = nn.Linear(width, fused_width)
        self.norm = nn.LayerNorm(fused_width)
        for part in (self.attention.query, self.attention.key, self.attention.value):
            # The published query, key and value maps are one matrix with three times the rows: hence the gain.
            nn.init.xavier_uniform_(part.weight, 0.5**0.5)
            nn.init.zeros_(part.bias)
        nn.init.zeros_(self.attention.mix.bias)

    def forward(
        self, x: Tensor, memory: Tensor, key_mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """`(B, Q, fused_width)` and the weights `(B, heads, Q, S)` if asked for."""
        out, weights = self.attention(x, memory, key_mask, need_weights)
        return self.norm(self.linear(out)), weights


class MemoCMT(Fusion):
    r"""Cross-modal transformer of MemoCMT: attention with swapped queries, and pooling over what was read.

    For every ordered pair, modality m asks and modality n answers:

    .. math::
        R^{m \leftarrow n} = \operatorname{LN}\big(W_{mn}\,\operatorname{MHA}_{mn}(x_m, x_n, x_n) + b_{mn}\big), \qquad
        F = [R^{m \leftarrow n}]_{m \ne n} \text{ along time}, \qquad
        y = \operatorname{pool}(F)

    With two modalities this is the paper's: text read by audio (of audio's length) before audio read by text. There is no
    residual, no feed-forward network and no position. Modalities of another width are projected first.

    `pool=None`, the default, keeps the anchor's steps: y_i is the mean of the rows that belong to step i, one of each pair.
    Where the streams have different lengths there are no common steps: the rows that another modality asked for enter
    through their mean, the same at each of the anchor's steps. With `pool` one vector per sequence, the paper's.

    Departs from the published code, which has no masks: padding is neither read nor pooled. A row counts where its query is
    present and its memory is not empty; where no row does, rows with an absent query stand in, which ask with zeros. More
    than two modalities are this project's generalisation.

    Options
    -------
    pool : None, `"mean"`, `"max"`, `"min"` (the paper's best), or `"cls"`: the first row, that of the first real step of
        the second modality; for two modalities only, and the second attention is then built in vain, as published.
    heads : attention heads, must divide w; default the largest of 8, 4, 2, 1 that does.
    width : common width w of the attentions; default the anchor's.
    fused_width : f, of the rows; default w.
    dropout : on the attention weights, and twice on the rows, as published; default 0.05.
    aligned : whether equal lengths mean equal steps (`pool=None`): True, False (never), or None, the default: they do
        where all lengths agree.
    variant : see `variants`.

    Parameters: projections, then per ordered pair :math:`4 w^2 + 4 w + w f + 3 f`, then the output map: two of 2,954,496
    at w = f = 768.

    Source: Khan et al., "MemoCMT: multimodal emotion recognition using cross-modal transformer-based feature fusion",
    Scientific Reports 15, 5473, 2025; code tpnam0901/MemoCMT@d3248703e7, `src/models/networks.py`.

    Shapes: streams `(B, T_m, d_m)` -> `(B, T, out_dim)` with the anchor's T, or `(B, out_dim)` with pool;
    `Fused.streams[m]` is `(B, T_m, f)`: the rows that m asked for, the mean over n; `Fused.attention["text<-audio"]` is
    `(B, heads, T_text, T_audio)`: what text reads of audio.

    >>> streams = [torch.rand(2, 5, 8), torch.rand(2, 9, 4)]
    >>> MemoCMT({"text": 8, "audio": 4}, pool="min")(streams).shape
    torch.Size([2, 8])
    >>> MemoCMT({"text": 8, "audio": 4})(streams).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.memo_cmt:OfficialMemoCMT"}
    reference_table = "fusionzoo_plugins.official.memo_cmt"
    unaligned = True
    for_sequences: ClassVar[dict[str, Any]] = {"aligned": False}

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        pool: str | None = None,
        heads: int | None = None,
        width: int | None = None,
        fused_width: int | None = None,
        dropout: float = 0.05,
        aligned: bool | None = None,
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.pool = None if pool is None else check_choice(pool, POOLS, "pool", self)
        self.width = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        fused_width = self.width if fused_width is None else check_positive(fused_width, "fused_width", self)
        self.heads = pick_heads(self.width, heads, self)
        self.dropout = check_probability(dropout, "dropout", self)
        self.aligned = check_aligned(aligned, self)
        if pool == "cls" and len(self.dims) > 2:
            raise OptionError(
                f"MemoCMT: pool='cls' takes the first row alone, which {self.names[0]!r} and {self.names[1]!r} make; "
                f"{', '.join(self.names[2:])} would be ignored. Use pool='mean', 'max' or 'min', or two modalities"
            )
        self.project = nn.ModuleList(projection(d, self.width) for d in self.dims.values())
        # By who is asked, then by who asks: the order of the rows, text before audio.
        self.pairs = sorted(pairs(len(self.dims)), key=lambda pair: pair[::-1])
        self.readings = nn.ModuleList(Reading(self.width, fused_width, self.heads, self.dropout) for _ in self.pairs)
        self.set_width(fused_width)

    def combine(self, streams: Streams) -> Fused:
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        masks = self.masks(streams)
        ones = [x.new_ones(x.shape[:2], dtype=torch.bool) if m is None else m for x, m in zip(xs, masks, strict=True)]
        rows, counted, readable, maps = [], [], [], {}
        # Two dropouts in a row upstream, which are one at this rate.
        rate = 1 - (1 - self.dropout) ** 2
        for (q, n), reading in zip(self.pairs, self.readings, strict=True):
            row, weights = reading(xs[q], xs[n], masks[n], streams.attention)
            rows.append(dropout(row, rate, self.training))
            any_key = ones[n].any(1, keepdim=True)
            readable.append(any_key.expand(-1, xs[q].shape[1]))
            counted.append(ones[q] & any_key)
            if weights is not None:
                maps[f"{self.names[q]}<-{self.names[n]}"] = weights
        if self.pool is None:
            fused = self._per_step(xs, rows, counted, readable)
        else:
            mask = None if all(m is None for m in masks) else _counted(torch.cat(counted, 1), torch.cat(readable, 1))
            fused = pool_rows(torch.cat(rows, 1), mask, self.pool)
        return Fused(fused, self._streams(rows, counted), maps)

    def masks(self, streams: Streams) -> list[Tensor | None]:
        """Which steps of each modality are read and pooled."""
        return streams.present

    def _per_step(self, xs: list[Tensor], rows: list[Tensor], counted: list[Tensor], readable: list[Tensor]) -> Tensor:
        """The mean of the rows that belong to each of the anchor's steps."""
        rows, counted, readable = list(rows), list(counted), list(readable)
        steps = xs[0].shape[1]
        if not one_clock(xs, self.aligned, self, self.names):
            for i, (q, _) in enumerate(self.pairs):
                if q:
                    rows[i] = at_every_step(rows[i], _counted(counted[i], readable[i]), steps)
                    counted[i], readable[i] = (
                        m.any(1, keepdim=True).expand(-1, steps) for m in (counted[i], readable[i])
                    )
        return masked_mean(torch.stack(rows, 2), _counted(torch.stack(counted, -1), torch.stack(readable, -1)))

    def _streams(self, rows: list[Tensor], counted: list[Tensor]) -> dict[str, Tensor]:
        out = {}
        for m, name in enumerate(self.names):
            own = [i for i, (q, _) in enumerate(self.pairs) if q == m]
            out[name] = masked_mean(torch.stack([rows[i] for i in own], 2), torch.stack([counted[i] for i in own], -1))
        return out


def _counted(counted: Tensor, readable: Tensor) -> Tensor:
    """The rows that count, along the last axis; where none does, those that could read something."""
    return counted | (readable & ~counted.any(-1, keepdim=True))


fusionzoo_register = fusionzoo.plugin(
    MemoCMT,
    summary="cross-attention with swapped queries, then cls, mean, max or min pooling",
    paper="Khan et al., MemoCMT: multimodal emotion recognition using cross-modal transformer-based feature "
    "fusion, Scientific Reports 15, 5473, 2025",
    code="tpnam0901/MemoCMT@d3248703e7",
    level="sequence",
    handles={"attention"},
    diagram="""
    text["x_text"] -- keys, values --> one["attention, linear, layer norm"]
    audio["x_audio"] -- queries --> one
    audio -- keys, values --> two["attention, linear, layer norm"]
    text -- queries --> two
    one --> cat(("concat along time"))
    two --> cat
    cat --> pool["mean per step, or pool"] --> y["y"]
    """,
)
