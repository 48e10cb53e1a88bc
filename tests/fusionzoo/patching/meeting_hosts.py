# ruff: noqa: B905  (hosts are written as their authors would)
"""Hosts for `test_joins`: streams that meet after learnt tokens, in loops, or by being written into one another.

Each says what is found first: the kind, the widths of the streams, and the layout. All samples are on axis 0.
"""

from __future__ import annotations

import torch
from torch import nn

B, TEXT, AUDIO, VISUAL = 4, 7, 5, 6


def sequences(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, TEXT, 8, generator=g), torch.randn(B, AUDIO, 8, generator=g)


def vectors(seed=0):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(B, w, generator=g) for w in (7, 6, 4))


class Host(nn.Module):
    """Two sequences of eight features, and three classes."""

    kind, layout, widths = "cat", "(B, d)", {"text": 8, "audio": 8}
    calls = staticmethod(sequences)

    def __init__(self, joined=16):
        super().__init__()
        self.first = nn.ParameterList(nn.Parameter(torch.randn(1, 1, 8)) for _ in range(2))
        self.head = nn.Linear(joined, 3)


class ClsThenAttention(Host):
    def __init__(self):
        super().__init__()
        self.att = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))

    def forward(self, text, audio):
        out = []
        for token, att, x in zip(self.first, self.att, (text, audio)):
            x = torch.cat([token.expand(len(x), 1, 8), x], 1)
            out.append((x + att(x, x, x)[0])[:, 0])
        return self.head(torch.cat(out, -1))


class ClsThenEncoder(Host):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.deep = nn.ModuleList(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False) for _ in range(2))

    def forward(self, text, audio):
        rows = (torch.cat([t.repeat(len(x), 1, 1), x], 1) for t, x in zip(self.first, (text, audio)))
        return self.head(torch.cat([net(x)[:, 0] for net, x in zip(self.deep, rows)], 1))


class ClsThenEncoderTimeFirst(Host):
    def __init__(self):
        super().__init__()
        self.deep = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0) for _ in range(2))

    def forward(self, text, audio):
        rows = (torch.cat([t.expand(len(x), 1, 8), x], 1).transpose(0, 1) for t, x in zip(self.first, (text, audio)))
        return self.head(torch.cat([net(x)[0] for net, x in zip(self.deep, rows)], 1))


class ClsThenOwnAttention(Host):
    kind = "sum"

    def __init__(self):
        super().__init__(8)
        self.qkv = nn.ModuleList(nn.Linear(8, 24) for _ in range(2))

    def attended(self, x, qkv):
        q, k, v = qkv(x).chunk(3, -1)
        return torch.softmax(q @ k.transpose(1, 2) / 8**0.5, -1) @ v

    def forward(self, text, audio):
        t, a = (
            self.attended(torch.cat([c.expand(len(x), -1, -1), x], 1), f)[:, 0]
            for c, f, x in zip(self.first, self.qkv, (text, audio))
        )
        return self.head(t + a)


class ClsByEinsum(ClsThenOwnAttention):
    def attended(self, x, qkv):
        q, k, v = qkv(x).chunk(3, -1)
        return torch.einsum("bij,bjd->bid", torch.einsum("bid,bjd->bij", q, k).softmax(-1), v)


class LearntQueries(ClsThenAttention):
    """Tokens alone ask: what they pool is the stream that they attend to."""

    def forward(self, text, audio):
        pooled = [a(c.expand(len(x), 3, 8), x, x)[0].mean(1) for a, c, x in zip(self.att, self.first, (text, audio))]
        return self.head(torch.cat(pooled, -1))


class LowRankOfOne(nn.Module):
    """Low-rank factors with a rank axis in front, and one feature at the end."""

    kind, layout, widths = "product", "(..., d)", {"text": 1, "audio": 1, "visual": 1}
    calls = staticmethod(vectors)

    def __init__(self):
        super().__init__()
        self.f = nn.ParameterList(nn.Parameter(torch.randn(3, w + 1, 1)) for w in (7, 6, 4))

    def forward(self, text, audio, visual):
        t, a, v = (torch.cat([torch.ones(len(x), 1), x], 1) @ f for f, x in zip(self.f, (text, audio, visual)))
        return (t * a * v).sum(0)


class GrownOuter(nn.Module):
    """An outer product that grows in a loop: the last pass has all modalities."""

    kind, layout, widths = "outer", "(B, d)", {"text+audio": 12, "visual": 2}
    calls = staticmethod(vectors)

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(w, n) for w, n in zip((7, 6, 4), (4, 3, 2)))
        self.head = nn.Linear(24, 3)

    def grown(self, out, x):
        return torch.einsum("bi,bj->bij", out, x)

    def forward(self, text, audio, visual):
        t, *others = (f(x) for f, x in zip(self.parts, (text, audio, visual)))
        for x in others:
            t = self.grown(t, x).reshape(len(t), -1)
        return self.head(t)


class GrownByUnsqueeze(GrownOuter):
    def grown(self, out, x):
        return out.unsqueeze(2) * x.unsqueeze(1)


class GrownWithDots(GrownOuter):
    def grown(self, out, x):
        return torch.einsum("...p,...q->...pq", out, x)


IMAGE = 9


def ids_and_pictures(seed=0):
    """Token ids with three places for a picture in every sample, at other places, and three vectors per picture."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 8, (B, TEXT), generator=g)
    for i, first in enumerate((1, 0, 3, 2)):
        ids[i, first : first + 3] = IMAGE
    return ids, torch.randn(B, 3, VISUAL, generator=g)


class Scattered(nn.Module):
    """A reader of text with a picture's vectors among its tokens."""

    kind, layout, widths = "written", "(B, T, d)", {"text": 8, "visual": 8}
    calls = staticmethod(ids_and_pictures)

    def __init__(self):
        super().__init__()
        self.words, self.project = nn.Embedding(10, 8), nn.Linear(VISUAL, 8)
        # It reads, not writes.
        self.rnn, self.head = nn.GRU(8, 4, batch_first=True, bidirectional=True), nn.Linear(8, 3)

    def written(self, x, ids, pictures):
        mask = (ids == IMAGE).unsqueeze(-1).expand_as(x)
        return x.masked_scatter(mask, pictures.to(x.dtype))

    def forward(self, input_ids, pixel_values):
        x = self.written(self.words(input_ids), input_ids, self.project(pixel_values))
        return self.head(self.rnn(x)[0])


class Writer(Scattered):
    """Goes from token to token."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(8, 8, batch_first=True)


class ScatteredInPlace(Scattered):
    def written(self, x, ids, pictures):
        x = x.clone()
        x.masked_scatter_((ids == IMAGE).unsqueeze(-1), pictures)
        return x


class AssignedByMask(Scattered):
    def written(self, x, ids, pictures):
        x = x.clone()
        x[ids == IMAGE] = pictures.reshape(-1, 8)
        return x


class IndexPut(Scattered):
    def written(self, x, ids, pictures):
        return x.index_put(torch.where(ids == IMAGE), pictures.flatten(0, 1))


class Chosen(Scattered):
    """Rows gathered out of all pictures, of which some are of another sample where none is wanted."""

    def written(self, x, ids, pictures):
        mask = ids == IMAGE
        place = (mask.flatten().cumsum(0) - 1).clamp(min=0).view(mask.shape)
        return torch.where(mask.unsqueeze(-1), pictures.flatten(0, 1)[place], x)


class SampleBySample(Scattered):
    def written(self, x, ids, pictures):
        x = x.clone()
        for i, picture in enumerate(pictures):
            x[i, ids[i] == IMAGE] = picture
        return x


class Slices(Host):
    """A sequence made of two by writing them into an empty one."""

    kind, layout = "written", "(B, T, d)"

    def __init__(self):
        super().__init__(8)
        self.rnn = nn.GRU(8, 8, batch_first=True)

    def forward(self, text, audio):
        both = text.new_zeros(len(text), TEXT + AUDIO, 8)
        both[:, :TEXT] = text
        both[:, TEXT:] = audio
        return self.head(self.rnn(both)[0])


class SliceScatter(Slices):
    def forward(self, text, audio):
        both = torch.nn.functional.pad(text, (0, 0, 0, AUDIO))
        return self.head(self.rnn(both.slice_scatter(audio, 1, TEXT, TEXT + AUDIO))[0])


class VectorFirst(Host):
    """A vector for the whole sequence goes to all of its steps."""

    kind, layout = "sum", "(B, T, d)"
    calls = staticmethod(
        lambda: (torch.randn(B, 8), sequences()[1], torch.arange(AUDIO) < torch.tensor([[5], [3], [4], [2]]))
    )

    def __init__(self):
        super().__init__(8)
        self.rnn = nn.GRU(8, 8, batch_first=True)

    def forward(self, text, audio, mask):
        x = (text[:, None] + audio).masked_fill(~mask.unsqueeze(-1), 0)
        return self.head(self.rnn(x)[0])


class ExpandedBeside(VectorFirst):
    kind = "cat"

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(16, 8, batch_first=True)

    def forward(self, text, audio, mask):
        x = torch.cat([text.unsqueeze(1).expand(-1, audio.shape[1], -1), audio], -1)
        return self.head(self.rnn(x.masked_fill(~mask.unsqueeze(-1), 0))[0])


class MixedInPairs(nn.Module):
    """Streams take from one another before all of them are put together."""

    kind, layout, widths = "cat", "(B, T, d)", {f"text+audio+visual{n}": 8 for n in ("", 2, 3)}
    calls = staticmethod(lambda: tuple(torch.randn(B, TEXT, 8) for _ in range(3)))

    def __init__(self):
        super().__init__()
        self.att = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(3))
        self.head = nn.Linear(24, 3)

    def forward(self, text, audio, visual):
        for _ in range(2):
            t, a, v = (f(x, x, x)[0] for f, x in zip(self.att, (text, audio, visual)))
            text, audio, visual = text + a, audio + v, visual + t
        return self.head(torch.cat([text, audio, visual], -1))


class AdditiveScores(Host):
    """Which places of a picture go with the sound is a sum; where the two meet comes after."""

    layout, widths = "(B, T, d)", {"audio": 8, "audio+visual": 6}
    calls = staticmethod(lambda: (torch.randn(B, 9, 8), torch.randn(B, 9, 5, 6)))

    def __init__(self):
        super().__init__(14)
        self.v, self.score = nn.Linear(6, 8), nn.Linear(8, 1)
        self.rnn = nn.GRU(14, 14, batch_first=True)

    def forward(self, audio, video):
        places = self.score(torch.tanh(self.v(video) + audio.unsqueeze(2))).softmax(2)
        return self.head(self.rnn(torch.cat([audio, (places * video).sum(2)], -1))[0])


class Stacked(nn.Module):
    """One argument holds two modalities, one after the other."""

    kind, layout, widths, names = "cat", "(B, d)", {"text": 3, "audio": 3}, {"x": ["text", "audio"]}
    calls = staticmethod(lambda: (torch.randn(B, 2, 7),))

    def __init__(self):
        super().__init__()
        self.parts, self.head = nn.ModuleList(nn.Linear(7, 3) for _ in range(2)), nn.Linear(6, 3)

    def taken(self, x):
        return x[:, 0], x[:, 1]

    def forward(self, x):
        return self.head(torch.cat([f(i) for f, i in zip(self.parts, self.taken(x))], -1))


class StackedUnbound(Stacked):
    def taken(self, x):
        return x.unbind(1)


class StackedChunks(Stacked):
    def taken(self, x):
        return (half.squeeze(1) for half in x.chunk(2, 1))


class StackedInFront(Stacked):
    layout, names, widths = "(B, T, d)", ["text", "audio"], {"text": 3, "audio": 3}
    calls = staticmethod(lambda: (torch.randn(2, B, 5, 7),))

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(7, 7, batch_first=True)

    def taken(self, x):
        return (self.rnn(one)[0] for one in x)


class OuterOfAll(GrownOuter):
    """The tensor fusion network: an outer product, in another shape, times a third stream."""

    widths = {"text": 4, "audio": 3, "visual": 2}  # noqa: RUF012

    def forward(self, text, audio, visual):
        t, a, v = (f(x) for f, x in zip(self.parts, (text, audio, visual)))
        pair = torch.bmm(t.unsqueeze(2), a.unsqueeze(1)).view(len(t), -1, 1)
        return self.head(torch.bmm(pair, v.unsqueeze(1)).view(len(t), -1))


class OuterOfAllByEinsum(OuterOfAll):
    def forward(self, text, audio, visual):
        t, a, v = (f(x) for f, x in zip(self.parts, (text, audio, visual)))
        pair = torch.einsum("bi,bj->bij", t, a)
        return self.head(torch.einsum("bk,bj->bkj", pair.flatten(1), v).flatten(1))


class Places(Host):
    """A place for each modality in an empty tensor."""

    kind, layout = "written", "(..., d)"
    calls = staticmethod(lambda: (torch.randn(B, 8), torch.randn(B, 8)))

    def __init__(self):
        super().__init__(8)
        self.att = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, text, audio):
        both = text.new_zeros(len(text), 2, 8)
        both[:, 0] = text
        both[:, 1] = audio
        return self.head(self.att(both, both, both)[0].mean(1))


HOSTS = [
    ClsThenAttention, ClsThenEncoder, ClsThenEncoderTimeFirst, ClsThenOwnAttention, ClsByEinsum, LearntQueries, LowRankOfOne, GrownOuter,
    GrownByUnsqueeze, GrownWithDots, Scattered, ScatteredInPlace, AssignedByMask, IndexPut, Chosen, SampleBySample,
    Slices, SliceScatter, VectorFirst, ExpandedBeside, MixedInPairs, AdditiveScores, Stacked, StackedUnbound,
    StackedChunks, StackedInFront, OuterOfAll, OuterOfAllByEinsum, Places,
]  # fmt: skip
