# ruff: noqa
# fmt: off
# pyright: basic
"""Nearly a hundred and fifty hosts written without a look at the patcher, in as many hands as possible; nothing is known to an adapter.

`# SITE Name` marks the line that `find_sites` has to name first for host `Name`; the decorator says kinds and layouts that are
right there, and the modalities (None: several answers are).
"""

import functools, operator, math, contextlib, collections, random, types, abc, typing
import numpy as np
from collections import namedtuple, OrderedDict
from dataclasses import dataclass
from typing import Optional, List, Dict, NamedTuple
import torch as th
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import cat, Tensor
from torch.nn import functional as Fn
from torch.utils.checkpoint import checkpoint
import unseen_joins as fu
from unseen_joins import merge_streams, Fuser, outer_level

Bz, L = 3, 6
D = {"text": 7, "audio": 5, "visual": 9}
LENS = [6, 2, 4]
ALL = []


def host(kind="cat", layout="(B, T, d)", mods=("text", "audio", "visual")):
    def deco(cls):
        cls.kinds = (kind,) if isinstance(kind, str) else kind
        cls.layouts = (layout,) if isinstance(layout, str) else layout
        cls.mods = mods
        ALL.append(cls)
        return cls
    return deco


def xs(layout="btd", seed=0, T=L, B=Bz):
    g = torch.Generator().manual_seed(seed)
    out = [torch.randn(B, T, w, generator=g) for w in D.values()]
    if layout == "tbd":
        return [x.transpose(0, 1).contiguous() for x in out]
    if layout == "bd":
        return [x[:, 0].contiguous() for x in out]
    return out


class Enc(nn.Module):
    def __init__(self, h=8, out=None, **kw):
        super().__init__()
        self.enc_l = nn.Linear(D["text"], h)
        self.enc_a = nn.Linear(D["audio"], h)
        self.enc_v = nn.Linear(D["visual"], h)
        self.cls = nn.Linear(out or 3 * h, 4)

    def enc(self, l, a, v):
        return self.enc_l(l), self.enc_a(a), self.enc_v(v)

    @classmethod
    def call(cls):
        return tuple(xs()), {}

    @classmethod
    def call_bd(cls):
        return tuple(xs("bd")), {}


@host(layout="(B, d)")
class XlXaXv(Enc):
    def forward(self, x_l, x_a, x_v):
        return self.cls(th.cat((self.enc_l(x_l), self.enc_a(x_a), self.enc_v(x_v)), 1))  # SITE XlXaXv
    call = Enc.call_bd


@host(layout="(T, B, d)")
class Recurrent(Enc):
    def __init__(self):
        super().__init__()
        self.r1, self.r2, self.r3 = nn.GRU(7, 8), nn.GRU(5, 8), nn.GRU(9, 8)
    def forward(self, textf, acouf, visuf):
        lin = self.r1(textf)[0]
        aco = self.r2(acouf)[0]
        vis = self.r3(visuf)[0]
        h = torch.cat(
            [
                lin,
                aco,
                vis,
            ],
            dim=2,
        )
        return F.softmax(self.cls(h), dim=-1)
    @classmethod
    def call(cls):
        return tuple(xs("tbd")), {}


@host(layout="(B, T, d)")
class LinVisAco(Enc):
    def forward(self, lin: Tensor, vis: Tensor, aco: Tensor) -> Tensor:
        l, a, v = self.enc(lin, aco, vis)
        if (z := th.cat([l, v, a], dim=-1)).sum() > -1e9:  # SITE LinVisAco
            z = z * 1.0
        return self.cls(z)
    @classmethod
    def call(cls):
        l, a, v = xs()
        return (l, v, a), {}


@host(mods=("text", "audio"))
class UUa(Enc):
    def __init__(self):
        super().__init__(out=16)
    def forward(self, U, U_a):
        return self.cls(cat([self.enc_l(U), self.enc_a(U_a)], -1))  # SITE UUa
    @classmethod
    def call(cls):
        return tuple(xs()[:2]), {}


@host()
class FeatsDict(Enc):
    def forward(self, feats: Dict[str, Tensor], mask: Optional[Tensor] = None):
        hs = {k: getattr(self, "enc_" + k[0].replace("t", "l"))(v) for k, v in feats.items()}
        return {"logits": self.cls(torch.cat(list(hs.values()), dim=-1)), "hs": hs}  # SITE FeatsDict
    @classmethod
    def call(cls):
        l, a, v = xs()
        return (), {"feats": {"text": l, "audio": a, "video": v}, "mask": torch.ones(Bz, L)}


@host(layout="(B, d)")
class TupleIn(Enc):
    def forward(self, batch):
        (l, a, v), _ = batch
        z = torch.column_stack([self.enc_l(l), self.enc_a(a), self.enc_v(v)])  # SITE TupleIn
        return self.cls(z)
    @classmethod
    def call(cls):
        return ((tuple(xs("bd")), torch.zeros(Bz, dtype=torch.long)),), {}


Batch = namedtuple("Batch", "lang acoustic vision labels")


@host()
class NamedIn(Enc):
    def forward(self, b):
        return self.cls(torch.dstack([self.enc_l(b.lang), self.enc_a(b.acoustic), self.enc_v(b.vision)]))  # SITE NamedIn
    @classmethod
    def call(cls):
        return (Batch(*xs(), torch.zeros(Bz, L, dtype=torch.long)),), {}


@dataclass
class Sample:
    words: Tensor
    speech: Tensor
    face: Tensor
    length: Tensor


@host()
class DataIn(Enc):
    def forward(self, sample: Sample):
        return self.cls(torch.cat([self.enc_l(sample.words), self.enc_a(sample.speech), self.enc_v(sample.face)], dim=-1))  # SITE DataIn
    @classmethod
    def call(cls):
        return (Sample(*xs(), torch.tensor(LENS)),), {}


@host()
class ImportedByName(Enc):
    file = "unseen_joins.py"
    def forward(self, *, text, audio, video):
        return self.cls(merge_streams(*self.enc(text, audio, video)))
    @classmethod
    def call(cls):
        return (), dict(zip(("text", "audio", "video"), xs()))


@host(layout="(B, d)")
class Static(Enc):
    file = "unseen_joins.py"
    def forward(self, text, audio, video):
        return self.cls(Fuser.glue(list(self.enc(text, audio, video))))
    call = Enc.call_bd


@host()
class ClassM(Enc):
    file = "unseen_joins.py"
    def forward(self, text, audio, video):
        return self.cls(fu.Fuser.glue2([*self.enc(text, audio, video)]))


@host()
class DeepHelpers(Enc):
    file = "unseen_joins.py"
    def forward(self, text, audio, video):
        return self.cls(outer_level(*self.enc(text, audio, video)))


@host()
class LambdaLocal(Enc):
    def forward(self, text, audio, video):
        j = lambda *p: torch.cat(p, dim=-1)  # SITE LambdaLocal
        return self.cls(j(*self.enc(text, audio, video)))


@host()
class Closure(Enc):
    def __init__(self):
        super().__init__()
        def build(scale):
            def combine(parts):
                return torch.cat([p * scale for p in parts], dim=-1)  # SITE Closure
            return combine
        self.combine = build(1.5)
    nopickle = True
    def forward(self, text, audio, video):
        return self.cls(self.combine(self.enc(text, audio, video)))


@host()
class Partial(Enc):
    def __init__(self):
        super().__init__()
        self.join = functools.partial(torch.cat, dim=-1)
    def forward(self, text, audio, video):
        return self.cls(self.join(self.enc(text, audio, video)))  # SITE Partial


def _glue(dim, parts):
    return torch.cat(parts, dim)  # SITE PartialOwn


@host()
class PartialOwn(Enc):
    def __init__(self):
        super().__init__()
        self.join = functools.partial(_glue, -1)
    def forward(self, text, audio, video):
        return self.cls(self.join(self.enc(text, audio, video)))


@host(layout="(B, d)")
class CompSteps(Enc):
    """comprehension over time"""
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        seq = torch.stack([torch.cat([l[:, i], a[:, i], v[:, i]], -1) for i in range(l.size(1))], 1)  # SITE CompSteps
        return self.cls(seq)


@host(layout="(N, d)")
class FlatLens(Enc):
    def forward(self, text, audio, video, lens):
        out = []
        for x in self.enc(text, audio, video):
            rows = []
            for b, n in enumerate(lens):
                rows += [x[b, :n]]
            out.append(torch.vstack(rows))
        return self.cls(torch.cat(out, dim=1))  # SITE FlatLens
    @classmethod
    def call(cls):
        return (*xs(), list(LENS)), {}


@host(layout="(N, d)", kind=("cat", "rows"))
class RowSlices(Enc):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(8, 8)
    def forward(self, U, U_a, U_v, seq_lengths):
        l, a, v = (torch.cat([x[:n, j] for j, n in enumerate(seq_lengths)], 0) for x in self.enc(U, U_a, U_v))
        nodes = torch.cat([l, a, v], dim=0)  # SITE RowSlices
        A = torch.eye(nodes.size(0)) + 0.1
        h = nodes + torch.relu(A @ self.mix(nodes))
        n = l.size(0)
        z = torch.cat((h[0:n], h[n:2 * n], h[2 * n:]), 1)  # SITE RowSlices
        return self.cls(z)
    @classmethod
    def call(cls):
        return (*xs("tbd"), list(LENS)), {}


@host(kind="sum", mods=("text", "audio", "visual"))
class PlusEq(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        out = l + a
        out += v  # SITE PlusEq
        return self.cls(out)


@host(kind="sum")
class TorchAdd(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        return self.cls(torch.add(torch.add(l, a), v, alpha=0.5))  # SITE TorchAdd


@host(kind="sum")
class PySum(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio, video):
        return self.cls(sum(self.enc(text, audio, video)))  # SITE PySum


@host(kind="sum")
class Weighted(Enc):
    def __init__(self):
        super().__init__(out=8)
        self.w = nn.Parameter(torch.tensor([0.2, 0.3, 0.5]))
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        z = self.w[0] * l + self.w[1] * a \
            + self.w[2] * v
        return self.cls(z)
    any_line = True


@host()
class AppendCat(Enc):
    def forward(self, text, audio, video):
        bag = list()
        for m, x in (("l", text), ("a", audio), ("v", video)):
            bag.append(getattr(self, f"enc_{m}")(x))
        return self.cls(torch.cat(bag, dim=-1))  # SITE AppendCat


@host(kind=("sum", "cat"), mods=None)
class GatedTwo(Enc):
    def __init__(self):
        super().__init__(out=8)
        self.gate = nn.Linear(16, 8)
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        g = torch.sigmoid(self.gate(torch.cat([a, v], -1)))
        z = g * a + (1 - g) * v
        out = l + 0.5 * z  # SITE GatedTwo
        return self.cls(out)


@host(kind="outer", layout="(B, d)", mods=("text", "audio"))
class OuterUnsq(Enc):
    def __init__(self):
        super().__init__(out=64)
    def forward(self, text, audio):
        z = self.enc_l(text).unsqueeze(-1) * self.enc_a(audio).unsqueeze(1)  # SITE OuterUnsq
        return self.cls(z.flatten(1))
    @classmethod
    def call(cls):
        return tuple(xs("bd")[:2]), {}
OuterUnsq.kinds = ("outer",)
OuterUnsq.layouts = ("(B, d)",)


@host(kind="outer", layout="(B, d)", mods=None)
class TriOuter(Enc):
    def __init__(self):
        super().__init__(out=9 ** 3)
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        one = l.new_ones(l.size(0), 1)
        l, a, v = (torch.cat((one, x), dim=1) for x in (l, a, v))
        z = torch.einsum("bi,bj,bk->bijk", l, a, v)  # SITE TriOuter
        return self.cls(z.reshape(z.size(0), -1))
    call = Enc.call_bd
TriOuter.mods = ("text", "audio", "visual")


@host(kind="outer", layout="(B, d)", mods=None)
class BmmOuter(Enc):
    def __init__(self):
        super().__init__(out=9 ** 3)
    def forward(self, audio_x, video_x, text_x):
        l, a, v = self.enc(text_x, audio_x, video_x)
        one = torch.ones(l.size(0), 1).type_as(l)
        _a, _v, _l = (torch.cat((one, x), dim=1) for x in (a, v, l))
        t = torch.bmm(_a.unsqueeze(2), _v.unsqueeze(1))  # SITE BmmOuter
        t = t.view(-1, 81, 1)
        t = torch.bmm(t, _l.unsqueeze(1)).view(l.size(0), -1)  # SITE BmmOuter
        return self.cls(t)
    @classmethod
    def call(cls):
        l, a, v = xs("bd")
        return (a, v, l), {}


@host(kind="product", mods=("text", "audio", "visual"))
class LowRank2(Enc):
    def __init__(self):
        super().__init__(out=8)
        self.lf = nn.Parameter(torch.randn(3, 8, 8) * .3)
        self.af = nn.Parameter(torch.randn(3, 8, 8) * .3)
        self.vf = nn.Parameter(torch.randn(3, 8, 8) * .3)
        self.fw = nn.Parameter(torch.randn(1, 3) * .3)
    def forward(self, text_x, audio_x, video_x):
        l, a, v = self.enc(text_x, audio_x, video_x)
        zy = torch.matmul(a, self.af) * torch.matmul(v, self.vf) * torch.matmul(l, self.lf)  # SITE LowRank2
        o = torch.matmul(self.fw, zy.permute(1, 0, 2)).squeeze(1)
        return self.cls(o)
    call = Enc.call_bd
LowRank2.layouts = ("(B, d)", "(B, T, d)", "(..., d)", "(T, B, d)")


@host(kind="stack")
class StackMean(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio, video):
        return self.cls(torch.stack(self.enc(text, audio, video)).mean(dim=0))  # SITE StackMean


@host(kind="stack", layout="(B, d)")
class StackMax(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio, video):
        s = torch.stack(list(self.enc(text, audio, video)), dim=1)  # SITE StackMax
        m, _ = s.max(dim=1)
        return self.cls(m)
    call = Enc.call_bd


@host(kind="stack", layout="(B, d)")
class StackSum(Enc):
    def __init__(self):
        super().__init__(out=8)
        self.att = nn.Linear(8, 1)
    def forward(self, text, audio, video):
        s = torch.stack([*self.enc(text, audio, video)], -2)  # SITE StackSum
        w = self.att(s).softmax(-2)
        return self.cls((w * s).sum(-2))
    call = Enc.call_bd


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


@host(kind="cat", mods=("text", "audio", "visual"))
class XattThenCat(Enc):
    def __init__(self):
        super().__init__()
        self.la = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lv = nn.MultiheadAttention(8, 2, batch_first=True)
        self.ln = nn.LayerNorm(8)
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        a2 = self.ln(a + self.la(a, l, l)[0])
        v2 = self.ln(v + self.lv(v, l, l)[0])
        return self.cls(torch.cat([l, a2, v2], dim=-1))  # SITE XattThenCat


@host(layout="(B, d)")
class LoopCell(Enc):
    """MFN-like: the join inside the loop"""
    def __init__(self):
        super().__init__()
        self.c = nn.LSTMCell(24, 12)
        self.cls = nn.Linear(12, 4)
    def forward(self, text_x, audio_x, video_x):
        l, a, v = self.enc(text_x, audio_x, video_x)
        t, n, _ = l.shape
        h = c = torch.zeros(n, 12)
        for i in range(t):
            joint = torch.cat([l[i], a[i], v[i]], dim=1)  # SITE LoopCell
            h, c = self.c(joint, (h, c))
        return self.cls(h)
    @classmethod
    def call(cls):
        return tuple(xs("tbd")), {}


@host(mods=None)
class ControlFlow2(Enc):
    def __init__(self):
        super().__init__()
        self.modals = "avl"
    def forward(self, dataset_input=None, a=None, t=None, v=None):
        parts = []
        if "a" in self.modals and a is not None:
            parts.append(self.enc_a(a))
        if t is not None and float(t.abs().sum()) > 0:
            parts.append(self.enc_l(t))
        parts = parts + [self.enc_v(v)] if v is not None else parts
        joined = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]  # SITE ControlFlow2
        return self.cls(joined)
    @classmethod
    def call(cls):
        l, a, v = xs()
        return (), {"a": a, "t": l, "v": v}


class FuseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Linear(24, 12)
    def forward(self, tup):
        return torch.relu(self.p(torch.cat(tup, -1)))  # SITE SeqHost


class EncNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.ModuleList([nn.Linear(d, 8) for d in D.values()])
    def forward(self, tup):
        return tuple(m(x) for m, x in zip(self.e, tup))


@host(mods=None)
class SeqHost(nn.Sequential):
    def __init__(self):
        super().__init__(EncNet(), FuseNet(), nn.Linear(12, 4))
    @classmethod
    def call(cls):
        return (tuple(xs()),), {}


@host()
class ForwardDirect(Enc):
    """calls .forward of submodules, twice nested"""
    def __init__(self):
        super().__init__()
        self.core = FuseNet()
        self.cls = nn.Linear(12, 4)
    def forward(self, text, audio, video):
        return self.cls.forward(self.core.forward((self.enc_l.forward(text), self.enc_a(audio), self.enc_v(video))))
    marker = "SeqHost"


def timed(fn):
    @functools.wraps(fn)
    def wrapper(self, *a, **k):
        return fn(self, *a, **k)
    return wrapper


@host()
class DecoratedHelper(Enc):
    @timed
    def mix(self, l, a, v):
        return torch.cat([l, a, v], -1)  # SITE DecoratedHelper
    @timed
    def forward(self, text, audio, video):
        return self.cls(self.mix(*self.enc(text, audio, video)))


@host()
class CondExpr(Enc):
    early: bool = True
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        self.note = f"{l.shape} {'x' if self.early else 'y'}"
        return self.cls(torch.cat([l, a, v], -1) if self.early else torch.cat([v, a, l], -1))  # SITE CondExpr


@host()
class NestedFn(Enc):
    def forward(self, text, audio, video):
        def encode():
            return self.enc(text, audio, video)
        def fuse():
            zs = encode()
            return torch.cat(zs, -1)  # SITE NestedFn
        return self.cls(fuse())


@host(kind="cat", mods=None)
class PairLine(Enc):
    """same line for several pairs of modalities"""
    def __init__(self):
        super().__init__(out=24)
        self.pr = nn.Linear(16, 8)
    def pair(self, p, q):
        return torch.tanh(self.pr(torch.cat([p, q], dim=-1)))  # SITE PairLine
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        outs = [self.pair(p, q) for p, q in ((l, a), (l, v), (a, v))]
        return self.cls(torch.cat(outs, -1))  # SITE PairLine


@host()
class TwiceUsed(Enc):
    def __init__(self):
        super().__init__()
        self.aux = nn.Linear(24, 2)
        self.dead = nn.Linear(24, 2)
    def forward(self, text, audio, video):
        z = torch.cat(self.enc(text, audio, video), 2)  # SITE TwiceUsed
        _ = self.dead(z)
        return self.cls(z), self.aux(z)


@host(mods=("text", "audio"))
class SharedTwice(Enc):
    """one sub-module used for two joins and registered under two names"""
    def __init__(self):
        super().__init__(out=24)
        self.core = FuseNet2()
        self.again = self.core
    def forward(self, text, audio):
        l, a = self.enc_l(text), self.enc_a(audio)
        return self.cls(torch.cat([self.core(l, a), self.again(l * 2, a)], -1))
    @classmethod
    def call(cls):
        return tuple(xs()[:2]), {}


class FuseNet2(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Linear(16, 12)
    def forward(self, x, y):
        return self.p(torch.cat((x, y), -1))  # SITE SharedTwice


@host()
class WeightNorm(Enc):
    def __init__(self):
        super().__init__()
        self.cls = nn.utils.parametrizations.weight_norm(self.cls)
        self.enc_l = nn.utils.parametrizations.spectral_norm(self.enc_l)
    def forward(self, text, audio, video):
        return self.cls(torch.cat(self.enc(text, audio, video), dim=-1))  # SITE WeightNorm


@host()
class OldWeightNorm(Enc):
    nocopy = True
    def __init__(self):
        super().__init__()
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.cls = nn.utils.weight_norm(self.cls)
    def forward(self, text, audio, video):
        return self.cls(torch.cat(self.enc(text, audio, video), dim=-1))  # SITE OldWeightNorm


@host()
class NoGradInside(Enc):
    def forward(self, text, audio, video):
        with torch.no_grad():
            l = self.enc_l(text)
        return self.cls(torch.cat([l, self.enc_a(audio), self.enc_v(video)], -1))  # SITE NoGradInside


@host()
class HookedHost(Enc):
    def __init__(self):
        super().__init__()
        self.enc_a.register_forward_hook(_hook)
        self.register_forward_pre_hook(_prehook)
        self.register_forward_hook(_hook)
    def forward(self, text, audio, video):
        return self.cls(torch.cat(self.enc(text, audio, video), dim=-1))  # SITE HookedHost


def _hook(m, a, o):
    return o * 1.0


def _prehook(m, a):
    return None


@host()
class CkptReentrant(Enc):
    def blk(self, l, a, v):
        return torch.cat([l, a, v], -1).relu()  # SITE CkptReentrant
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        return self.cls(checkpoint(self.blk, l, a, v, use_reentrant=True))


@host(layout="(B, T, d)")
class ConvHost(Enc):
    """MulT-like: (B,d,T) conv, permute(2,0,1), cat on features at (T,B,d)"""
    def __init__(self):
        super().__init__()
        self.pl, self.pa, self.pv = nn.Conv1d(7, 8, 1, bias=False), nn.Conv1d(5, 8, 1, bias=False), nn.Conv1d(9, 8, 1, bias=False)
        self.tr = nn.TransformerEncoderLayer(24, 2, 16, dropout=0.1)
    def forward(self, x_l, x_a, x_v):
        l, a, v = (f(x.transpose(1, 2)).permute(2, 0, 1) for f, x in ((self.pl, x_l), (self.pa, x_a), (self.pv, x_v)))
        h = self.tr(torch.cat([l, a, v], dim=2))  # SITE ConvHost
        return self.cls(h[-1])
ConvHost.layouts = ("(T, B, d)",)


@host(layout="(B, d)")
class LastStates(Enc):
    """MISA-like: final LSTM states, cat then view"""
    def __init__(self):
        super().__init__()
        self.l, self.a, self.v = nn.LSTM(7, 4, bidirectional=True, batch_first=True), nn.LSTM(5, 4, bidirectional=True, batch_first=True), nn.LSTM(9, 4, bidirectional=True, batch_first=True)
    def ext(self, rnn, x, lens):
        p = nn.utils.rnn.pack_padded_sequence(x, lens, batch_first=True, enforce_sorted=False)
        _, (h, _) = rnn(p)
        return h.permute(1, 0, 2).contiguous().view(x.size(0), -1)
    def forward(self, sentences, acoustic, visual, lengths):
        o = self.ext(self.l, sentences, lengths), self.ext(self.a, acoustic, lengths), self.ext(self.v, visual, lengths)
        return self.cls(torch.cat(o, dim=1))  # SITE LastStates
    @classmethod
    def call(cls):
        return (*xs(), torch.tensor(LENS)), {}


@host(kind="stack", layout="(B, d)")
class MisaStack(Enc):
    def __init__(self):
        super().__init__()
        self.tr = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1, enable_nested_tensor=False)
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        h = torch.stack((l, a, v), dim=0)  # SITE MisaStack
        h = self.tr(h)
        return self.cls(torch.cat((h[0], h[1], h[2]), dim=1))
    call = Enc.call_bd
MisaStack.kinds = ("stack", "cat")
MisaStack.any_line = True


@host(mods=None)
class ModuleDictHost(nn.Module):
    def __init__(self):
        super().__init__()
        self.m = nn.ModuleDict({"l": nn.Linear(7, 8), "a": nn.Linear(5, 8), "v": nn.Linear(9, 8)})
        self.head = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))
    def forward(self, **inputs):
        reps = OrderedDict((k, self.m[k](inputs[k])) for k in sorted(self.m))
        fused = torch.cat([*reps.values()], dim=-1)  # SITE ModuleDictHost
        return self.head(fused)
    @classmethod
    def call(cls):
        return (), dict(zip("lav", xs()))


@host(kind="cat", layout="(B, d)", mods=("text", "audio", "visual"))
class PoolThenCat(Enc):
    def forward(self, text, audio, video, attention_mask):
        m = attention_mask.unsqueeze(-1).float()
        pooled = [(self_e(x) * m).sum(1) / m.sum(1).clamp(min=1) for self_e, x in ((self.enc_l, text), (self.enc_a, audio), (self.enc_v, video))]
        return self.cls(torch.cat(pooled, -1))  # SITE PoolThenCat
    @classmethod
    def call(cls):
        return (*xs(), (torch.arange(L) < torch.tensor(LENS)[:, None]).long()), {}


@host(kind="sum", layout="(B, d)", mods=("text", "audio", "visual"))
class ReduceAdd(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio, video):
        return self.cls(functools.reduce(torch.add, self.enc(text, audio, video)))  # SITE ReduceAdd
    call = Enc.call_bd


@host(kind="sum", layout="(B, d)", mods=("text", "audio", "visual"))
class ReduceLambda(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio, video):
        return self.cls(functools.reduce(lambda p, q: p + q, self.enc(text, audio, video)))  # SITE ReduceLambda
    call = Enc.call_bd
ReduceLambda.mods = None


@host(kind="cat")
class PreallocEmpty(Enc):
    """out= and copy into a buffer: z[..., :8] = l"""
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        z = torch.cat((l, a, v), dim=-1, out=None) if False else torch.cat(tensors=(l, a, v), dim=-1)  # SITE PreallocEmpty
        return self.cls(z)


@host(kind="cat")
class DunderInit(Enc):
    """own list subclass and *args forward"""
    def forward(self, *modal_feats):
        encs = (self.enc_l, self.enc_a, self.enc_v)
        return self.cls(torch.cat(list(map(lambda p: p[0](p[1]), zip(encs, modal_feats))), -1))  # SITE DunderInit


class Fusion4(nn.Module):
    def forward(self, *streams):
        return torch.cat(streams, dim=-1)  # SITE SubFusion


@host()
class SubFusion(Enc):
    def __init__(self):
        super().__init__()
        self.fusion = Fusion4()
    def forward(self, text, audio, video):
        return self.cls(self.fusion(*self.enc(text, audio, video)))


@host(kind="cat")
class PropertyHost(Enc):
    """join in a property and in __call__ of a plain object"""
    class Joiner:
        def __call__(self, parts):
            return torch.cat(parts, -1)  # SITE PropertyHost
    def __init__(self):
        super().__init__()
        self.joiner = self.Joiner()
    def forward(self, text, audio, video):
        return self.cls(self.joiner(self.enc(text, audio, video)))


@host(kind="cat")
class GeneratorHost(Enc):
    def parts(self, text, audio, video):
        yield self.enc_l(text)
        yield self.enc_a(audio)
        yield self.enc_v(video)
    def forward(self, text, audio, video):
        return self.cls(torch.cat([*self.parts(text, audio, video)], -1))  # SITE GeneratorHost


@host(kind="cat")
class GenInside(Enc):
    """the join within a generator"""
    def joins(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        for _ in range(2):
            yield torch.cat([l, a, v], -1)  # SITE GenInside
    def forward(self, text, audio, video):
        return sum(self.cls(z) for z in self.joins(text, audio, video))


@host(kind="cat")
class TryWith(Enc):
    def forward(self, text, audio, video):
        try:
            with contextlib.nullcontext() as _:
                out = self.cls(torch.cat([self.enc_l(text), self.enc_a(audio), self.enc_v(video)], dim=-1))  # SITE TryWith
        except RuntimeError as e:
            raise ValueError("bad") from e
        return out


@host(kind="cat")
class BaseClassForward(XlXaXv):
    """inherited forward; sub-class overrides nothing"""
    call = Enc.call
    marker = "XlXaXv"
    def __init__(self):
        super().__init__()
    def forward(self, x_l, x_a, x_v):
        l, a, v = x_l[:, 0], x_a[:, 0], x_v[:, 0]
        return XlXaXv.forward(self, l, a, v)
BaseClassForward.layouts = ("(B, d)",)


@host(kind="cat", mods=("text", "audio", "visual"))
class SpeakerHost(Enc):
    """modality features with speaker embedding added and positional added"""
    def __init__(self):
        super().__init__()
        self.spk = nn.Embedding(3, 8)
        self.pos = nn.Parameter(torch.randn(1, 50, 8) * .1)
    def forward(self, textf, visuf, acouf, u_mask, qmask, dia_len):
        s = self.spk(qmask.argmax(-1)).transpose(0, 1)
        l, a, v = (x.permute(1, 0, 2) for x in self.enc(textf, acouf, visuf))
        l, a, v = l + s + self.pos[:, :l.size(1)], a + s, v + s
        z = torch.cat([l, a, v], dim=-1)  # SITE SpeakerHost
        return self.cls(z) * u_mask.unsqueeze(-1)
    @classmethod
    def call(cls):
        l, a, v = xs("tbd")
        return (l, v, a, (torch.arange(L) < torch.tensor(LENS)[:, None]).float(),
                F.one_hot(torch.randint(0, 3, (L, Bz), generator=torch.Generator().manual_seed(1)), 3).float(), list(LENS)), {}


@host(kind="sum", mods=("text", "audio"))
class Displacement(Enc):
    """MAG-like: gate * shift added to the text"""
    def __init__(self):
        super().__init__(out=8)
        self.w = nn.Linear(16, 8)
    def forward(self, text_emb, acoustic):
        l, a = self.enc_l(text_emb), self.enc_a(acoustic)
        g = F.relu(self.w(torch.cat((a, l), dim=-1)))  # SITE Displacement
        h = g * a
        alpha = torch.min(l.norm(2, -1) / (h.norm(2, -1) + 1e-6), torch.ones(1)).unsqueeze(-1)
        return self.cls(alpha * h + l)
    kinds = ("cat", "sum")
    @classmethod
    def call(cls):
        return tuple(xs()[:2]), {}
Displacement.kinds = ("cat", "sum")


@host(kind="cat")
class SlotsRow(Enc):
    """tokens cat along time: (B, 3T, d), then transformer, then mean"""
    def __init__(self):
        super().__init__(out=8)
        self.tr = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    def forward(self, text, audio, video):
        seq = torch.cat(self.enc(text, audio, video), dim=1)  # SITE SlotsRow
        return self.cls(self.tr(seq).mean(1))
SlotsRow.kinds = ("rows",)


@host(kind="cat", layout="(B, T, d)")
class FourMods(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.ModuleDict({k: nn.Linear(w, 6) for k, w in dict(eeg=4, ecg=3, gsr=2, video=5).items()})
        self.out = nn.Linear(24, 2)
    def forward(self, eeg, ecg, gsr, video):
        z = torch.cat([self.e["eeg"](eeg), self.e["ecg"](ecg), self.e["gsr"](gsr), self.e["video"](video)], dim=-1)  # SITE FourMods
        return self.out(z)
    @classmethod
    def call(cls):
        g = torch.Generator().manual_seed(5)
        return tuple(torch.randn(2, 5, w, generator=g) for w in (4, 3, 2, 5)), {}
FourMods.mods = ("eeg", "ecg", "gsr", "visual")
TupleIn.mods = None
PlusEq.mods = None
DunderInit.mods = None
ControlFlow2.mods = ("audio", "text", "visual")
ModuleDictHost.mods = ("text", "audio", "visual")


@host(kind="outer", layout="(B, T, d)", mods=("text", "audio"))
class OuterSteps(Enc):
    def __init__(self):
        super().__init__(out=64)
    def forward(self, text, audio):
        z = torch.einsum("bti,btj->btij", self.enc_l(text), self.enc_a(audio))  # SITE OuterSteps
        return self.cls(z.flatten(-2))
    @classmethod
    def call(cls):
        return tuple(xs()[:2]), {}


@host(kind="outer", layout="(B, T, d)", mods=("text", "audio"))
class OuterSteps2(OuterSteps):
    def forward(self, text, audio):
        z = self.enc_l(text)[..., :, None] * self.enc_a(audio)[..., None, :]  # SITE OuterSteps2
        return self.cls(z.flatten(-2))


@host(kind="outer", layout="(B, T, d)", mods=("text", "audio"))
class MatmulOuterSteps(OuterSteps):
    def forward(self, text, audio):
        z = self.enc_l(text).unsqueeze(3) @ self.enc_a(audio).unsqueeze(2)  # SITE MatmulOuterSteps
        return self.cls(z.flatten(-2))


@host(kind="outer", layout="(B, d)", mods=("text", "audio", "visual"))
class TripleBroadcast(Enc):
    def __init__(self):
        super().__init__(out=512)
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        z = l[:, :, None, None] * a[:, None, :, None] * v[:, None, None, :]  # SITE TripleBroadcast
        return self.cls(z.flatten(1))
    call = Enc.call_bd


@host(kind="outer", layout="(B, T, d)", mods=("text", "audio"))
class BilinearHost(Enc):
    def __init__(self):
        super().__init__(out=10)
        self.bil = nn.Bilinear(8, 8, 10)
    def forward(self, text, audio):
        return self.cls(self.bil(self.enc_l(text), self.enc_a(audio)))  # SITE BilinearHost
    @classmethod
    def call(cls):
        return tuple(xs()[:2]), {}


@host(kind="product", mods=("text", "audio"))
class GatedByOther(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio):
        return self.cls(torch.sigmoid(self.enc_a(audio)) * self.enc_l(text))  # SITE GatedByOther
    @classmethod
    def call(cls):
        return tuple(xs()[:2]), {}


@host(kind="sum", mods=("text", "audio", "visual"))
class MethodAdd(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio, video):
        return self.cls(self.enc_l(text).add(self.enc_a(audio)).add(self.enc_v(video)).div(3))  # SITE MethodAdd


@host(kind="sum", mods=("text", "audio", "visual"))
class StepwiseSum(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio, video):
        h = self.enc_l(text)
        h = h + self.enc_a(audio)
        if video is not None:
            h = h + self.enc_v(video)  # SITE StepwiseSum
        return self.cls(h)


@host(kind="sum", mods=None)
class LoopSum(Enc):
    def __init__(self):
        super().__init__(out=8)
        self.w = nn.Parameter(torch.ones(3) / 3)
    def forward(self, text, audio, video):
        h = 0
        for i, z in enumerate(self.enc(text, audio, video)):
            h = h + z * self.w[i].softmax(0)  # SITE LoopSum
        return self.cls(h)


@host(kind="sum", mods=("text", "audio", "visual"))
class InplaceSum(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio, video):
        h = self.enc_l(text)
        h += self.enc_a(audio)
        h += self.enc_v(video)  # SITE InplaceSum
        return self.cls(h)


@host(kind="sum", mods=("text", "audio", "visual"))
class AddUnder(Enc):
    def __init__(self):
        super().__init__(out=8)
    def forward(self, text, audio, video):
        h = self.enc_l(text)
        h.add_(self.enc_a(audio))
        h.add_(self.enc_v(video))  # SITE AddUnder
        return self.cls(h)


@host(kind="cat", mods=("text", "audio", "visual"))
class CatCat(Enc):
    """cat of a cat: pairwise nested"""
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        av = torch.cat([a, v], -1)
        return self.cls(torch.cat([l, av], dim=-1))  # SITE CatCat
CatCat.mods = None


@host(kind="cat")
class CatTable(Enc):
    """function reached through a table"""
    def forward(self, text, audio, video):
        return self.cls(JOINS["cat"](self.enc(text, audio, video)))


def _table_cat(p):
    return torch.cat(p, -1)  # SITE CatTable
JOINS = {"cat": _table_cat}


class Cached:
    def __init__(self, fn): self.fn = fn
    def __call__(self, *a): return self.fn(*a)


@Cached
def cached_cat(a, b, c):
    return torch.cat([a, b, c], -1)  # SITE ObjDecorator


@host(kind="cat")
class ObjDecorator(Enc):
    def forward(self, text, audio, video):
        return self.cls(cached_cat(*self.enc(text, audio, video)))


@host(kind="cat")
class LazyProperty(Enc):
    """join in a property"""
    @property
    def fused(self):
        return torch.cat(self._parts, -1)  # SITE LazyProperty
    def forward(self, text, audio, video):
        self._parts = self.enc(text, audio, video)
        out = self.cls(self.fused)
        del self._parts
        return out


@host(kind="cat")
class NextGen(Enc):
    """generator made here, run there"""
    def gen(self, l, a, v):
        yield torch.cat([l, a, v], -1)  # SITE NextGen
    def forward(self, text, audio, video):
        g = self.gen(*self.enc(text, audio, video))
        z = None
        for z in g:
            pass
        return self.cls(z)


@host(kind="cat")
class MatchHost(Enc):
    def forward(self, text, audio, video):
        match self.enc(text, audio, video):
            case (l, a, v):
                return self.cls(torch.cat([l, a, v], -1))  # SITE MatchHost


@host(kind="cat")
class StarKw(Enc):
    def forward(self, text, audio, video):
        opts = {"dim": -1}
        return self.cls(torch.cat([*self.enc(text, audio, video)], **opts))  # SITE StarKw


@host(kind="cat")
class SubscriptAssign(Enc):
    def forward(self, text, audio, video):
        state = {}
        state["z"]: Tensor = torch.cat(self.enc(text, audio, video), dim=-1)  # SITE SubscriptAssign
        return self.cls(state["z"])


class BaseFuse(nn.Module):
    def fuse(self, parts):
        return torch.cat(parts, dim=-1)  # SITE SuperFuse


@host(kind="cat")
class SuperFuse(Enc, BaseFuse):
    def fuse(self, parts):
        return super().fuse(parts)
    def forward(self, text, audio, video):
        return self.cls(self.fuse(self.enc(text, audio, video)))


@host(kind="cat")
class CallableFwd(Enc):
    """forward replaced on the instance"""
    nopickle = True
    def __init__(self):
        super().__init__()
        self.forward = self.get_loss
    def get_loss(self, data):
        h = torch.cat([self.enc_l(data["text_feats"]), self.enc_a(data["audio_feats"]), self.enc_v(data["vision_feats"])], -1)  # SITE CallableFwd
        return self.cls(h).logsumexp(-1).mean()
    @classmethod
    def call(cls):
        l, a, v = xs()
        return ({"text_feats": l, "audio_feats": a, "vision_feats": v, "len": torch.tensor(LENS), "label": torch.zeros(Bz, dtype=torch.long)},), {}
CallableFwd.nocopy = True


@host(kind="cat", layout="(N, d)")
class GraphDict(Enc):
    """COGMEN-like: dict, flat by loops"""
    def forward(self, data):
        ls = data["text_len_tensor"]
        nodes = []
        for m in ("a", "t", "v"):
            x = getattr(self, {"a": "enc_a", "t": "enc_l", "v": "enc_v"}[m])(data["tensor"][m])
            flat = []
            for j in range(x.shape[0]):
                flat.append(x[j, : int(ls[j]), :])
            nodes.append(torch.cat(flat, dim=0))
        return self.cls(torch.cat(nodes, dim=-1))  # SITE GraphDict
    @classmethod
    def call(cls):
        l, a, v = xs()
        return ({"tensor": {"a": a, "t": l, "v": v}, "text_len_tensor": torch.tensor(LENS)},), {}


@host(kind="cat", layout="(N, d)")
class MaskSelect(Enc):
    def forward(self, r1, x1, x2, umask):
        keep = umask.view(-1) > 0
        l, a, v = (z.reshape(-1, z.size(-1))[keep] for z in self.enc(r1, x1, x2))
        return self.cls(torch.cat((l, a, v), 1))  # SITE MaskSelect
    @classmethod
    def call(cls):
        return (*xs(), (torch.arange(L) < torch.tensor(LENS)[:, None]).float()), {}
MaskSelect.mods = None


@host(kind="cat", layout="(B, T, d)", mods=("text", "audio"))
class CrossModal2(Enc):
    """unaligned lengths, cross-attention by own module with several heads, then pooled cat"""
    def __init__(self):
        super().__init__(out=16)
        self.x = HeadAttn(8, 2)
        self.y = HeadAttn(8, 2)
    def forward(self, tokens_emb, wav_emb):
        l, a = self.enc_l(tokens_emb), self.enc_a(wav_emb)
        l2 = l + self.x(l, a, a)
        a2 = a + self.y(a, l, l)
        return self.cls(torch.cat([l2.mean(1), a2.max(1).values], -1))  # SITE CrossModal2
    @classmethod
    def call(cls):
        l, a, _ = xs()
        return (l, torch.cat([a, a], 1)), {}
CrossModal2.layouts = ("(B, d)",)


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


@host(kind=("sum", "cat", "cross-attention"), mods=None)
class ResidualX(Enc):
    """l + attn(l, a): trunk"""
    def __init__(self):
        super().__init__(out=8)
        self.x = nn.MultiheadAttention(8, 2, batch_first=True)
    def forward(self, text, audio):
        l, a = self.enc_l(text), self.enc_a(audio)
        return self.cls(l + self.x(l, a, a, need_weights=False)[0])
    any_line = True
    call = HeadX.call


@host(kind="outer", layout="(B, T, d)", mods=("text", "audio"))
class EllipsisOuter(Enc):
    def __init__(self): super().__init__(out=64)
    def forward(self, text, audio):
        z = torch.einsum("...i,...j->...ij", self.enc_l(text), self.enc_a(audio))  # SITE EllipsisOuter
        return self.cls(z.flatten(-2))
    @classmethod
    def call(cls): return tuple(xs()[:2]), {}

@host(kind="cross-attention", layout=("(B, T, d)",), mods=("text", "audio"))
class DecoderLayer(Enc):
    def __init__(self):
        super().__init__(out=8); self.dec = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    def forward(self, text, audio):
        return self.cls(self.dec(self.enc_l(text), self.enc_a(audio)))  # SITE DecoderLayer
    @classmethod
    def call(cls): return tuple(xs()[:2]), {}

@host(kind="rows", layout=("(B, T, d)",), mods=("text", "audio", "visual"))
class ClsTokens(Enc):
    def __init__(self):
        super().__init__(out=8); self.cls_tok = nn.Parameter(torch.randn(1, 1, 8)); self.sep = nn.Parameter(torch.randn(1, 1, 8))
        self.tr = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, enable_nested_tensor=False)
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video); b = l.size(0)
        seq = torch.cat([self.cls_tok.expand(b, -1, -1), l, self.sep.expand(b, 1, 8), a[:, :4], self.sep.repeat(b, 1, 1), v], dim=1)  # SITE ClsTokens
        return self.cls(self.tr(seq)[:, 0])

@host(kind="cat", layout=("(B, d)",), mods=("text", "audio", "visual"))
class HFStyle(nn.Module):
    def __init__(self):
        super().__init__(); self.emb = nn.Embedding(30, 8); self.rnn = nn.GRU(8, 8, batch_first=True); self.a = nn.Conv1d(1, 8, 5, 3); self.v = nn.Conv2d(3, 8, 3); self.cls = nn.Linear(24, 4)
    def forward(self, input_ids=None, attention_mask=None, input_values=None, pixel_values=None, labels=None):
        t = self.rnn(self.emb(input_ids))[0][:, -1]
        a = F.gelu(self.a(input_values[:, None])).mean(-1)
        v = self.v(pixel_values).flatten(2).mean(-1)
        logits = self.cls(torch.cat([t, a, v], dim=1))  # SITE HFStyle
        loss = F.cross_entropy(logits, labels) if labels is not None else None
        return types.SimpleNamespace(loss=loss, logits=logits)
    @classmethod
    def call(cls):
        g = torch.Generator().manual_seed(1)
        return (), dict(input_ids=torch.randint(0, 30, (3, 6), generator=g), attention_mask=torch.ones(3, 6, dtype=torch.long), input_values=torch.randn(3, 40, generator=g), pixel_values=torch.randn(3, 3, 8, 8, generator=g), labels=torch.tensor([0, 1, 2]))

@host(mods=("text", "audio"))
class SplitInside(nn.Module):
    """one joined tensor that the model splits itself"""
    opts = {"modalities": {"x": {"text": 7, "audio": 5}}}
    def __init__(self): super().__init__(); self.l, self.a, self.cls = nn.Linear(7, 8), nn.Linear(5, 8), nn.Linear(16, 4)
    def forward(self, x):
        l, a = x[..., :7], x[..., 7:]
        return self.cls(torch.cat([self.l(l).relu(), self.a(a).relu()], -1))  # SITE SplitInside
    @classmethod
    def call(cls): l, a, _ = xs(); return (torch.cat([l, a], -1),), {}

@host(kind="sum", mods=("text", "audio"))
class WhereHost(Enc):
    def __init__(self): super().__init__(out=8)
    def forward(self, text, audio):
        l, a = self.enc_l(text), self.enc_a(audio)
        return self.cls(torch.where(l.abs() > a.abs(), l, a))  # SITE WhereHost
    @classmethod
    def call(cls): return tuple(xs()[:2]), {}

@host(kind="sum", mods=("text", "audio"))
class OperatorAdd(Enc):
    def __init__(self): super().__init__(out=8)
    def forward(self, text, audio):
        return self.cls(operator.add(self.enc_l(text), self.enc_a(audio)))  # SITE OperatorAdd
    @classmethod
    def call(cls): return tuple(xs()[:2]), {}

@host(kind="product", mods=("text", "audio", "visual"))
class MathProd(Enc):
    def __init__(self): super().__init__(out=8)
    def forward(self, text, audio, video):
        return self.cls(math.prod(self.enc(text, audio, video)))  # SITE MathProd

@host(kind=("cat",), mods=("text", "audio"))
class ContrastiveLoss(Enc):
    def __init__(self): super().__init__(out=16)
    def forward(self, text, audio):
        l, a = self.enc_l(text), self.enc_a(audio)
        logits = self.cls(torch.cat([l, a], 1))  # SITE ContrastiveLoss
        sim = F.normalize(l, dim=-1) @ F.normalize(a, dim=-1).t() / 0.07
        nce = F.cross_entropy(sim, torch.arange(l.size(0)))
        return logits, nce + (l - a).pow(2).mean()
    @classmethod
    def call(cls): return tuple(xs("bd")[:2]), {}
ContrastiveLoss.layouts = ("(B, d)",)

@host(kind=("sum",), mods=("text", "audio"))
class SumWithLoss(Enc):
    def __init__(self): super().__init__(out=8)
    def forward(self, text, audio):
        l, a = self.enc_l(text), self.enc_a(audio)
        logits = self.cls(l + a)  # SITE SumWithLoss
        return {"logits": logits, "loss": (l - a).pow(2).mean() + ((l * a).sum(-1) ** 2).mean()}
    @classmethod
    def call(cls): return tuple(xs()[:2]), {}

@host(kind="cat")
class ModalityDropout(Enc):
    def __init__(self): super().__init__(); self.seen = 0; self.cache = None
    def forward(self, text, audio, video):
        self.seen += 1
        if random.random() < 0.5 and np.random.rand() < 0.5 and False: audio = audio * 0
        if not hasattr(self, "proj"): self.proj2 = None
        self.cache = torch.cat(self.enc(text, audio, video), -1)  # SITE ModalityDropout
        return self.cls(F.dropout(self.cache, 0.2, self.training))
ModalityDropout.nocopy = True

@host(kind="cat")
class CallOverride(Enc):
    def __call__(self, *a, **k):
        return super().__call__(*a, **k)
    def forward(self, text, audio, video): return self._impl(text, audio, video)
    def _impl(self, *a):
        return self.cls(torch.cat(self.enc(*a), -1))  # SITE CallOverride

@host(kind="cat")
class TwoOnALine(Enc):
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video); z = torch.cat([l, a, v], -1); w = torch.cat([v, l, a], -1); return self.cls(z) + self.cls(w)  # SITE TwoOnALine

@host(kind="cat")
class LambdaPair(Enc):
    f, g = (lambda self, p: torch.cat(p, -1)), (lambda self, p: sum(p))  # SITE LambdaPair
    def forward(self, text, audio, video):
        return self.cls(self.f(self.enc(text, audio, video)))

@host(kind="cat")
class CompiledHelper(Enc):
    def forward(self, text, audio, video):
        return self.cls(_disabled(self.enc(text, audio, video)))
@torch.compiler.disable
def _disabled(p):
    return torch.cat(p, -1)  # SITE CompiledHelper

@host(kind="cat")
class NoGradDeco(Enc):
    @torch.enable_grad()
    def mix(self, p):
        return torch.cat(p, -1)  # SITE NoGradDeco
    @torch.autocast("cpu", enabled=False)
    def forward(self, text, audio, video): return self.cls(self.mix(self.enc(text, audio, video)))

@host(kind="cat")
class LruHost(Enc):
    def forward(self, text, audio, video): return self.cls(_maker(-1)(self.enc(text, audio, video)))
@functools.lru_cache(None)
def _maker(dim):
    def go(p):
        return torch.cat(p, dim)  # SITE LruHost
    return go

@host(kind="cat")
class SingleDispatch(Enc):
    def forward(self, text, audio, video): return self.cls(_sd(self.enc(text, audio, video)))
@functools.singledispatch
def _sd(x): raise TypeError
@_sd.register
def _(x: tuple):
    return torch.cat(x, -1)  # SITE SingleDispatch

@host(kind="cat")
class WrapperModel(nn.Module):
    def __init__(self): super().__init__(); self.net = XlXaXv()
    def forward(self, batch): return self.net(**{k: v for k, v in batch.items() if k != "ids"})
    marker = "XlXaXv"
    @classmethod
    def call(cls): l, a, v = xs("bd"); return ({"x_l": l, "x_a": a, "x_v": v, "ids": ["q"]},), {}
WrapperModel.layouts = ("(B, d)",)

@host(kind="cat", layout="(B, d)")
class UnsortedPacked(Enc):
    def __init__(self):
        super().__init__(); self.r = nn.ModuleDict({k: nn.LSTM(w, 8, batch_first=True) for k, w in zip("lav", D.values())})
    def last(self, r, x, lens):
        order = torch.argsort(lens, descending=True); inv = torch.argsort(order)
        p = nn.utils.rnn.pack_padded_sequence(x.index_select(0, order), lens[order], batch_first=True)
        o, _ = nn.utils.rnn.pad_packed_sequence(r(p)[0], batch_first=True)
        o = o[inv]
        return o.gather(1, (lens - 1).view(-1, 1, 1).expand(-1, 1, o.size(2))).squeeze(1)
    def forward(self, lang, acou, vis, length):
        return self.cls(torch.cat([self.last(self.r[k], x, length) for k, x in zip("lav", (lang, acou, vis))], 1))  # SITE UnsortedPacked
    @classmethod
    def call(cls): return (*xs(), torch.tensor(LENS)), {}

@host(kind="cat", layout=("(B, T, d)", "(T, B, d)"))
class DialogueCell(Enc):
    """speaker-wise states in a python loop, then stacked per modality, cat at the end"""
    def __init__(self):
        super().__init__(); self.g = nn.ModuleDict({k: nn.GRUCell(8, 8) for k in "lav"})
    def run(self, cell, x, q):
        B, T, d = x.shape; s = x.new_zeros(B, 2, d); out = []
        for t in range(T):
            idx = q[:, t].argmax(-1); prev = s[torch.arange(B), idx]
            h = cell(x[:, t], prev); s = s.clone(); s[torch.arange(B), idx] = h; out.append(h)
        return torch.stack(out, dim=1)
    def forward(self, text, audio, video, qmask):
        z = [self.run(self.g[k], e, qmask) for k, e in zip("lav", self.enc(text, audio, video))]
        return self.cls(torch.cat(z, -1))  # SITE DialogueCell
    @classmethod
    def call(cls): return (*xs(), F.one_hot(torch.randint(0, 2, (Bz, L), generator=torch.Generator().manual_seed(3)), 2).float()), {}

@host(kind="stack", layout=("(B, T, d)",))
class AttnOverMods(Enc):
    """stack on dim 2 and attention over modalities with nn.MultiheadAttention on (B*T, 3, d)"""
    def __init__(self):
        super().__init__(out=8); self.at = nn.MultiheadAttention(8, 2, batch_first=True)
    def forward(self, text, audio, video):
        s = torch.stack(self.enc(text, audio, video), dim=2)  # SITE AttnOverMods
        b, t, m, d = s.shape
        q = s.view(b * t, m, d)
        return self.cls(self.at(q, q, q)[0].mean(1).view(b, t, d))

@host(kind="product", layout="(B, T, d)", mods=("text", "audio", "visual"))
class LMFRank(Enc):
    def __init__(self):
        super().__init__(out=8); self.fac = nn.ParameterDict({k: nn.Parameter(torch.randn(2, 9, 8) * .3) for k in "lav"})
    def forward(self, text, audio, video):
        hs = {k: torch.cat([x, torch.ones_like(x[..., :1])], -1) for k, x in zip("lav", self.enc(text, audio, video))}
        z = torch.einsum("btd,rdo->rbto", hs["l"], self.fac["l"]) * torch.einsum("btd,rdo->rbto", hs["a"], self.fac["a"]) * torch.einsum("btd,rdo->rbto", hs["v"], self.fac["v"])  # SITE LMFRank
        return self.cls(z.sum(0))
LMFRank.layouts = ("(..., d)",)



@host(kind="cat", layout="(B, T, d)", mods=("text", "audio"))
class ScriptHelper(Enc):
    def __init__(self): super().__init__(out=16)
    def forward(self, text, audio):
        return self.cls(_scripted_gate(torch.cat([self.enc_l(text), self.enc_a(audio)], -1)))  # SITE ScriptHelper
    @classmethod
    def call(cls): return tuple(xs()[:2]), {}
@torch.jit.script
def _scripted_gate(x):
    return x * torch.sigmoid(x)

@host(kind="rows", layout="(N, d)", mods=("text", "audio", "visual"))
class SparseGraph(Enc):
    """MMGCN-like with sparse adjacency, rows then split back"""
    def __init__(self): super().__init__(out=24); self.w = nn.Linear(8, 8)
    def forward(self, text, audio, video, dia_len):
        l, a, v = (torch.cat([x[i, :n] for i, n in enumerate(dia_len)]) for x in self.enc(text, audio, video))
        x = torch.cat((a, v, l))  # SITE SparseGraph
        n = x.size(0); adj = torch.eye(n).to_sparse()
        h = torch.sparse.mm(adj, self.w(x)).relu() + x
        a, v, l = torch.chunk(h, 3, dim=0)
        return self.cls(torch.cat([a, v, l], -1))  # SITE SparseGraph
    @classmethod
    def call(cls): return (*xs(), list(LENS)), {}
SparseGraph.kinds = ("rows", "cat")

@host(kind="cat", layout="(T, d)")
class OneDialogue(Enc):
    """no batch: (T, d) of one dialogue through an LSTM"""
    def __init__(self): super().__init__(); self.r = nn.LSTM(7, 8)
    def forward(self, text, audio, video):
        l, _ = self.r(text)
        return self.cls(torch.cat([l, self.enc_a(audio), self.enc_v(video)], -1))  # SITE OneDialogue
    @classmethod
    def call(cls): return tuple(x[0] for x in xs()), {}
OneDialogue.layouts = ("(T, d)", "(B, d)")

@host(kind="cat", layout="(B, T, d)")
class AbstractImpl(Enc, abc.ABC):
    @abc.abstractmethod
    def fuse(self, parts): ...
    def forward(self, text, audio, video): return self.cls(self.fuse(list(self.enc(text, audio, video))))
ALL.remove(AbstractImpl)
@host(kind="cat", layout="(B, T, d)")
class ConcreteImpl(AbstractImpl):
    def fuse(self, parts: typing.List[Tensor]) -> Tensor:
        assert len(parts) == 3, f"got {len(parts)}"
        joined: Tensor = torch.cat(
            # the three streams
            parts,
            dim=-1,  # features
        )
        return joined
    any_line = True


@host(kind="cat", layout=("(T, B, d)",))
class CMNlike(Enc):
    """U list input, loops, time first, masks named differently"""
    def __init__(self):
        super().__init__(); self.r = nn.ModuleList(nn.GRU(w, 8) for w in D.values())
    def forward(self, feats, party, mask_utt):
        hs = []
        for i in range(3):
            h, _ = self.r[i](feats[i]); hs.append(h)
        hidden = torch.cat(hs, -1)  # SITE CMNlike
        return F.log_softmax(self.cls(hidden).transpose(0, 1), 2)
    opts = {"modalities": {"feats": ["text", "audio", "visual"]}}
    @classmethod
    def call(cls):
        return (list(xs("tbd")), F.one_hot(torch.zeros(L, Bz, dtype=torch.long), 2).float(), torch.ones(Bz, L)), {}

@host(kind="cat", layout="(B, T, d)", mods=("text", "audio", "visual"))
class M2FNet(Enc):
    """fusion attention: q = audio-vis, text as k,v; several layers; final cat"""
    def __init__(self):
        super().__init__(out=24); self.att = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2)); self.fc = nn.ModuleList(nn.Linear(16, 8) for _ in range(2))
    def forward(self, text, audio, visual, key_padding_mask):
        l, a, v = self.enc(text, audio, visual)
        for at, fc in zip(self.att, self.fc):
            o = at(l, a, a, key_padding_mask=key_padding_mask)[0]
            l = fc(torch.cat((o, l), dim=-1))
        return self.cls(torch.cat((l, a, v), dim=-1))  # SITE M2FNet
    @classmethod
    def call(cls): return (*xs(), torch.arange(L) >= torch.tensor(LENS)[:, None]), {}

@host(kind="cat", layout="(B, d)", mods=("text", "audio", "visual"))
class MulTlike(Enc):
    """six crossmodal modules, cat pairs, self-attn, last step, cat"""
    def __init__(self):
        super().__init__(out=48)
        self.x = nn.ModuleDict({p: nn.MultiheadAttention(8, 2) for p in ("la", "lv", "al", "av", "vl", "va")})
        self.mem = nn.ModuleDict({p: nn.TransformerEncoderLayer(16, 2, 16, dropout=0.1) for p in "lav"})
    def forward(self, x_l, x_a, x_v):
        x = dict(zip("lav", (e.permute(1, 0, 2) for e in self.enc(x_l, x_a, x_v))))
        last = []
        for m in "lav":
            o1, o2 = [n for n in "lav" if n != m]
            h = torch.cat([self.x[m + o1](x[m], x[o1], x[o1])[0], self.x[m + o2](x[m], x[o2], x[o2])[0]], dim=2)
            h = self.mem[m](h)
            if type(h) == tuple: h = h[0]
            last.append(h[-1])
        last_hs = torch.cat(last, dim=1)  # SITE MulTlike
        proj = F.relu(self.cls(last_hs))
        return proj, last_hs

@host(kind="outer", layout="(B, d)", mods=("text", "audio", "visual"))
class TFNlike(Enc):
    def __init__(self): super().__init__(out=9 * 9 * 9)
    def forward(self, audio_x, video_x, text_x):
        l, a, v = self.enc(text_x, audio_x, video_x); batch_size = a.data.shape[0]
        DTYPE = torch.FloatTensor
        _a = torch.cat((torch.ones(batch_size, 1).type(DTYPE), a), dim=1)
        _v = torch.cat((torch.ones(batch_size, 1).type(DTYPE), v), dim=1)
        _l = torch.cat((torch.ones(batch_size, 1).type(DTYPE), l), dim=1)
        fusion = torch.bmm(_a.unsqueeze(2), _v.unsqueeze(1))  # SITE TFNlike
        fusion = fusion.view(-1, 81, 1)
        fusion = torch.bmm(fusion, _l.unsqueeze(1)).view(batch_size, -1)  # SITE TFNlike
        return self.cls(fusion)
    @classmethod
    def call(cls): l, a, v = xs("bd"); return (a, v, l), {}
TFNlike.mods = None

@host(kind=("cat", "sum"), layout=("(B, T, d)",), mods=None)
class GMULike(Enc):
    def __init__(self): super().__init__(out=8); self.z = nn.Linear(16, 8)
    def forward(self, text, audio):
        l, a = torch.tanh(self.enc_l(text)), torch.tanh(self.enc_a(audio))
        z = torch.sigmoid(self.z(torch.cat([l, a], dim=-1)))
        return self.cls(z * l + (1 - z) * a)
    any_line = True
    @classmethod
    def call(cls): return tuple(xs()[:2]), {}

@host(kind=("sum",), layout=("(B, T, d)",), mods=("text", "audio"))
class GateNoCat(Enc):
    def __init__(self): super().__init__(out=8); self.p, self.q = nn.Linear(8, 8), nn.Linear(8, 8)
    def forward(self, text, audio):
        l, a = self.enc_l(text), self.enc_a(audio)
        g = torch.sigmoid(self.p(l) + self.q(a))
        return self.cls(g * l + (1 - g) * a)
    any_line = True
    @classmethod
    def call(cls): return tuple(xs()[:2]), {}

@host(kind=("sum", "stack", "product"), layout=("(B, T, d)", "(..., d)"), mods=None)
class SoftmaxWeights(Enc):
    """scores per modality -> softmax -> weighted stack sum"""
    def __init__(self): super().__init__(out=8); self.s = nn.Linear(8, 1)
    def forward(self, text, audio, video):
        hs = self.enc(text, audio, video)
        w = torch.softmax(torch.cat([self.s(h) for h in hs], -1), -1)
        return self.cls(sum(w[..., i:i + 1] * h for i, h in enumerate(hs)))
    any_line = True
SoftmaxWeights.kinds = ("cat", "sum", "stack")

@host(kind="stack", layout="(B, T, d)")
class StackMul(Enc):
    def __init__(self): super().__init__(out=8); self.w = nn.Parameter(torch.ones(3))
    def forward(self, text, audio, video):
        z = torch.stack(self.enc(text, audio, video), dim=-1)  # SITE StackMul
        return self.cls((z * self.w.softmax(0)).sum(dim=-1))

@host(kind="stack", layout="(B, T, d)")
class StackMatmul(Enc):
    def __init__(self): super().__init__(out=8); self.w = nn.Linear(3, 1)
    def forward(self, text, audio, video):
        return self.cls(self.w(torch.stack(self.enc(text, audio, video), -1)).squeeze(-1))  # SITE StackMatmul

@host(kind="cat", layout="(B, d)")
class WhileLoop(Enc):
    def __init__(self): super().__init__(); self.cell = nn.GRUCell(24, 24)
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video); i = 0; h = l.new_zeros(l.size(0), 24)
        while i < l.size(1):
            x = torch.cat((l[:, i, :], a[:, i, :], v[:, i, :]), dim=-1)  # SITE WhileLoop
            h = self.cell(x, h); i += 1
            if not torch.isfinite(h).all(): break
        return self.cls(h)

@host(kind="cat", layout="(B, d)")
class UnbindLoop(Enc):
    def __init__(self): super().__init__(); self.cell = nn.LSTMCell(24, 24)
    def step(self, inp, state):
        return self.cell(torch.cat(inp, 1), state)  # SITE UnbindLoop
    def forward(self, text, audio, video):
        state = None; outs = []
        for inp in zip(*(x.unbind(1) for x in self.enc(text, audio, video))):
            state = self.step(inp, state); outs.append(state[0])
        return self.cls(torch.stack(outs, 1))

@host(kind="cat", layout="(B, T, d)", mods=("text", "audio", "visual"))
class ConvThenCat(Enc):
    """(B, d, T) convs; cat on channels dim=1; conv after"""
    def __init__(self):
        super().__init__(); self.c = nn.ModuleList(nn.Conv1d(w, 8, 3, padding=1) for w in D.values()); self.f = nn.Conv1d(24, 24, 3, padding=1)
    def forward(self, t, a, v):
        z = torch.cat([c(x.transpose(1, 2)) for c, x in zip(self.c, (t, a, v))], dim=1)  # SITE ConvThenCat
        return self.cls(self.f(z).transpose(1, 2))

@host(kind="cat", layout="(B, T, d)", mods=("text", "audio"))
class Residuals(Enc):
    def __init__(self): super().__init__(out=16); self.x, self.y = HeadAttn(8, 2), HeadAttn(8, 2); self.n = nn.LayerNorm(8)
    def forward(self, text, audio):
        l, a = self.enc_l(text), self.enc_a(audio)
        for _ in range(2):
            l, a = self.n(l + self.x(l, a, a)), self.n(a + self.y(a, l, l))
        return self.cls(torch.cat([l, a], -1))  # SITE Residuals
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

@host(kind="product", layout="(B, d)", mods=("text", "audio"))
class MFBlike(Enc):
    def __init__(self): super().__init__(out=8); self.u, self.w = nn.Linear(8, 32), nn.Linear(8, 32)
    def forward(self, text, audio):
        z = self.u(self.enc_l(text)) * self.w(self.enc_a(audio))  # SITE MFBlike
        z = F.dropout(z, 0.1, self.training).view(-1, 8, 4).sum(2)
        return self.cls(F.normalize(torch.sqrt(F.relu(z)) - torch.sqrt(F.relu(-z) + 1e-8)))
    @classmethod
    def call(cls): return tuple(xs("bd")[:2]), {}

@host(kind="product", layout="(B, d)", mods=("text", "audio"))
class FiLM(Enc):
    def __init__(self): super().__init__(out=8); self.g = nn.Linear(8, 16)
    def forward(self, text, audio):
        gamma, beta = self.g(self.enc_a(audio)).chunk(2, -1)
        return self.cls((1 + gamma) * self.enc_l(text) + beta)
    any_line = True
    @classmethod
    def call(cls): return tuple(xs("bd")[:2]), {}
FiLM.kinds = ("product", "sum")

@host(kind="cat", layout="(B, d)")
class Pooled3(Enc):
    """unaligned lengths, adaptive pooling"""
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        p = [F.adaptive_avg_pool1d(x.transpose(1, 2), 1).squeeze(-1) for x in (l, a, v)]
        return self.cls(torch.cat(p, dim=-1))  # SITE Pooled3
    @classmethod
    def call(cls): l, a, v = xs(); return (l, torch.cat([a, a], 1), v[:, :3]), {}

@host(kind="rows", layout="(N, d)", mods=("text", "audio", "visual"))
class HyperRows(Enc):
    """rows per dialogue interleaved: for each dialogue cat (l_i, a_i, v_i) rows, M3NET-like"""
    def __init__(self): super().__init__(out=8)
    def forward(self, text, audio, video, dia_len):
        l, a, v = self.enc(text, audio, video); rows = []
        for i, n in enumerate(dia_len):
            rows += [l[i, :n]]; rows += [a[i, :n]]; rows += [v[i, :n]]
        x = torch.cat(rows, dim=0)  # SITE HyperRows
        return self.cls(torch.relu(x))
    @classmethod
    def call(cls): return (*xs(), list(LENS)), {}

@host(kind="cat", layout=("(B, T, d)",))
class GradScale(Enc):
    """custom autograd Function (gradient reversal) on a stream"""
    nocopy = False
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        return self.cls(torch.cat([Rev.apply(l), a, v], -1))  # SITE GradScale
class Rev(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.view_as(x)
    @staticmethod
    def backward(ctx, g): return -g

@host(kind="cat", layout=("(B, T, d)",))
class NumpyDetour(Enc):
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        keep = torch.from_numpy(text.detach().numpy().copy())
        return self.cls(torch.cat([l + self.enc_l(keep), a, v], -1))  # SITE NumpyDetour

@host(kind="cat", layout=("(B, T, d)",))
class StrangeNames(Enc):
    """linguistic_x: l ; modality names via **batch"""
    def forward(self, **batch):
        order = ("linguistic", "acoustic_feat", "facial")
        return self.cls(torch.cat([f(batch[k]) for f, k in zip((self.enc_l, self.enc_a, self.enc_v), order)], dim=2))  # SITE StrangeNames
    @classmethod
    def call(cls): return (), dict(zip(("linguistic", "acoustic_feat", "facial"), xs())) | {"labels": torch.zeros(Bz, L, dtype=torch.long), "utt_mask": torch.ones(Bz, L)}
