"""Small fusions that keep every rule, and the decorator under which their broken subclasses are collected."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import masked_mean, masked_softmax, zero_padded
from fusionzoo.specs import Spec


class Sound(Fusion):
    """Attention over the dialogue of the mean of the projected modalities.

    Options: width of the method. Parameters: one projection per modality, one query map, the output projection.
    Source: written for the tests of fusionzoo, 2025.
    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.
    """

    def __init__(self, dims: Dims, out_dim: int | None = None, *, width: int = 6, missing: str = "zero"):
        super().__init__(dims, out_dim, missing=missing)
        self.width = width
        self.project = nn.ModuleList(nn.Linear(d, width) for d in self.dims.values())
        self.query = nn.Linear(width, width)
        self.set_width(width)

    def tokens(self, streams: Streams) -> torch.Tensor:
        parts = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        count = streams.presence()
        total = torch.stack(parts, -1).sum(-1)
        return total / (len(parts) if count is None else count.sum(-1).clamp(min=1).unsqueeze(-1).to(total.dtype))

    def weigh(self, scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return masked_softmax(scores, None if mask is None else mask.unsqueeze(1))

    def combine(self, streams: Streams) -> Fused:
        u = self.tokens(streams)
        weights = self.weigh(self.query(u) @ u.transpose(1, 2), streams.mask)
        maps = {"self": weights} if streams.attention else {}
        return Fused(torch.tanh(u) + weights @ u, {self.anchor: u}, maps)


class SoundUnaligned(Sound):
    __doc__ = Sound.__doc__
    unaligned = True

    def combine(self, streams: Streams) -> Fused:
        parts = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        masks = [
            torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if m is None else m
            for x, m in zip(parts, streams.present, strict=True)
        ]
        memory, mask = torch.cat(parts, 1), torch.cat(masks, 1)
        weights = masked_softmax(self.query(parts[0]) @ memory.transpose(1, 2), mask.unsqueeze(1))
        maps = {"text->all": weights} if streams.attention else {}
        return Fused(torch.tanh(parts[0]) + weights @ memory, {}, maps)


class SoundLosses(Sound):
    """Attention over the dialogue of the mean of the projected modalities, which a loss draws towards each other.

    Options: width of the method; dropout of the tokens. Parameters: as its base.
    Source: written for the tests of fusionzoo, 2025.
    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.
    """

    def __init__(
        self, dims: Dims, out_dim: int | None = None, *, width: int = 6, dropout: float = 0.0, missing: str = "zero"
    ):
        super().__init__(dims, out_dim, width=width, missing=missing)
        self.dropout = dropout

    def combine(self, streams: Streams) -> Fused:
        result = super().combine(streams)
        parts = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        result.fused = functional.dropout(result.fused, self.dropout, self.training)
        return replace(result, losses={"apart": self.loss(parts, streams.present)})

    def loss(self, parts: list[torch.Tensor], masks: list[torch.Tensor | None]) -> torch.Tensor:
        """Mean square of the difference of the first two, over the steps that have both."""
        there = torch.ones_like(parts[0][..., :1])
        for mask in masks[:2]:
            there = there if mask is None else there * mask.unsqueeze(-1)
        return ((parts[0] - parts[1]) * there).square().sum() / there.sum().clamp(min=1)


class SoundPool(Sound):
    __doc__ = Sound.__doc__

    def combine(self, streams: Streams) -> Fused:
        result = super().combine(streams)
        return replace(result, fused=masked_mean(result.fused, streams.mask))


SPEC = Spec(
    name="sound",
    kind="fusion",
    target="sound_fusions:Sound",
    summary="attention over the mean of the modalities",
    paper="none; written for the tests",
    level="dialogue",
    handles=frozenset({"masks", "missing", "attention"}),
)


@dataclass
class Breaker:
    """A class that breaks one rule. also : rules that cannot hold when that one is broken."""

    check: str
    cls: Any
    spec: Spec
    also: frozenset[str] = frozenset()
    options: dict[str, Any] = field(default_factory=dict)


BREAKERS: dict[str, Breaker] = {}


def breaks(check: str, *also: str, spec: dict[str, Any] | None = None, keep_doc: bool = False):
    """Collect a class as the breaker of a check; it gets the sound docstring unless it is the docstring that is broken."""

    def collect(cls):
        if not keep_doc:
            cls.__doc__ = Sound.__doc__
        assert check not in BREAKERS, f"two breakers of {check}"
        own = replace(SPEC, target=f"breakers:{cls.__qualname__}")
        BREAKERS[check] = Breaker(check, cls, replace(own, **(spec or {})), frozenset(also))
        return cls

    return collect
