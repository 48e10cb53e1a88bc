# ruff: noqa
# fmt: off
# pyright: basic
"""Hosts whose streams attend to each other."""

from zoo.base import *


@host(kind="cross-attention", layout=("(T, B, d)"), mods=("text", "audio"))
class MHAT(Enc):
    def __init__(self):
        super().__init__(out=8)
        self.attn = nn.MultiheadAttention(8, 2)
    def forward(self, lang, speech):
        h, w = self.attn(query=self.enc_l(lang), key=self.enc_a(speech), value=self.enc_a(speech))  # SITE MHAT
        return self.cls(h)
    @classmethod
    def call(cls):
        l, a, _ = xs("tbd")
        return (l, a), {}


class EinsumAttn(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_kv = nn.Linear(8, 8), nn.Linear(8, 16)
    def forward(self, x, ctx):
        q = self.to_q(x)
        k, v = self.to_kv(ctx).chunk(2, -1)
        s = torch.einsum("bid,bjd->bij", q, k) / 8 ** .5
        return torch.einsum("bij,bjd->bid", s.softmax(-1), v)


@host(kind=("cross-attention",), mods=("text", "audio"))
class EinsumX(Enc):
    def __init__(self):
        super().__init__(out=8)
        self.x = EinsumAttn()
    def forward(self, text, audio):
        return self.cls(self.x(self.enc_l(text), self.enc_a(audio)))  # SITE EinsumX
    @classmethod
    def call(cls):
        l, a, _ = xs()
        return (l, a[:, :4].contiguous()), {}


@host(kind=("cross-attention",), mods=("text", "visual"))
class SdpaX(Enc):
    def __init__(self):
        super().__init__(out=8)
    def attend(self, q, kv):
        return F.scaled_dot_product_attention(q, kv, kv)
    def forward(self, text, video):
        l, v = self.enc_l(text), self.enc_v(video)
        return self.cls(self.attend(l, v))
    any_line = True
    @classmethod
    def call(cls):
        l, _, v = xs()
        return (l, v), {}


@host(kind=("cross-attention",), mods=("text", "visual"))
class BmmX(Enc):
    """own attention written in forward itself"""
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, video):
        l, v = self.enc_l(text), self.enc_v(video)
        s = torch.bmm(l, v.transpose(1, 2)) / math.sqrt(8)
        c = torch.bmm(F.softmax(s, dim=-1), v)
        return self.cls(c)
    any_line = True
    @classmethod
    def call(cls):
        l, _, v = xs()
        return (l, v), {}


class HeadAttn(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.h = h
        self.ls = nn.ModuleList(nn.Linear(d, d) for _ in range(4))
    def forward(self, q, k, v):
        b = q.size(0)
        q, k, v = (l(x).view(b, -1, self.h, x.size(-1) // self.h).transpose(1, 2) for l, x in zip(self.ls, (q, k, v)))
        s = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.size(-1))
        x = torch.matmul(F.dropout(s.softmax(-1), 0.1, self.training), v)
        return self.ls[-1](x.transpose(1, 2).reshape(b, -1, q.size(-1) * self.h))


@host(kind="cross-attention", mods=("text", "audio"))
class HeadX(Enc):
    def __init__(self):
        super().__init__(out=8)
        self.x = HeadAttn(8, 2)
    def forward(self, text, audio):
        l, a = self.enc_l(text), self.enc_a(audio)
        return self.cls(self.x(l, a, a))  # SITE HeadX
    @classmethod
    def call(cls):
        l, a, _ = xs()
        return (l, torch.cat([a, a], 1)), {}


@host(kind="cross-attention", mods=("text", "audio"))
class InlineHeads(Enc):
    """multi-head attention written inline in forward"""
    def __init__(self):
        super().__init__(out=8)
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
    def forward(self, text, audio):
        l, a = self.enc_l(text), self.enc_a(audio)
        q, k, v = (f(x).view(x.size(0), -1, 2, 4).transpose(1, 2) for f, x in ((self.q, l), (self.k, a), (self.v, a)))
        w = (q @ k.transpose(-2, -1) / 2).softmax(dim=-1)
        ctx = (w @ v).transpose(1, 2).reshape(l.shape)  # SITE InlineHeads
        return self.cls(ctx)
    call = HeadX.call
InlineHeads.layouts = ("(..., d)",)

@host(kind="cross-attention", layout=("(B, T, d)",), mods=("text", "audio"))
class DecoderLayer(Enc):
    def __init__(self):
        super().__init__(out=8); self.dec = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    def forward(self, text, audio):
        return self.cls(self.dec(self.enc_l(text), self.enc_a(audio)))  # SITE DecoderLayer
    @classmethod
    def call(cls): return tuple(xs()[:2]), {}

@host(kind="cross-attention", layout="(B, T, d)", mods=("text", "audio"))
class BottleneckX(Enc):
    """cross-attention in a method taking a dict, einsum multi-head, with mask"""
    def __init__(self): super().__init__(out=8); self.wq, self.wk, self.wv = (nn.Linear(8, 8, bias=False) for _ in range(3))
    def attend(self, q, kv, mask=None):
        b, n, d = q.shape
        q_, k_, v_ = (w(x).reshape(b, -1, 2, d // 2) for w, x in ((self.wq, q), (self.wk, kv), (self.wv, kv)))
        s = torch.einsum("bihd,bjhd->bhij", q_, k_) * d ** -0.5
        if mask is not None: s = s.masked_fill(~mask[:, None, None, :], -1e9)
        return torch.einsum("bhij,bjhd->bihd", s.softmax(-1), v_).reshape(b, n, d)
    def forward(self, text, audio, mask):
        return self.cls(self.attend(self.enc_l(text), self.enc_a(audio), mask=mask))  # SITE BottleneckX
    @classmethod
    def call(cls): return (*xs()[:2], torch.arange(L) < torch.tensor(LENS)[:, None]), {}
