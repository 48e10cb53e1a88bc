"""Cross-modal attention with residual: one modality says where to look in another, nothing of which is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import Configured, check_choice, check_positive, check_probability
from fusionzoo.errors import ReferenceWeightsError, ShapeError
from fusionzoo.fusion import (
    Dims,
    Fused,
    Fusion,
    Streams,
    projection,
)
from fusionzoo.layers import pick_heads
from fusionzoo.numerics import SHIFT_INVARIANT, masked_softmax, zero_padded
from fusionzoo.reference import WithReference
from fusionzoo_plugins._causal_encoder import CausalEncoder
from fusionzoo_plugins._channels import JOINS, check_aligned, join_streams


class CrossModalBlock(Configured, WithReference, nn.Module):
    r"""Attention over the places of one modality's feature map, conditioned on the other modalities.

    .. math::
        a_n = \operatorname{Encoder}_n(g_n)_{\text{last}}, \qquad
        r_p = w^\top \tanh\big(W_x x_p + b_x + \textstyle\sum_n W_n a_n\big), \qquad
        \alpha = \operatorname{softmax}_p r, \qquad \tilde x_p = \alpha_p x_p + x_p

    with the softmax over the places of each frame. The published block has one guide, the audio.

    Parameters
    ----------
    channels : C of the map.
    guides : number of guides.
    width : k, that of the guides, too.
    heads, layers : of each guide's encoder.
    residual : add :math:`x_p`; False is the paper's ablation.
    causal : a guide's step reads only steps up to its own, as published.
    dropout, embed_dropout : of the encoders.
    spatial : False leaves the attention out, as upstream: x alone, or zeros.
    variant : that of `CFNSR`.

    >>> x, weights = CrossModalBlock(10, width=8)(torch.rand(2, 10, 3, 4, 4), torch.rand(2, 8, 6))
    >>> x.shape, weights.shape
    (torch.Size([2, 10, 3, 4, 4]), torch.Size([2, 3, 16]))
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.cfn_sr:OfficialCrossModalBlock"}
    reference_table = "fusionzoo_plugins.official.cfn_sr"
    #: Whether a guide's step whose first feature is exactly zero is taken for padding.
    zero_is_padding: ClassVar[bool] = False
    #: Whether w has a bias, which a softmax does not see.
    score_bias: ClassVar[bool] = False

    def __init__(
        self,
        channels: int,
        guides: int = 1,
        *,
        width: int = 64,
        heads: int = 8,
        layers: int = 5,
        residual: bool = True,
        causal: bool = True,
        dropout: float = 0.1,
        embed_dropout: float = 0.3,
        spatial: bool = True,
        variant: str = "default",
    ):
        super().__init__()
        self.residual, self.spatial = residual, spatial
        if not spatial:
            return
        self.channel_affine = nn.Linear(channels, width)
        self.y_affine = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(guides))
        self.encoders = nn.ModuleList(
            CausalEncoder(
                width,
                pick_heads(width, heads, self),
                layers,
                dropout=dropout,
                attention_dropout=dropout,
                embed_dropout=embed_dropout,
                causal=causal,
                zero_is_padding=self.zero_is_padding,
            )
            for _ in range(guides)
        )
        self.attn_weight_affine = nn.Linear(width, 1, bias=self.score_bias)

    @property
    def without_gradient(self) -> dict[str, str]:
        """The bias of the scores learns nothing."""
        return {"attn_weight_affine.bias": SHIFT_INVARIANT} if self.spatial and self.score_bias else {}

    def applied(self, weights: Tensor) -> Tensor:
        """What the maps `(B, F, N, C)` are multiplied by, from the weights `(B, F, N)`."""
        return weights

    def condition(self, guides: Sequence[Tensor], present: Sequence[Tensor | None]) -> Tensor:
        r""":math:`\sum_n W_n a_n`, `(B, k)`, from guides `(B, T_n, k)`; one that is absent adds nothing."""
        total: Tensor | None = None
        for guide, mask, encoder, affine in zip(guides, present, self.encoders, self.y_affine, strict=True):
            hidden = encoder(guide, key_mask=mask)
            if mask is None:
                part = affine(hidden[:, -1])
            else:
                last = (mask * torch.arange(mask.shape[1], device=mask.device)).amax(1)
                hidden = hidden.gather(1, last.view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])).squeeze(1)
                part = torch.where(mask.any(1, keepdim=True), affine(hidden), 0.0)
            total = part if total is None else total + part
        assert total is not None
        return total

    def attend(
        self, x: Tensor, guides: Sequence[Tensor], mask: Tensor | None, present: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """`(B, F, N, C)` and the weights `(B, F, N)`.

        x : `(B, F, N, C)`, N places in each of F frames.
        guides : `(B, T_n, width)`.
        mask : bool `(B, F, N)`, the real places.
        present : bool `(B, T_n)`, the guides' real steps. None is everywhere.
        """
        condition = self.condition(guides, present)
        hidden = torch.tanh(self.channel_affine(x) + condition[:, None, None])
        weights = masked_softmax(self.attn_weight_affine(hidden).squeeze(-1), mask)
        out = x * self.applied(weights).unsqueeze(-1)
        return (out + x if self.residual else out), weights

    def forward(self, x: Tensor, *guides: Tensor) -> tuple[Tensor, Tensor]:
        """A feature map of the same shape, and the weights `(B, F, N)`.

        x : `(B, C, F, H, W)`, or `(B, C, ...)` with fewer axes, which is one frame. guides : each `(B, width, T)`.
        """
        if not self.spatial:
            return (x if self.residual else torch.zeros_like(x)), x.new_ones(x.shape[0], 1, 1)
        if x.dim() < 3 or x.shape[1] != self.channel_affine.in_features:
            raise ShapeError(
                f"CrossModalBlock takes a map (B, {self.channel_affine.in_features}, ...) with the places after the "
                f"channels, got {tuple(x.shape)}; give a sequence (B, T, d) as x.transpose(1, 2)"
            )
        # Places in each of the frames; fewer axes are one frame.
        places = rearrange(x, "b c f ... -> b f (...) c") if x.dim() > 4 else rearrange(x, "b c ... -> b 1 (...) c")
        sequences = [rearrange(g, "b k t -> b t k") for g in guides]
        out, weights = self.attend(places, sequences, None, [None] * len(guides))
        return rearrange(out, "b f n c -> b c (f n)").reshape(x.shape), weights


class CFNSR(Fusion):
    r"""Cross-modal fusion network with self-attention and residual (CFN-SR).

    The anchor is looked at, the other modalities guide the look:

    .. math::
        a_n &= \operatorname{Encoder}_n(x_n)_{\text{last}}, \qquad
        r_i = w^\top \tanh\big(W x_i + b + \textstyle\sum_n W_n a_n\big) \\
        \tilde x_i &= x_i + x_i \operatorname{softmax}_i r, \qquad y_i = [\tilde x_i; x_{2,i}; \dots; x_{M,i}]

    over the anchor's utterances, or frames, i; the encoder is a causal pre-norm transformer whose last real step
    summarises a guide. The paper has one guide, audio, and a video map with a softmax over the places of each frame:
    that is `CrossModalBlock`, on maps `(B, C, T, H, W)`.

    Generalised: the guides' conditions add up in the tanh, so that any number of modalities can take part; an absent
    guide conditions nothing, and what is absent or padded gets no weight.
    The fixed head of the paper is left out.

    Options
    -------
    width : k of the attention and of the guides (projected if they differ), default 64.
    heads : of the encoders, default the largest of 8, 4, 2, 1 that divides k.
    layers : default 5.
    residual : add :math:`x_i`.
    causal : whether a guide's step reads only steps up to its own, default True.
    dropout : in the encoders' layers, default 0.1; embed_dropout of their input, default 0.3.
    join : `"steps"`; `"anchor"`: guides enter y as their mean, beside each step of the anchor, and may have other lengths;
        `"pool"`: every stream enters as its mean, one vector `(B, out_dim)`, the paper's head.
    variant : see `variants`.

    Parameters: :math:`(d_1 + 1) k + k + (M - 1)\,\big(k^2 + L\,(12 k^2 + 13 k) + 2 k\big)`, projections of the guides to
    k, and the output map. The paper's block (2048 channels, k = 64) has 385,345, of which the bias of w is
    one that is left out here.
    Source: Fu et al., "A cross-modal fusion network based on self-attention and residual structure for multimodal emotion
    recognition", arXiv 2111.02172; code skeletonNN/CFN-SR@2443494729, `networks/msaf_ravdess_ab_1.py`.

    Shapes: streams `(B, T_m, d_m)` -> `(B, T, out_dim)`; `Fused.attention["text"]`, named after the anchor, is `(B, T)`.

    >>> CFNSR({"visual": 8, "audio": 4}, width=8, layers=1)([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.cfn_sr:OfficialCFNSR"}
    unaligned = True
    for_sequences: ClassVar[dict[str, Any]] = {"join": "pool"}

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int = 64,
        heads: int | None = None,
        layers: int = 5,
        residual: bool = True,
        causal: bool = True,
        dropout: float = 0.1,
        embed_dropout: float = 0.3,
        join: str = "steps",
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.join = check_choice(join, JOINS, "join", self)
        widths = list(self.dims.values())
        width = check_positive(width, "width", self)
        self.project = nn.ModuleList(projection(d, width) for d in widths[1:])
        self.block = CrossModalBlock(
            widths[0],
            len(widths) - 1,
            width=width,
            heads=pick_heads(width, heads, self),
            layers=check_positive(layers, "layers", self),
            residual=residual,
            causal=causal,
            dropout=check_probability(dropout, "dropout", self),
            embed_dropout=check_probability(embed_dropout, "embed_dropout", self),
            variant=self.variant,
        )
        self.set_width(sum(widths))

    def combine(self, streams: Streams) -> Fused:
        if self.join == "steps":
            check_aligned(streams.x, self.names, self, "join='steps'", "join='anchor' or 'pool'")
        guides = [
            zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x[1:], streams.present[1:], strict=True)
        ]
        looked = streams.present[0]
        x, weights = self.block.attend(
            streams.x[0].unsqueeze(1), guides, None if looked is None else looked.unsqueeze(1), streams.present[1:]
        )
        xs = [x.squeeze(1), *streams.x[1:]]
        maps = {self.anchor: weights.squeeze(1)} if streams.attention else {}
        return Fused(join_streams(xs, streams.present, self.join), dict(zip(self.names, xs, strict=True)), maps)

    def on_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps `(B, C_m, ...)`, the anchor's looked at, of the same shapes; guides `(B, width, T)`."""
        looked, _ = self.block(*maps)
        return [looked, *maps[1:]]

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the block of the published network: two modalities, the guide of the block's width, no output map."""
        if len(self.names) != 2 or list(self.project.parameters()) or list(self.out.parameters()):
            widths = list(self.dims.values())
            raise ReferenceWeightsError(
                "the published weights are those of CFNSR for two modalities with width = the guide's and out_dim = the sum "
                f"of both, which has no projections; this one has the widths {self.dims}, width="
                f"{self.block.channel_affine.out_features} and out_dim={self.out_dim}, not {sum(widths)}"
            )
        self.block.load_reference(state_dict)


fusionzoo_register = fusionzoo.plugin(
    CFNSR,
    summary="the other modalities say where to look in the anchor; with residual",
    paper="Fu et al., A cross-modal fusion network based on self-attention and residual structure for multimodal "
    "emotion recognition, arXiv 2111.02172",
    code="skeletonNN/CFN-SR@2443494729",
    level="dialogue",
    handles={"attention"},
    diagram="""
    audio["x_audio"] --> encoder["causal transformer, last step"]
    encoder --> score["tanh attention"]
    anchor["x_anchor"] --> score
    score --> weigh(("x"))
    anchor --> weigh
    weigh --> add(("+"))
    anchor --> add
    add --> cat(("concat"))
    audio --> cat
    """,
)
