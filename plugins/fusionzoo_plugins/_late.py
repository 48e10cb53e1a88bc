"""What the late fusions share: one linear expert per modality, and the multiplicative combination of their predictions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import zero_padded
from fusionzoo_plugins._objective_tools import exact, log_complement


class LateFusion(Fusion):
    """Base of the fusions that combine the predictions of one linear expert per modality."""

    decides = True

    def __init__(self, dims: Dims, out_dim: int | None = None, *, missing: str = "zero"):
        super().__init__(dims, out_dim, missing=missing)
        self.experts = nn.ModuleList(nn.Linear(d, self.out_dim) for d in self.dims.values())
        self.set_width(self.out_dim)

    def combine(self, streams: Streams) -> Fused:
        logits = [
            zero_padded(expert(x), p) for expert, x, p in zip(self.experts, streams.x, streams.present, strict=True)
        ]
        stacked = torch.stack(logits, -2)
        presence = streams.presence()
        if presence is None:
            presence = torch.ones(stacked.shape[:-1], dtype=torch.bool, device=stacked.device)
        fused = self.decide(exact(stacked), presence).to(stacked.dtype)
        return Fused(fused, {f"{m}.logits": x for m, x in zip(self.names, logits, strict=True)})

    def decide(self, logits: Tensor, presence: Tensor) -> Tensor:
        """`(B, T, M, out)` logits, zero where `presence (B, T, M)` is False, to `(B, T, out)`."""
        raise NotImplementedError


def class_costs(log_p: Tensor, presence: Tensor, beta: float) -> Tensor:
    r"""Liu et al.'s cost of every class.

    .. math:: -\sum_m \Big[\prod_{n \ne m} (1 - p^n_c)\Big]^{\beta / (M - 1)} \log p^m_c

    over the modalities that are there. log_p : `(..., M, C)`. presence : bool `(..., M)`. Returns `(..., C)`.
    """
    there = presence.unsqueeze(-1)
    doubt = torch.where(there, log_complement(log_p), 0.0)
    others = (there.sum(-2, keepdim=True) - 1).clamp(min=1)
    weight = (beta / others * (doubt.sum(-2, keepdim=True) - doubt)).exp()
    return -torch.where(there, weight * log_p, 0.0).sum(-2)
