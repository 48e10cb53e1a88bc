"""Feature-wise linear modulation: the other modalities scale and shift the anchor's features."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import masked_mean, zero_padded
from fusionzoo_plugins._channels import SCOPES, check_aligned


class FiLM(Fusion):
    r"""Feature-wise linear modulation (FiLM) of the anchor by the other modalities.

    .. math::
        (\Delta\gamma, \beta) = \sum_{m \ge 2} f_m(x_m), \qquad y = (1 + \Delta\gamma) \odot x_1 + \beta

    :math:`f_m` is an affine map, or with `hidden` an affine map, ReLU and another. The paper has one conditioning input;
    several add up, and an absent one adds nothing: without any, y is the anchor.

    Options
    -------
    hidden : width of a hidden layer of :math:`f_m`; default None, which is the paper's affine map.
    scope : `"utterance"`: each step is conditioned on itself; `"dialogue"`: all steps of the anchor on the means of the
        others over their real steps, which may have other lengths (the paper conditions a whole image on one question).

    Parameters: :math:`2 d_1 (d_m + 1)` for each modality but the anchor, or with hidden width h
    :math:`(d_m + 1) h + 2 d_1 (h + 1)`; and the output map.
    Source: Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018, arXiv 1709.07871,
    equations 1 and 2; the scale's one is `gamma_baseline` of the published code, ethanjperez/film@fe43ddf8a2,
    `vr/models/film_gen.py`.

    Shapes: streams `(B, T_m, d_m)` -> `(B, T, out_dim)`.

    >>> FiLM({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    unaligned = True
    for_sequences: ClassVar[dict[str, Any]] = {"scope": "dialogue"}

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        hidden: int | None = None,
        scope: str = "utterance",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.scope = check_choice(scope, SCOPES, "scope", self)
        width, *others = self.dims.values()
        if hidden is None:
            self.generators = nn.ModuleList(nn.Linear(d, 2 * width) for d in others)
        else:
            h = check_positive(hidden, "hidden", self)
            self.generators = nn.ModuleList(
                nn.Sequential(nn.Linear(d, h), nn.ReLU(), nn.Linear(h, 2 * width)) for d in others
            )
        self.set_width(width)

    def combine(self, streams: Streams) -> Fused:
        x, *others = streams.x
        present = streams.present[1:]
        if self.scope == "dialogue":
            others = [masked_mean(o, p).unsqueeze(1) for o, p in zip(others, present, strict=True)]
            present = [None if p is None else p.any(1, keepdim=True) for p in present]
        else:
            check_aligned(streams.x, self.names, self, "scope='utterance'", "scope='dialogue'")
        parts = [zero_padded(g(o), p) for g, o, p in zip(self.generators, others, present, strict=True)]
        scale, shift = torch.stack(parts).sum(0).chunk(2, -1)
        return Fused((1 + scale) * x + shift)


fusionzoo_register = fusionzoo.plugin(
    FiLM,
    summary="the other modalities scale and shift the anchor's features",
    paper="Perez et al., FiLM: Visual Reasoning with a General Conditioning Layer, AAAI 2018, arXiv 1709.07871",
    code="ethanjperez/film@fe43ddf8a2",
    level="dialogue",
    diagram="""
    others["x_audio, x_visual"] --> generate["affine maps, summed"]
    generate -- "scale" --> mul(("x"))
    text["x_text"] --> mul
    mul --> add(("+"))
    generate -- "shift" --> add
    """,
)
