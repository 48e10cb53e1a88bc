"""Multimodal split attention: blocks of channels of all modalities compete for attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import Configured, check_choice, check_positive, check_probability
from fusionzoo.errors import OptionError, ShapeError
from fusionzoo.fusion import Dims, Streams
from fusionzoo.layers import dropout
from fusionzoo.numerics import masked_mean, masked_softmax
from fusionzoo.reference import WithReference
from fusionzoo_plugins._channels import JOINS, SCOPES, ChannelFusion, bottleneck, channel_norm

#: From a width to a norm over it.
Norm = Callable[[int], nn.Module]


class SplitAttention(nn.Module):
    """One squeeze and one softmax over the channel blocks of all modalities.

    Parameters
    ----------
    widths : channels of each modality.
    block : c of a block; a last block that is not full is padded with zeros.
    hidden : width of the joint features.
    norm : from a width to the norm over them.
    lowest : least attention.
    dropout : probability of dropping a block, in training.
    """

    def __init__(self, widths: Sequence[int], block: int, hidden: int, norm: Norm, lowest: float, dropout: float):
        super().__init__()
        self.widths, self.block, self.lowest, self.dropout = tuple(widths), block, lowest, dropout
        self.counts = [-(-w // block) for w in widths]
        self.joint_features = nn.Sequential(nn.Linear(block, hidden), norm(hidden), nn.ReLU())
        # One linear map per block; these are their rows.
        self.dense_group = nn.Linear(hidden, sum(self.counts) * block)
        slots = torch.cat([torch.arange(n * block) < w for n, w in zip(self.counts, widths, strict=True)])
        self.register_buffer("slots", slots.view(-1, block), persistent=False)

    def _split(self, x: Tensor) -> Tensor:
        """`(B, d)` as `(B, blocks, c)`."""
        return rearrange(F.pad(x, (0, -x.shape[-1] % self.block)), "b (n c) -> b n c", c=self.block)

    def forward(self, squeezed: Sequence[Tensor], presence: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Factors `(B, d_m)` for each modality, and the attention `(B, blocks, c)`.

        squeezed : `(B, d_m)`, zero where absent.
        presence : bool `(B, M)`; blocks of an absent modality take no part.
        """
        blocks = torch.cat([self._split(s) for s in squeezed], 1)
        keep = None
        if self.training and self.dropout:
            keep = dropout(torch.ones_like(blocks[..., :1]), self.dropout, True)
            blocks = blocks * keep
        joint = self.joint_features(blocks.sum(1))
        mask: Tensor = self.slots  # type: ignore[assignment]
        if presence is not None:
            owner = torch.cat([presence[:, i : i + 1].expand(-1, n) for i, n in enumerate(self.counts)], 1)
            mask = mask & owner.unsqueeze(-1)
        attention = masked_softmax(self.dense_group(joint).view(blocks.shape), mask, 1)
        factor = self.lowest + (1 - self.lowest) * attention
        factor = factor if keep is None else factor * keep
        parts = factor.split(self.counts, 1)
        return [p.flatten(1)[:, :w] for p, w in zip(parts, self.widths, strict=True)], attention


class MSAFBlock(Configured, WithReference, nn.Module):
    r"""MSAF on feature maps of any number of modalities, each with any number of axes after the channels.

    Parameters
    ----------
    channels : of each modality.
    block_channel : c.
    block_dropout, lowest_atten, reduction_factor : see `MSAF`.
    split_block : number of time segments, cut along the first axis after the channels, the rest in the last; each has
        weights of its own.
    variant : that of `MSAF`.

    >>> maps = [torch.rand(2, 32, 3, 4, 4), torch.rand(2, 20, 6), torch.rand(2, 8)]
    >>> [tuple(y.shape) for y in MSAFBlock([32, 20, 8], 8)(maps)]
    [(2, 32, 3, 4, 4), (2, 20, 6), (2, 8)]
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.msaf:OfficialMSAFBlock"}

    def __init__(
        self,
        channels: Sequence[int],
        block_channel: int,
        block_dropout: float = 0.0,
        lowest_atten: float = 0.0,
        reduction_factor: int = 4,
        split_block: int = 1,
        *,
        variant: str = "default",
    ):
        super().__init__()
        hidden = self.hidden_width(block_channel, reduction_factor)
        self.channels = tuple(channels)
        self.blocks = nn.ModuleList(
            SplitAttention(channels, block_channel, hidden, self.norm, lowest_atten, block_dropout)
            for _ in range(split_block)
        )

    def norm(self, width: int) -> nn.Module:
        """The norm of a hidden layer."""
        return channel_norm(width)

    def hidden_width(self, block: int, reduction: int) -> int:
        """Width of the joint features."""
        return bottleneck(block, reduction)

    def attend(
        self, xs: Sequence[Tensor], present: Sequence[Tensor | None], places: Sequence[Tensor | None]
    ) -> tuple[list[Tensor], Tensor]:
        """Streams of the same shapes, and the attention `(B, segments, c, blocks)`.

        xs : `(B, N_m, d_m)`, zero where absent.
        present : bool `(B, N_m)`, or None for everywhere.
        places : long `(B, N_m)`, the segment of each step; None where there is one segment.
        """
        factors: list[list[Tensor]] = []
        maps = []
        for i, block in enumerate(self.blocks):
            inside = [
                p if s is None else (s == i) if p is None else (s == i) & p
                for p, s in zip(present, places, strict=True)
            ]
            squeezed = [masked_mean(x, m) for x, m in zip(xs, inside, strict=True)]
            presence = None
            if any(m is not None for m in inside):
                alike = squeezed[0].new_ones(squeezed[0].shape[0], dtype=torch.bool)
                presence = torch.stack([alike if m is None else m.any(1) for m in inside], 1)
            factor, attention = block(squeezed, presence)
            factors.append(factor)
            maps.append(attention.transpose(1, 2))
        outs = []
        for m, (x, place) in enumerate(zip(xs, places, strict=True)):
            factor = torch.stack([f[m] for f in factors], 1)
            if place is not None:
                factor = factor.gather(1, place.unsqueeze(-1).expand(-1, -1, factor.shape[-1]))
            outs.append(x * factor)
        return outs, torch.stack(maps, 1)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps of the same shapes, `(B, C_m)` or `(B, C_m, ...)`."""
        for x, width in zip(maps, self.channels, strict=True):
            if x.dim() < 2 or x.shape[1] != width or (len(self.blocks) > 1 and x.dim() < 3):
                raise ShapeError(
                    f"MSAFBlock was built for maps (B, C, ...) with C = {self.channels}"
                    f"{' and a time axis after it' if len(self.blocks) > 1 else ''}, got {tuple(x.shape)}"
                )
        flat = [rearrange(x, "b c ... -> b (...) c") for x in maps]
        places: list[Tensor | None] = [None] * len(maps)
        if len(self.blocks) > 1:
            places = [
                _segments(torch.arange(x.shape[2], device=x.device), x.shape[2], len(self.blocks))
                .repeat_interleave(x[0, 0, 0].numel())
                .expand(x.shape[0], -1)
                for x in maps
            ]
        outs, _ = self.attend(flat, [None] * len(maps), places)
        return [y.transpose(1, 2).reshape(x.shape) for x, y in zip(maps, outs, strict=True)]


def _segments(step: Tensor, length: Tensor | int, count: int) -> Tensor:
    """The segment of each step: `length // count` steps in each, the rest in the last."""
    size = length // count
    size = size.clamp(min=1) if isinstance(size, Tensor) else max(size, 1)
    return torch.div(step, size, rounding_mode="floor").clamp(0, count - 1)


class MSAF(ChannelFusion):
    r"""Multimodal split attention fusion (MSAF).

    Every modality's channels are split into blocks of c; with :math:`s_m` the mean of modality m over the dialogue and
    :math:`B_m` its blocks,

    .. math::
        j = \operatorname{ReLU}\Big(\operatorname{Norm}\big(W \textstyle\sum_m \sum_{b \in B_m} s_{m,b} + u\big)\Big),
        \qquad a_b = \operatorname{softmax}_b (W_b\,j + u_b), \qquad
        \tilde x_{m,b} = \big(\lambda + (1 - \lambda)\,a_b\big) \odot x_{m,b}

    with the softmax over the blocks of all modalities, for each of the c channels; y is the modalities' :math:`\tilde x`
    one after another. On feature maps `(B, C, ...)`: `MSAFBlock`.

    Departs from the published code: a last block that is not full is padded rightly (there it crashes) and its empty
    channels take no part in the softmax, nor do the blocks of an absent modality; means and segments count real steps
    alone; the joint features have a layer norm and at least 8 features, if c has.

    Options
    -------
    block : c, default 32 or the narrowest modality's width.
    reduction : default 4.
    lowest : :math:`\lambda`, default 0.
    dropout : probability of dropping a whole block in training, the rest scaled up; default 0.
    segments : cut the dialogue into so many parts, each with its own squeeze, attention and weights; default 1.
    scope : `"dialogue"`, or `"utterance"`: each step is squeezed and reweighed by itself.
    join : `"steps"`; `"anchor"`: the others enter y as their mean, beside each step of the anchor, and may have other
        lengths; `"pool"`: every stream enters as its mean, one vector `(B, out_dim)`.
    variant : see `variants`.

    Parameters: with r joint features and n blocks, :math:`(c + 3) r + n c\,(r + 1)` a segment, and the output map; for
    [1024, 32] channels, c = 16 and r = 4 that is 5,356, the paper's first block on RAVDESS.
    Source: Su et al., "MSAF: Multimodal Split Attention Fusion", arXiv 2012.07175; code anita-hu/MSAF@125e0f1eef,
    `MSAF.py`.

    Shapes: streams `(B, T_m, d_m)` -> `(B, T, out_dim)`; `Fused.attention["blocks"]` is `(B, segments, c, n)`, with
    `scope="utterance"` `(B, T, c, n)`.

    >>> MSAF({"text": 8, "audio": 5}, block=4)([torch.rand(2, 5, 8), torch.rand(2, 5, 5)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.msaf:OfficialMSAF"}

    without_effect: ClassVar[dict[str, str]] = {
        "reduction": "narrow blocks have the fewest joint features whatever it is",
    }

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        block: int | None = None,
        reduction: int = 4,
        lowest: float = 0.0,
        dropout: float = 0.0,
        segments: int = 1,
        scope: str = "dialogue",
        join: str = "steps",
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.scope = check_choice(scope, SCOPES, "scope", self)
        self.join = check_choice(join, JOINS, "join", self)
        self.segments = check_positive(segments, "segments", self)
        if scope == "utterance" and segments > 1:
            raise OptionError(f"MSAF: scope='utterance' has no time to cut into segments={segments}")
        widths = list(self.dims.values())
        self.split = MSAFBlock(
            widths,
            min(32, *widths) if block is None else check_positive(block, "block", self),
            check_probability(dropout, "dropout", self),
            check_probability(lowest, "lowest", self),
            check_positive(reduction, "reduction", self),
            segments,
            variant=self.variant,
        )
        self.set_width(sum(widths))

    def reweighed(self, streams: Streams) -> tuple[list[Tensor], dict[str, Tensor]]:
        xs, present = streams.x, streams.present
        if self.scope == "dialogue":
            places = [self._places(x, p) for x, p in zip(xs, present, strict=True)]
            outs, maps = self.split.attend(xs, present, places)
            return outs, {"blocks": maps}
        steps = streams.shape[1]
        rows = [rearrange(x, "b t d -> (b t) 1 d") for x in xs]
        there = [None if p is None else rearrange(p, "b t -> (b t) 1") for p in present]
        outs, maps = self.split.attend(rows, there, [None] * len(xs))
        outs = [rearrange(y, "(b t) 1 d -> b t d", t=steps) for y in outs]
        return outs, {"blocks": rearrange(maps, "(b t) 1 c n -> b t c n", t=steps)}

    def _places(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        if self.segments == 1:
            return None
        if mask is None:
            step = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
            return _segments(step, x.shape[1], self.segments)
        return _segments(mask.cumsum(1) - 1, mask.sum(1, keepdim=True), self.segments)

    def on_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps `(B, C_m, ...)` of all modalities, reweighed, of the same shapes."""
        return self.split(maps)


fusionzoo_register = fusionzoo.plugin(
    MSAF,
    summary="channel blocks of all modalities compete for attention",
    paper="Su et al., MSAF: Multimodal Split Attention Fusion, arXiv 2012.07175",
    code="anita-hu/MSAF@125e0f1eef",
    level="dialogue",
    handles={"attention"},
    diagram="""
    text["x_text"] --> blocks["channel blocks"]
    others["x_audio, x_visual"] --> blocks
    blocks -- "mean, sum" --> joint["joint features"]
    joint --> soft["softmax over blocks"]
    soft --> weigh(("x"))
    blocks --> weigh
    weigh --> cat(("concat"))
    """,
)
