# ruff: noqa
# fmt: off
# pyright: basic
"""Hosts that concatenate: arguments in many forms, and helpers of all kinds that hold the join."""

from zoo.base import *


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
    file = "joins.py"
    def forward(self, *, text, audio, video):
        return self.cls(merge_streams(*self.enc(text, audio, video)))
    @classmethod
    def call(cls):
        return (), dict(zip(("text", "audio", "video"), xs()))


@host(layout="(B, d)")
class Static(Enc):
    file = "joins.py"
    def forward(self, text, audio, video):
        return self.cls(Fuser.glue(list(self.enc(text, audio, video))))
    call = Enc.call_bd


@host()
class ClassM(Enc):
    file = "joins.py"
    def forward(self, text, audio, video):
        return self.cls(fu.Fuser.glue2([*self.enc(text, audio, video)]))


@host()
class DeepHelpers(Enc):
    file = "joins.py"
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


@host()
class AppendCat(Enc):
    def forward(self, text, audio, video):
        bag = list()
        for m, x in (("l", text), ("a", audio), ("v", video)):
            bag.append(getattr(self, f"enc_{m}")(x))
        return self.cls(torch.cat(bag, dim=-1))  # SITE AppendCat


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
