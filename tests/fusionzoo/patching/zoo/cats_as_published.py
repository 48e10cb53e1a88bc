# ruff: noqa
# fmt: off
# pyright: basic
"""Hosts that concatenate: tables and caches of functions, and models in the manner of papers."""

from zoo.base import *
from zoo.attentions import HeadAttn
from zoo.cats_and_helpers import XlXaXv


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

@host(kind="cat", layout="(B, d)")
class Pooled3(Enc):
    """unaligned lengths, adaptive pooling"""
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video)
        p = [F.adaptive_avg_pool1d(x.transpose(1, 2), 1).squeeze(-1) for x in (l, a, v)]
        return self.cls(torch.cat(p, dim=-1))  # SITE Pooled3
    @classmethod
    def call(cls): l, a, v = xs(); return (l, torch.cat([a, a], 1), v[:, :3]), {}

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
