# ruff: noqa: B905  (hosts are written as their authors would)
"""Hosts in the styles of public repositories; none is known to an adapter. A class attribute says what is expected."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from host_base import LENGTHS, B, Base, T, streams, umask
from join_hosts import (
    Accumulated,
    BuiltinSum,
    CrossModule,
    CrossThenCat,
    CrossWritten,
    Einsum,
    Gated,
    LowRank,
    Outer,
    Product,
    Reduced,
    Stack,
    StackLast,
    Sum,
)
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint


class Cat(Base):
    def forward(self, text, audio, visual):
        return self.head(torch.cat([self.t(text), self.a(audio), self.v(visual)], dim=-1))


def join(parts, dim):
    return torch.cat(parts, dim)


class FreeFunction(Base):
    def forward(self, text, audio, visual):
        joined = join([self.t(text), self.a(audio), self.v(visual)], dim=2)
        return self.head(joined)


class HelperMethod(Base):
    def _fuse(self, *xs, scale=1.0):
        return torch.cat([x * scale for x in xs], -1)

    def forward(self, text, audio, visual):
        return self.head(self._fuse(self.t(text), self.a(audio), self.v(visual), scale=2.0))


class Comprehension(Base):
    def forward(self, inputs):
        pairs = [
            torch.cat([e(inputs[k]) for k, e in zip(("t", "a", "v"), (self.t, self.a, self.v))], -1) for _ in range(1)
        ]
        return {"logits": self.head(pairs[0])}

    @classmethod
    def call(cls):
        t, a, v = streams()
        return ({"t": t, "a": a, "v": v},), {}


class TimeFirst(Base):
    layout = "(T, B, d)"

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(10, 4, bidirectional=True)

    def forward(self, U, qmask, umask, U_a, U_v):
        t, _ = self.rnn(U)
        return F.log_softmax(self.head(torch.cat((t, self.a(U_a), self.v(U_v)), dim=-1)), -1)

    @classmethod
    def call(cls):
        t, a, v = streams("tbd")
        return (t, F.one_hot(torch.zeros(T, B, dtype=torch.long), 2).float(), umask(), a, v), {}


class Vectors(Base):
    layout = "(B, d)"

    def forward(self, textf, acouf, visuf):
        return self.head(torch.cat([self.t(textf), self.a(acouf), self.v(visuf)], 1))

    @classmethod
    def call(cls):
        return tuple(streams("bd")), {}


def graphify(features, lengths):
    nodes = []
    for j, n in enumerate(lengths):
        nodes.append(features[:n, j, :])
    return torch.cat(nodes, 0)


class FlatNodes(Base):
    layout = "(N, d)"

    def forward(self, text, audio, visual, seq_lengths):
        t, a, v = (graphify(x, seq_lengths) for x in (self.t(text), self.a(audio), self.v(visual)))
        return self.head(torch.cat([t, a, v], dim=-1))

    @classmethod
    def call(cls):
        return (*streams("tbd"), list(LENGTHS)), {}


class MaskedFlat(Base):
    layout = "(N, d)"

    def forward(self, text, audio, visual, umask):
        real = umask.bool()
        t, a, v = self.t(text)[real], self.a(audio)[real], self.v(visual)[real]
        return self.head(torch.cat([t, a, v], dim=-1))

    @classmethod
    def call(cls):
        return (*streams(), umask()), {}


class Rows(Base):
    """Rows joined, mixed by a graph, split again and joined by features."""

    layout = "(N, d)"

    def __init__(self):
        super().__init__()
        self.w = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, text, audio, visual, seq_lengths):
        t, a, v = (graphify(x, seq_lengths) for x in (self.t(text), self.a(audio), self.v(visual)))
        x = torch.cat([a, v, t], dim=0)
        adj = torch.softmax(F.normalize(x, dim=-1) @ F.normalize(x, dim=-1).T, -1)
        h = x
        for w in self.w:
            h = F.relu(0.5 * torch.mm(adj, w(h)) + 0.5 * x)
        n = t.shape[0]
        return self.head(torch.cat([h[:n], h[n : 2 * n], h[2 * n :]], dim=-1))

    call = FlatNodes.call


class RowsOnly(Rows):
    kind = "rows"

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 3)

    def forward(self, text, audio, visual, seq_lengths):
        t, a, v = (graphify(x, seq_lengths) for x in (self.t(text), self.a(audio), self.v(visual)))
        x = torch.cat([a, v, t], dim=0)
        for w in self.w:
            x = torch.tanh(w(x))
        return self.head(x)


class TimeLoop(Base):
    layout = "(B, d)"

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(24, 24)

    def forward(self, text, audio, visual):
        t, a, v = self.t(text), self.a(audio), self.v(visual)
        h = torch.zeros(t.shape[0], 24)
        out = []
        for i in range(t.shape[1]):
            h = self.cell(torch.cat([t[:, i], a[:, i], v[:, i]], 1), h)
            out.append(h)
        return self.head(torch.stack(out, 1))


class ListInput(Base):
    modalities = ("x0", "x1", "x2")

    def forward(self, x):
        feats = []
        for one, enc in zip(x, (self.t, self.a, self.v)):
            feats.append(enc(one))
        return self.head(torch.cat(feats, -1))

    @classmethod
    def call(cls):
        return (streams(),), {}


class ControlFlow(Base):
    def forward(self, text, audio, visual):
        t, a, v = self.t(text), self.a(audio), self.v(visual)
        if bool((text.mean() > 100).item()):
            h = torch.cat([v, a, t], -1)
        elif text.shape[0] > 1:
            h = torch.cat([t, a, v], -1)
        else:
            h = torch.zeros(1)
        return self.head(h)


class CallsForward(Base):
    def __init__(self):
        super().__init__()
        self.inner = Cat()

    def forward(self, text, audio, visual):
        return self.inner.forward(text, audio, visual)


class Packed(Base):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(10, 4, bidirectional=True, batch_first=True)

    def forward(self, text, audio, visual, lengths):
        packed = pack_padded_sequence(text, lengths, batch_first=True, enforce_sorted=False)
        t, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(torch.cat([t, self.a(audio), self.v(visual)], -1))

    @classmethod
    def call(cls):
        return (*streams(), torch.tensor(LENGTHS)), {}


class Parent(Base):
    def forward(self, text, audio, visual):
        return self.head(torch.cat([self.t(text), self.a(audio), self.v(visual)], -1))


class Child(Parent):
    __scale = 2.0

    def forward(self, text, audio, visual):
        return super().forward(text, audio, visual) * self.__scale


class Decorated(Base):
    @torch.autocast("cpu", enabled=False)
    def forward(self, text, audio, visual):
        return self.head(torch.cat([self.t(text), self.a(audio), self.v(visual)], -1))


class Lambda(Base):
    def __init__(self):
        super().__init__()
        self.join = lambda xs: torch.cat(xs, -1)

    def forward(self, text, audio, visual):
        return self.head(self.join([self.t(text), self.a(audio), self.v(visual)]))


class Plain:
    """Not a module: forward reads and writes attributes."""

    def __init__(self, parts, head):
        self.parts, self.head = parts, head

    def set_input(self, batch):
        self.batch = batch

    def forward(self):
        feats = []
        for name in ("a", "t", "v"):
            feats.append(self.parts[name](self.batch[name]))
        self.fused = torch.cat(feats, dim=-1)
        self.logits = self.head(self.fused)


class Wrapped(Base):
    def __init__(self):
        super().__init__()
        self.plain = Plain(nn.ModuleDict({"t": self.t, "a": self.a, "v": self.v}), self.head)

    def forward(self, batch):
        self.plain.set_input(batch)
        self.plain.forward()
        return self.plain.logits

    call = Comprehension.call


class Checkpointed(Base):
    def _body(self, text, audio, visual):
        return self.head(torch.cat([self.t(text), self.a(audio), self.v(visual)], -1))

    def forward(self, text, audio, visual):
        return checkpoint(self._body, text, audio, visual, use_reentrant=False)


class Slots(Base):
    kind = "rows"

    def __init__(self):
        super().__init__(out=8)
        self.g = nn.Linear(8, 8)

    def forward(self, text, audio, visual):
        x = torch.cat([e(x).unsqueeze(-2) for e, x in zip((self.t, self.a, self.v), (text, audio, visual))], dim=-2)
        return self.head((torch.softmax(self.g(x), -2) * x).sum(-2))


class Channels(Base):
    """Convolution layout (B, d, T), joined on channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(24, 24, 1)

    def forward(self, text, audio, visual):
        t, a, v = (e(x).transpose(1, 2) for e, x in zip((self.t, self.a, self.v), (text, audio, visual)))
        return self.head(self.conv(torch.cat([t, a, v], dim=1)).transpose(1, 2))


class Tokens(Base):
    kind = "rows"
    modalities = ("text", "audio")

    def __init__(self):
        super().__init__(out=8)

    def forward(self, input_text, input_audio):
        x = torch.cat([self.a(input_audio), self.t(input_text)], 1)
        return self.head(x.mean(1))

    @classmethod
    def call(cls):
        t, a, _ = streams()
        return (t[:, :3].contiguous(), a), {}


class Assigned(Base):
    """Operands written into a buffer before they meet."""

    def forward(self, text, audio, visual):
        t = torch.zeros(*text.shape[:2], 8)
        for i in range(text.shape[1]):
            t[:, i] = self.t(text[:, i])
        return self.head(torch.cat([t, self.a(audio), self.v(visual)], -1))


STYLES = [
    Cat, FreeFunction, HelperMethod, Comprehension, TimeFirst, Vectors, FlatNodes, MaskedFlat, Rows, RowsOnly, Sum, BuiltinSum,
    Accumulated, Gated, Product, Reduced, Outer, Einsum, LowRank, Stack, StackLast, CrossModule, CrossWritten, CrossThenCat,
    TimeLoop, ListInput, ControlFlow, CallsForward, Packed, Child, Decorated, Lambda, Wrapped, Checkpointed, Slots, Channels,
    Tokens, Assigned,
]  # fmt: skip


class Early(nn.Module):
    """The trainer has joined the features before."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(20, 6, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, U, umask):
        h, _ = self.rnn(U)
        return self.head(torch.cat([h, h.flip(0)], -1)[..., :12])

    @classmethod
    def call(cls):
        return (torch.cat(streams("tbd"), -1), umask()), {}
