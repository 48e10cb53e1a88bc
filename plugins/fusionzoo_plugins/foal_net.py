"""Foal-Net's fusion: a stack of cross-attention for each direction, pooled over the real frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive, check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.layers import dropout
from fusionzoo.numerics import masked_mean, masked_softmax, zero_padded
from fusionzoo.reference import WithReference, within
from fusionzoo_plugins._pair_attention import PairAttention, at_every_step, check_aligned, one_clock, pairs

POOLS = ("mean", "attention")


class JointAttention(WithReference, PairAttention):
    """`PairAttention` with the published initial values: weights N(0, 0.02²), no bias at first."""

    def __init__(self, width: int, memory_width: int | None = None, *, heads: int, inner: int | None = None):
        inner = inner or width
        super().__init__(width, memory_width, heads=heads, key_width=inner // heads, out=inner)
        for part in (self.query, self.key, self.value, self.mix):
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def reference_names(self) -> Mapping[str, str]:
        return {"w_q.": "query", "w_k.": "key", "w_v.": "value", "w_concat.": "mix"}


class CrossLayer(WithReference, nn.Module):
    r"""One layer: :math:`\operatorname{LN}(\operatorname{dropout}(\operatorname{MHA}(x, k, v)) + x)`.

    Parameters
    ----------
    query_width, memory_width : of x, and of k and v.
    heads : must divide `width`.
    width : of the output; None for `query_width`, another one leaves the residual out, as published.
    dropout : on what was read.
    fill : score of padded keys, which are attended to evenly where there is nothing else; None leaves them out.
    """

    def __init__(
        self,
        query_width: int,
        memory_width: int,
        *,
        heads: int,
        width: int | None = None,
        dropout: float = 0.1,
        fill: float | None = None,
    ):
        super().__init__()
        width = width or query_width
        self.attention = JointAttention(query_width, memory_width, heads=heads, inner=width)
        self.norm = nn.LayerNorm(width)
        self.residual, self.dropout = width == query_width, dropout
        self.fill = fill

    def forward(
        self, x: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """`(B, Q, width)`, and the weights `(B, heads, Q, S)` if asked for; key_mask : bool `(B, S)`, True where real."""
        out, weights = self.attention(x, key, value, key_mask, need_weights, self.fill)
        out = dropout(out, self.dropout, self.training)
        return self.norm(out + x if self.residual else out), weights

    def reference_names(self) -> Mapping[str, str]:
        return within("attention", self.attention.reference_names()) | {"ln.": "norm"}


class SoftAttention(WithReference, nn.Module):
    r"""Attention without a query: :math:`\sum_t a_t x_t` with :math:`a = \operatorname{softmax}_t \tanh\langle w, x_t\rangle`.

    The pooling that the published code offers beside the mean. Parameters: the width.
    """

    def __init__(self, width: int):
        super().__init__()
        # Published: uniform in (0, 1), with which the tanh of a wide vector saturates.
        self.weight = nn.Parameter(torch.empty(width, 1).normal_(std=0.02))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pooled `(B, d)` and weights `(B, T)` of `(B, T, d)`; mask : bool `(B, T)`, True where real."""
        x = zero_padded(x, mask)
        weights = masked_softmax(torch.tanh(x @ self.weight).squeeze(-1), mask)
        return (weights.unsqueeze(1) @ x).squeeze(1), weights

    def reference_names(self) -> Mapping[str, str]:
        return {"atten_weight": "weight"}


class FoalNet(Fusion):
    r"""Stacks of cross-attention for every direction between modalities (the fusion of Foal-Net).

    In the direction :math:`m \leftarrow n` modality m asks and modality n answers, at each of L layers again as it came in:

    .. math::
        X \leftarrow \operatorname{LN}\big(\operatorname{dropout}(\operatorname{MHA}^{(l)}_{mn}(X,\, x_n,\, x_n)) + X\big),
        \quad X_0 = x_m, \qquad
        g_{mn} = \tfrac{1}{|\mathcal T_m|} \sum_{t \in \mathcal T_m} X^{(L)}_t, \qquad
        y = W\,[g_{mn}]_{m \ne n} + b

    :math:`\mathcal T_m` are the steps where m is present. With two modalities, audio and video, y is the paper's
    :math:`[g_a; g_v]`. Every modality keeps its own width; no feed-forward network, no position.

    `pool=None`, the default, leaves the mean out: y keeps the anchor's steps, the directions side by side. Where the streams
    have different lengths there are no common steps: a direction in which another modality asks enters through its
    mean, the same at each of the anchor's steps. `pool="mean"` is the paper's.

    Departs from the published code: a direction whose memory is empty adds nothing to the residual. More than two
    modalities are this project's generalisation.

    Options
    -------
    layers : L of every direction, default 2.
    heads : of every attention, must divide every width; default the largest of 4 (the published), 2, 1 that divides
        the width of who asks.
    dropout : on what was read, default 0.1.
    pool : None, `"mean"`, or `"attention"` (`SoftAttention`, one per direction): one vector per sequence.
    aligned : whether equal lengths mean equal steps (`pool=None`): True, False (never), or None, the default: they do
        where all lengths agree.
    variant : see `variants`.

    Parameters: per direction and layer :math:`2 d_m^2 + 2 d_m d_n + 6 d_m` (and :math:`d_m` per direction with
    `pool="attention"`), then the output map. Audio 1024 and video 768 with two layers: 12,866,560 without output map.

    Source: Li et al., "Enhancing Modal Fusion by Alignment and Label Matching for Multimodal Emotion Recognition" (Foal-Net),
    Interspeech 2024, arXiv 2408.09438; code ASolitaryMan/Foal-Net@781849fdf6, `model.py`.

    Shapes: streams `(B, T_m, d_m)` -> `(B, T, out_dim)` with the anchor's T, or `(B, out_dim)` with pool;
    `Fused.streams[m]` is `(B, T_m, d_m)`, the mean over the directions in which m asks, and `Fused.streams["text.input"]`
    what was read; `Fused.attention["text<-audio.0"]` is `(B, heads, T_text, T_audio)`: what text reads of audio in layer 0.

    `read` and `pooled` run one direction on any sequences, such as those of other pairs of samples:

    >>> fusion = FoalNet({"audio": 8, "video": 4}, pool="mean")
    >>> audio, video = torch.rand(2, 9, 8), torch.rand(2, 5, 4)
    >>> fusion([audio, video]).shape
    torch.Size([2, 8])
    >>> fusion.pooled("video", "audio", video, audio.flip(0)).shape
    torch.Size([2, 4])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.foal_net:OfficialFoalNet"}
    reference_table = "fusionzoo_plugins.official.foal_net"
    #: Score of a padded key; None leaves it out.
    fill: ClassVar[float | None] = None
    unaligned = True
    for_sequences: ClassVar[dict[str, Any]] = {"aligned": False}

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        layers: int = 2,
        heads: int | None = None,
        dropout: float = 0.1,
        pool: str | None = None,
        aligned: bool | None = None,
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.pool = None if pool is None else check_choice(pool, POOLS, "pool", self)
        self.aligned = check_aligned(aligned, self)
        layers, dropout = check_positive(layers, "layers", self), check_probability(dropout, "dropout", self)
        widths = list(self.dims.values())
        self.pairs = pairs(len(widths))
        self.stacks = nn.ModuleList(
            nn.ModuleList(
                CrossLayer(
                    widths[q],
                    widths[n],
                    heads=self._heads(heads, self.names[q]),
                    dropout=dropout,
                    fill=self.fill,
                )
                for _ in range(layers)
            )
            for q, n in self.pairs
        )
        self.pools = nn.ModuleList(SoftAttention(widths[q]) for q, _ in self.pairs if pool == "attention")
        self.set_width(sum(widths[q] for q, _ in self.pairs))

    def _heads(self, heads: int | None, name: str) -> int:
        width = self.dims[name]
        if heads is None:
            return next(h for h in (4, 2, 1) if width % h == 0)
        if check_positive(heads, "heads", self) and width % heads:
            raise OptionError(
                f"FoalNet: heads={heads} does not divide the width {width} of {name!r}; every modality keeps its own width"
            )
        return heads

    def read(
        self,
        query: str,
        memory: str,
        x: Tensor,
        y: Tensor,
        x_mask: Tensor | None = None,
        y_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, list[Tensor | None]]:
        """One direction on sequences of the caller's choice: `(B, T, d_query)`, and per layer the weights if asked for.

        Parameters
        ----------
        query, memory : names of the modality that asks and of the one that answers.
        x, y : their sequences, `(B, T, d_query)` and `(B, S, d_memory)`.
        x_mask, y_mask : bool `(B, T)` and `(B, S)`, True where real; None for everywhere. The result is zero elsewhere.
        """
        stack = self.stacks[self._direction(query, memory)]
        x, y = zero_padded(x, x_mask), zero_padded(y, y_mask)
        maps = []
        for layer in stack.children():
            x, weights = layer(x, y, y, y_mask, need_weights)
            maps.append(weights)
        return zero_padded(x, x_mask), maps

    def pooled(
        self,
        query: str,
        memory: str,
        x: Tensor,
        y: Tensor,
        x_mask: Tensor | None = None,
        y_mask: Tensor | None = None,
    ) -> Tensor:
        """One direction on sequences of the caller's choice, pooled over the real steps: `(B, d_query)`.

        The mean, or the `SoftAttention` of a fusion with `pool="attention"`. Parameters as for `read`.
        """
        return self._pool(self._direction(query, memory), self.read(query, memory, x, y, x_mask, y_mask)[0], x_mask)

    def _direction(self, query: str, memory: str) -> int:
        if query not in self.dims or memory not in self.dims or query == memory:
            raise OptionError(
                f"FoalNet has no direction in which {query!r} asks {memory!r}; name two of {', '.join(self.names)}"
            )
        return self.pairs.index((self.names.index(query), self.names.index(memory)))

    def _pool(self, direction: int, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.pools[direction](x, mask)[0] if self.pool == "attention" else masked_mean(x, mask)

    def combine(self, streams: Streams) -> Fused:
        xs, masks = streams.x, streams.present
        read, maps = [], {}
        for q, n in self.pairs:
            names = self.names[q], self.names[n]
            x, weights = self.read(*names, xs[q], xs[n], masks[q], masks[n], streams.attention)
            read.append(x)
            # torch 2.6 compiles no `|=` of mappings.
            maps.update({f"{names[0]}<-{names[1]}.{i}": w for i, w in enumerate(weights) if w is not None})
        by_query = {
            m: torch.stack([x for x, (q, _) in zip(read, self.pairs, strict=True) if q == i]).mean(0)
            for i, m in enumerate(self.names)
        }
        # What the directions read, for objectives that pair samples anew.
        by_query.update({f"{m}.input": x for m, x in zip(self.names, xs, strict=True)})
        return Fused(self._join(xs, read, masks), by_query, maps if streams.attention else {})

    def _join(self, xs: list[Tensor], read: list[Tensor], masks: list[Tensor | None]) -> Tensor:
        """All directions side by side: `(B, T, width)`, or `(B, width)` with pooling."""
        if self.pool is not None:
            return torch.cat([self._pool(i, x, masks[q]) for i, (x, (q, _)) in enumerate(zip(read, self.pairs, strict=True))], -1)  # fmt: skip
        if not one_clock(xs, self.aligned, self, self.names):
            steps = xs[0].shape[1]
            read = [at_every_step(x, masks[q], steps) if q else x for x, (q, _) in zip(read, self.pairs, strict=True)]
        return torch.cat(read, -1)


fusionzoo_register = fusionzoo.plugin(
    FoalNet,
    summary="cross-attention stacks for every direction, each pooled by its mean",
    paper="Li et al., Enhancing Modal Fusion by Alignment and Label Matching for Multimodal Emotion Recognition, "
    "Interspeech 2024, arXiv 2408.09438",
    code="ASolitaryMan/Foal-Net@781849fdf6",
    level="sequence",
    handles={"attention"},
    diagram="""
    audio["x_audio"] -- queries --> a["cross-attention, residual, norm, x 2"]
    video["x_video"] -- keys, values --> a
    video -- queries --> v["cross-attention, residual, norm, x 2"]
    audio -- keys, values --> v
    a --> cat(("concat"))
    v --> cat
    cat --> linear["W, b"] --> y["y"]
    """,
)
