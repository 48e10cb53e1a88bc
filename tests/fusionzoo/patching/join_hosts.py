# ruff: noqa: B905  (hosts are written as their authors would)
"""Hosts whose streams meet otherwise than in `torch.cat`: sums, products, outer products, stacks, attention."""

from __future__ import annotations

import functools
import operator

import torch
from host_base import Base, W, streams
from torch import nn


class Sum(Base):
    kind = "sum"

    def __init__(self):
        super().__init__(out=8)

    def forward(self, text, audio, visual):
        return self.head((self.t(text) + self.a(audio) + self.v(visual)) / 3)


class BuiltinSum(Sum):
    def forward(self, text, audio, visual):
        return self.head(sum([self.t(text), self.a(audio), self.v(visual)]))


class Accumulated(Sum):
    modalities = ("audio", "text")

    def forward(self, text, audio, visual):
        h = self.t(text)
        h += self.a(audio)
        return self.head(h)


class Gated(Sum):
    def __init__(self):
        super().__init__()
        self.g = nn.Linear(24, 3)

    def forward(self, text, audio, visual):
        t, a, v = self.t(text), self.a(audio), self.v(visual)
        w = torch.sigmoid(self.g(torch.cat([t, a, v], -1)))
        return self.head(w[..., :1] * t + w[..., 1:2] * a + w[..., 2:] * v)

    kind = "cat"


class Product(Sum):
    kind = "product"

    def forward(self, text, audio, visual):
        return self.head(self.t(text) * self.a(audio) * self.v(visual))


class Reduced(Product):
    def forward(self, text, audio, visual):
        return self.head(functools.reduce(operator.mul, [self.t(text), self.a(audio), self.v(visual)]))


class Outer(Base):
    kind = "outer"
    layout = "(B, d)"
    modalities = ("text", "audio")

    def __init__(self):
        super().__init__(out=64)

    def forward(self, text, audio):
        t, a = self.t(text), self.a(audio)
        z = torch.bmm(t.unsqueeze(2), a.unsqueeze(1)).view(t.shape[0], -1)
        return self.head(z)

    @classmethod
    def call(cls):
        return tuple(streams("bd")[:2]), {}


class Einsum(Outer):
    def forward(self, text, audio):
        return self.head(torch.einsum("bi,bj->bij", self.t(text), self.a(audio)).flatten(1))


class LowRank(Sum):
    kind = "product"
    layout = "(..., d)"

    def __init__(self):
        super().__init__()
        self.f = nn.ParameterList(nn.Parameter(torch.randn(4, w + 1, 8) * 0.3) for w in W.values())

    def forward(self, text, audio, video):
        one = torch.ones(text.shape[0], 1)
        t, a, v = (torch.matmul(torch.cat([one, x], 1), f) for x, f in zip((text, audio, video), self.f))
        return self.head((t * a * v).sum(0))

    @classmethod
    def call(cls):
        return tuple(streams("bd")), {}


class Stack(Base):
    kind = "stack"

    def __init__(self):
        super().__init__(out=8)

    def forward(self, text, audio, visual):
        return self.head(torch.stack([self.t(text), self.a(audio), self.v(visual)], dim=0).mean(0))


class StackLast(Stack):
    def forward(self, text, audio, visual):
        return self.head(torch.stack([self.t(text), self.a(audio), self.v(visual)], dim=-1).amax(-1))


class CrossModule(Base):
    kind = "cross-attention"
    modalities = ("text", "audio")

    def __init__(self):
        super().__init__(out=8)
        self.cross = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, text, audio):
        t = self.t(text)
        return self.head(self.cross(t, self.a(audio), self.a(audio))[0])

    @classmethod
    def call(cls):
        return tuple(streams()[:2]), {}


class Attend(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.q, self.k, self.w = (nn.Linear(width, width) for _ in range(3))

    def forward(self, query, memory):
        q, k, v = self.q(query), self.k(memory), self.w(memory)
        p = torch.softmax(torch.matmul(q, k.transpose(-1, -2)) / 8**0.5, -1)
        return torch.matmul(p, v)


class CrossWritten(CrossModule):
    def __init__(self):
        super().__init__()
        self.cross = Attend()

    def forward(self, text, audio):
        return self.head(self.cross(self.t(text), self.a(audio)))


class CrossThenCat(CrossModule):
    kind = "cat"

    def __init__(self):
        super().__init__()
        self.cross, self.back = Attend(), Attend()
        self.head = nn.Linear(16, 3)

    def forward(self, text, audio):
        t, a = self.t(text), self.a(audio)
        return self.head(torch.cat([t + self.cross(t, a), a + self.back(a, t)], -1))
