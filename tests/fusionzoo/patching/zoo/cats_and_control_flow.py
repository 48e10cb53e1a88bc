# ruff: noqa
# fmt: off
# pyright: basic
"""Hosts that concatenate: loops, branches, decorators, hooks, checkpoints, modules in modules."""

from zoo.base import *
from zoo.cats_and_helpers import TupleIn, XlXaXv
from zoo.sums_and_products import PlusEq


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
