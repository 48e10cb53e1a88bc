"""Multimodal transfer module: what all modalities have in common excites or mutes each one's channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import Configured, check_choice, check_positive
from fusionzoo.errors import ShapeError
from fusionzoo.fusion import Dims, Streams
from fusionzoo.numerics import masked_mean
from fusionzoo.reference import WithReference, check_modalities, within
from fusionzoo_plugins._channels import JOINS, SCOPES, ChannelFusion


class MMTMBlock(Configured, WithReference, nn.Module):
    r"""Squeeze and excitation across modalities, on vectors or feature maps.

    Parameters
    ----------
    channels : of each modality.
    ratio : the joint vector has :math:`2 \sum_m C_m / ratio` features, one at least.
    variant : that of `MMTM`.

    >>> [tuple(y.shape) for y in MMTMBlock([8, 4])([torch.rand(2, 8, 3, 5, 5), torch.rand(2, 4, 7)])]
    [(2, 8, 3, 5, 5), (2, 4, 7)]
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.mmtm:OfficialMMTMBlock"}
    #: The largest value of a gate.
    scale: ClassVar[float] = 2.0

    def __init__(self, channels: Sequence[int], ratio: int = 4, *, variant: str = "default"):
        super().__init__()
        self.channels = tuple(channels)
        hidden = _hidden(channels, ratio)
        self.squeeze = nn.Linear(sum(channels), hidden)
        self.excite = nn.ModuleList(nn.Linear(hidden, c) for c in channels)

    def gates(self, squeezed: Sequence[Tensor]) -> list[Tensor]:
        """`(..., C_m)` for each modality, from the squeezed `(..., C_m)`."""
        joint = F.relu(self.squeeze(torch.cat(list(squeezed), -1)))
        return [self.scale * torch.sigmoid(e(joint)) for e in self.excite]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps of the same shapes, `(B, C_m)` or `(B, C_m, ...)`."""
        for x, width in zip(maps, self.channels, strict=True):
            if x.dim() < 2 or x.shape[1] != width:
                raise ShapeError(
                    f"MMTMBlock was built for maps (B, C, ...) with C = {self.channels}, got {tuple(x.shape)}"
                )
        gates = self.gates([x.flatten(2).mean(-1) if x.dim() > 2 else x for x in maps])
        return [x * g.reshape(*g.shape, *(1,) * (x.dim() - 2)) for x, g in zip(maps, gates, strict=True)]

    def reference_names(self) -> Mapping[str, str]:
        check_modalities([str(c) for c in self.channels], 2, "MMTM")
        return {"fc_squeeze.": "squeeze", "fc_visual.": "excite.0", "fc_skeleton.": "excite.1"}


def _hidden(channels: Sequence[int], ratio: int) -> int:
    return max(1, 2 * sum(channels) // ratio)


class MMTM(ChannelFusion):
    r"""Multimodal transfer module (MMTM): squeeze all modalities, excite each.

    With :math:`s_m` the mean of modality m over the dialogue's real utterances,

    .. math::
        z = \operatorname{ReLU}\big(W\,[s_1; \dots; s_M] + b\big), \qquad
        \tilde x_m = 2\,\sigma(W_m z + b_m) \odot x_m, \qquad y = [\tilde x_1; \dots; \tilde x_M]

    The paper has two modalities and feature maps, the squeeze runs over space and time; any number works alike, on maps
    `(B, C, ...)` through `MMTMBlock`. An absent modality squeezes to zero.

    Departs from the published code in the factor 2 of the paper, with which a gate can also raise a channel and is one at
    zero weights.

    Options
    -------
    ratio : z has :math:`2 \sum_m d_m / ratio` features, default 4.
    scope : `"dialogue"`, or `"utterance"`: each step is squeezed and excited by itself.
    join : `"steps"`; `"anchor"`: the others enter y as their mean, beside each step of the anchor, and may have other
        lengths; `"pool"`: every stream enters as its mean, one vector `(B, out_dim)`.
    variant : see `variants`.

    Parameters: with D the summed width and :math:`h = \lfloor 2 D / ratio \rfloor`, :math:`(D + 1) h + (h + 1) D`, and
    the output map.
    Source: Joze et al., "MMTM: Multimodal Transfer Module for CNN Fusion", CVPR 2020, section 3.1; code
    haamoon/mmtm@1c81cfefad, `mmtm.py`.

    Shapes: streams `(B, T_m, d_m)` -> `(B, T, out_dim)`; `Fused.streams[m]` is :math:`\tilde x_m` `(B, T_m, d_m)`.

    >>> MMTM({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.mmtm:OfficialMMTM"}

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        ratio: int = 4,
        scope: str = "dialogue",
        join: str = "steps",
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.scope = check_choice(scope, SCOPES, "scope", self)
        self.join = check_choice(join, JOINS, "join", self)
        widths = list(self.dims.values())
        self.block = MMTMBlock(widths, check_positive(ratio, "ratio", self), variant=self.variant)
        self.set_width(sum(widths))

    def reweighed(self, streams: Streams) -> tuple[list[Tensor], dict[str, Tensor]]:
        if self.scope == "utterance":
            gates = self.block.gates(streams.x)
        else:
            means = [masked_mean(x, p) for x, p in zip(streams.x, streams.present, strict=True)]
            gates = [g.unsqueeze(1) for g in self.block.gates(means)]
        return [x * g for x, g in zip(streams.x, gates, strict=True)], {}

    def on_maps(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps `(B, C_m, ...)` of all modalities, excited, of the same shapes."""
        return self.block(maps)

    def reference_names(self) -> Mapping[str, str]:
        return within("block", self.block.reference_names())


fusionzoo_register = fusionzoo.plugin(
    MMTM,
    summary="squeeze all modalities, excite the channels of each",
    paper="Joze et al., MMTM: Multimodal Transfer Module for CNN Fusion, CVPR 2020",
    code="haamoon/mmtm@1c81cfefad",
    level="dialogue",
    diagram="""
    text["x_text"] -- "mean" --> squeeze["joint squeeze"]
    others["x_audio, x_visual"] -- "mean" --> squeeze
    squeeze -- "gate" --> gt(("x"))
    squeeze -- "gate" --> go(("x"))
    text --> gt
    others --> go
    gt --> cat(("concat"))
    go --> cat
    """,
)
