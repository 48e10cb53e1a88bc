"""Attentional feature fusion: local and global context decide, channel by channel, which modality is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import (
    Dims,
    Fused,
    Fusion,
    Streams,
    projection,
)
from fusionzoo.numerics import masked_mean, masked_softmax, zero_padded
from fusionzoo_plugins._channels import bottleneck, channel_norm

CONTEXTS = ("both", "local", "global")


class Pointwise(nn.Module):
    """Two linear maps, each with a norm, and a ReLU between them: the two branches of MS-CAM."""

    def __init__(self, width: int, hidden: int, outputs: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, hidden), norm(hidden), nn.ReLU(), nn.Linear(hidden, outputs), norm(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(..., outputs)` from `x (..., width)`."""
        return self.net(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


class AFF(Fusion):
    r"""Attentional feature fusion (AFF, and iterative iAFF).

    With the modalities projected to width w and L, G two-layer point-wise maps, L of each step and G of the mean over the
    dialogue's real steps (the multi-scale channel attention module, MS-CAM),

    .. math::
        u = \sum_m x_m, \qquad
        g_m = L(u)_m + G(\bar u)_m \;\;(m < M), \quad g_M = 0, \qquad
        y = \sum_m \operatorname{softmax}_m(g) \odot x_m

    channel by channel. For two modalities the softmax is the paper's :math:`y = \sigma(g_1) \odot x_1 + (1 - \sigma(g_1))
    \odot x_2`; more compete in one softmax, in which an absent modality takes no part. With `iterations=2`, iAFF, y takes
    the place of u in a second round with maps of its own.

    Departs from the paper: layer norm instead of batch norm, so that no sample depends on the batch, and at least 8 hidden
    features, if w has.

    Options
    -------
    width : common width w; default the anchor's.
    reduction : default 4.
    iterations : 1 for AFF, 2 for iAFF.
    context : `"both"`, `"local"` (L alone: each step by itself) or `"global"` (G alone).
    variant : see `variants`.

    Parameters: with h hidden features and :math:`o = (M - 1) w`, each of L and G has :math:`(w + 3) h + (h + 3) o`; a
    norm over a single feature is left out. And projections.
    Source: Dai et al., "Attentional Feature Fusion", WACV 2021, sections 3.2 to 3.4; code
    YimianDai/open-aff@0bcfd8a1b0, `aff_pytorch/aff_net/fusion.py`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.attention["gate"]` is `(B, T, w, M)`.

    >>> AFF({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.aff:OfficialAFF"}

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        reduction: int = 4,
        iterations: int = 1,
        context: str = "both",
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.context = check_choice(context, CONTEXTS, "context", self)
        if iterations not in (1, 2) or isinstance(iterations, bool):
            raise OptionError(f"AFF: iterations must be 1 (AFF) or 2 (iAFF), not {iterations!r}")
        self.width = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        hidden = self.hidden_width(check_positive(reduction, "reduction", self))
        self.project = nn.ModuleList(projection(d, self.width) for d in self.dims.values())
        outputs = (len(self.dims) - 1) * self.width
        shape = (self.width, hidden, outputs, self.norm)
        local, overall = iterations * (context != "global"), self.global_rounds(iterations) * (context != "local")
        self.local_maps = nn.ModuleList(Pointwise(*shape) for _ in range(local))
        self.global_maps = nn.ModuleList(Pointwise(*shape) for _ in range(overall))
        self.iterations = iterations
        self.set_width(self.width)

    def norm(self, width: int) -> nn.Module:
        """The norm of a hidden layer."""
        return channel_norm(width)

    def hidden_width(self, reduction: int) -> int:
        """Features between the two maps of a branch."""
        return bottleneck(self.width, reduction)

    def global_rounds(self, iterations: int) -> int:
        """In how many rounds G has maps of its own."""
        return iterations

    def combine(self, streams: Streams) -> Fused:
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        stacked = torch.stack(xs, -1)
        presence = streams.presence()
        mask = None if presence is None else presence.unsqueeze(-2)
        fused, gate = stacked.sum(-1), stacked
        for i in range(self.iterations):
            gate = masked_softmax(self._logits(fused, streams.mask, i), mask)
            fused = (gate * stacked).sum(-1)
        attention = {"gate": gate} if streams.attention else {}
        return Fused(fused, dict(zip(self.names, xs, strict=True)), attention)

    def _logits(self, u: Tensor, mask: Tensor | None, i: int) -> Tensor:
        """`(B, T, w, M)`, zero for the last modality."""
        total = torch.zeros((), dtype=u.dtype, device=u.device)
        if len(self.local_maps):
            total = total + self.local_maps[i](u)
        if len(self.global_maps):
            total = total + self.global_maps[min(i, len(self.global_maps) - 1)](masked_mean(u, mask)).unsqueeze(1)
        logits = rearrange(total.expand(*u.shape[:2], -1), "b t (m w) -> b t w m", w=self.width)
        return torch.cat([logits, torch.zeros_like(logits[..., :1])], -1)


fusionzoo_register = fusionzoo.plugin(
    AFF,
    summary="local and global context weigh the modalities channel by channel",
    paper="Dai et al., Attentional Feature Fusion, WACV 2021",
    code="YimianDai/open-aff@0bcfd8a1b0",
    level="dialogue",
    handles={"attention"},
    diagram="""
    text["x_text"] --> add(("+"))
    others["x_audio, x_visual"] --> add
    add --> local["local context"]
    add -- "mean" --> global["global context"]
    local --> gate["softmax over modalities"]
    global --> gate
    gate --> sum(("weighted sum"))
    text --> sum
    others --> sum
    """,
)
