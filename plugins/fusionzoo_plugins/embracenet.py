"""EmbraceNet: every feature of the joint vector comes from one modality, drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import zero_padded


class EmbraceNet(Fusion):
    r"""EmbraceNet: docking layers, then a multinomial choice of modality for each feature.

    .. math::
        d_m = \operatorname{ReLU}(W_m x_m + b_m), \qquad r_j \sim \operatorname{Multinomial}(1, p), \qquad
        y_j = \sum_m r_{m,j}\, d_{m,j}, \qquad p_m = \frac{u_m w_m}{\sum_n u_n w_n}

    with :math:`u_m` whether modality m is present. In training features are drawn anew at every step; in eval mode y is
    the expectation, :math:`\sum_m p_m d_m`. Acts within a time step.

    Departs from the published code, which draws in eval mode as well, so that a prediction would change from call to call.

    Options
    -------
    width : c, of the docking layers and of y; default `out_dim`.
    weights : :math:`w_m > 0`, one for each modality in their order, or by name; default equal.

    Parameters: :math:`(d_m + 1)\,c` for each modality, and the output map where c is not `out_dim`.
    Source: Choi and Lee, "EmbraceNet: A robust deep learning architecture for multimodal classification", Information
    Fusion 51, 2019, arXiv 1904.09078, section 3; code idearibosome/embracenet@d4393b2218,
    `embracenet_pytorch/embracenet.py`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.streams[m]` is :math:`d_m` `(B, T, c)`,
    `Fused.attention["selection"]` `(B, T, M)` is p.

    >>> EmbraceNet({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        weights: Sequence[float] | Mapping[str, float] | None = None,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = self.out_dim if width is None else check_positive(width, "width", self)
        self.docking = nn.ModuleList(nn.Linear(d, self.width) for d in self.dims.values())
        self.weights = self._read(weights)
        self.set_width(self.width)

    def _read(self, weights: Sequence[float] | Mapping[str, float] | None) -> tuple[float, ...]:
        if weights is None:
            return (1.0,) * len(self.names)
        if isinstance(weights, Mapping):
            if set(weights) != set(self.names):
                raise OptionError(f"EmbraceNet: weights name {list(weights)}; the modalities are {list(self.names)}")
            weights = [weights[m] for m in self.names]
        if len(weights) != len(self.names) or not all(isinstance(w, (int, float)) and w > 0 for w in weights):
            raise OptionError(
                f"EmbraceNet: weights must be one positive number for each of {', '.join(self.names)}, not {weights!r}"
            )
        return tuple(float(w) for w in weights)

    def combine(self, streams: Streams) -> Fused:
        docked = [
            zero_padded(F.relu(d(x)), p) for d, x, p in zip(self.docking, streams.x, streams.present, strict=True)
        ]
        stacked = torch.stack(docked, -1)
        chances = stacked.new_tensor(self.weights).expand(*streams.shape, -1)
        presence = streams.presence()
        if presence is not None:
            chances = torch.where(presence, chances, 0.0)
        total = chances.sum(-1, keepdim=True)
        chances = chances / torch.where(total > 0, total, 1.0)
        if self.training:
            # The largest of p_m over exponential noise falls on m with probability p_m, without waiting for the device.
            noise = torch.empty_like(stacked, dtype=torch.float32).exponential_()
            chosen = (chances.unsqueeze(-2) / noise).argmax(-1, keepdim=True)
            fused = stacked.gather(-1, chosen).squeeze(-1)
        else:
            fused = (stacked * chances.unsqueeze(-2)).sum(-1)
        maps = {"selection": chances} if streams.attention else {}
        return Fused(fused, dict(zip(self.names, docked, strict=True)), maps)

    def reference_names(self) -> Mapping[str, str]:
        return {f"docking_{i}.": f"docking.{i}" for i in range(len(self.docking))}


fusionzoo_register = fusionzoo.plugin(
    EmbraceNet,
    summary="each feature comes from one modality drawn at random",
    paper="Choi and Lee, EmbraceNet: A robust deep learning architecture for multimodal classification, "
    "Information Fusion 51, 2019, arXiv 1904.09078",
    code="idearibosome/embracenet@d4393b2218",
    handles={"attention"},
    diagram="""
    text["x_text"] --> dt["docking layer"]
    audio["x_audio"] --> da["docking layer"]
    dt --> draw{"draw one a feature"}
    da --> draw
    draw --> y["y; in eval the expectation"]
    """,
)
