"""Multimodal adaptation gate: the other modalities shift the anchor, never by more than its own length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_probability
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.layers import dropout
from fusionzoo.numerics import zero_padded
from fusionzoo.reference import check_modalities


class MAG(Fusion):
    r"""Multimodal adaptation gate (MAG).

    With the anchor t (text) and its companions m:

    .. math::
        g_m &= \operatorname{relu}(W_m [x_m; x_t] + b_m), \qquad
        h = \sum_m g_m \odot (V_m x_m + c_m) \\
        \alpha &= \min\Big(\beta\,\frac{\|x_t\|_2}{\|h\|_2 + \epsilon},\, 1\Big), \qquad
        y = \operatorname{dropout}(\operatorname{LN}(x_t + \alpha\,h))

    Acts within a time step; any number of companions, the paper has two. A companion that is absent at a step adds
    nothing to h. Without the anchor :math:`\alpha` would be zero and hide the companions: there h enters whole, with
    gates that see a zero anchor.

    Options
    -------
    beta : largest length of the shift, in lengths of the anchor; default 1.
    dropout : after the norm, default 0.5.
    variant : see `variants`.

    Parameters: with t the anchor's width: :math:`\sum_m \big((d_m + t + 1) t + (d_m + 1) t\big) + 2 t`, then the output
    map where `out_dim` differs.
    Source: Rahman et al., "Integrating Multimodal Information in Large Pretrained Transformers", ACL 2020, section 4;
    thuiar/MMSA@a94e65d07f.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.streams` has the anchor's x_t + alpha h.

    >>> MAG({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.mag:OfficialMAG"}

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        beta: float = 1.0,
        dropout: float = 0.5,
        variant: str = "default",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not beta > 0:
            raise OptionError(f"MAG: beta must be a positive number, not {beta!r}")
        self.beta = float(beta)
        self.dropout = check_probability(dropout, "dropout", self)
        width, *others = self.dims.values()
        self.gates = nn.ModuleList(nn.Linear(d + width, width) for d in others)
        self.values = nn.ModuleList(nn.Linear(d, width) for d in others)
        self.norm = nn.LayerNorm(width)
        self.set_width(width)

    def combine(self, streams: Streams) -> Fused:
        anchor, *others = streams.x
        shift = torch.zeros_like(anchor)
        for x, present, gate, value in zip(others, streams.present[1:], self.gates, self.values, strict=True):
            part = torch.relu(gate(torch.cat([x, anchor], -1))) * value(x)
            shift = shift + self.contribution(part, present)
        shifted = anchor + self.share(anchor, shift, streams.present[0]) * shift
        fused = dropout(self.norm(shifted), self.dropout, self.training)
        return Fused(fused, {self.anchor: shifted})

    def contribution(self, part: Tensor, present: Tensor | None) -> Tensor:
        """What a companion adds to h."""
        return zero_padded(part, present)

    def share(self, anchor: Tensor, shift: Tensor, present: Tensor | None) -> Tensor:
        r""":math:`\alpha`, `(B, T, 1)`; present : bool `(B, T)`, where the anchor is."""
        share = self.ratio(anchor, shift).clamp(max=1)
        return share if present is None else torch.where(present.unsqueeze(-1), share, 1.0)

    def ratio(self, anchor: Tensor, shift: Tensor) -> Tensor:
        """The longest allowed length of the shift over its length, `(B, T, 1)`; lengths in float32 at least."""
        exact = torch.promote_types(shift.dtype, torch.float32)
        allowed, length = (torch.linalg.vector_norm(v.to(exact), dim=-1, keepdim=True) for v in (anchor, shift))
        # The slope of a norm at zero is taken as zero by torch, and the ratio of nothing to nothing as that to one.
        length = torch.where(length == 0, 1.0, length)
        return (self.beta * allowed / (length + 1e-6)).to(shift.dtype)

    def reference_names(self) -> Mapping[str, str]:
        check_modalities(self.names, 3, "MAG")  # in the order text, audio, visual
        names = {"LayerNorm.": "norm"}
        for i, letter in enumerate("av"):
            names |= {f"W_h{letter}.": f"gates.{i}", f"W_{letter}.": f"values.{i}"}
        return names


fusionzoo_register = fusionzoo.plugin(
    MAG,
    summary="the other modalities shift the text vector, within its own length",
    paper="Rahman et al., Integrating Multimodal Information in Large Pretrained Transformers, ACL 2020",
    code="thuiar/MMSA@a94e65d07f",
    diagram="""
    text["x_text"] --> gate(("gate"))
    others["x_audio, x_visual"] --> gate
    others --> shift["shift"]
    gate --> shift
    shift -- "at most beta times the text's length" --> add(("+"))
    text --> add
    add --> norm["layer norm"]
    """,
)
