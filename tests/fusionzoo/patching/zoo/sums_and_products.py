# ruff: noqa
# fmt: off
# pyright: basic
"""Hosts that add or multiply their streams."""

from zoo.base import *
from zoo.attentions import HeadX


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

@host(kind=("sum",), mods=("text", "audio"))
class SumWithLoss(Enc):
    def __init__(self): super().__init__(out=8)
    def forward(self, text, audio):
        l, a = self.enc_l(text), self.enc_a(audio)
        logits = self.cls(l + a)  # SITE SumWithLoss
        return {"logits": logits, "loss": (l - a).pow(2).mean() + ((l * a).sum(-1) ** 2).mean()}
    @classmethod
    def call(cls): return tuple(xs()[:2]), {}

@host(kind="product", layout="(B, T, d)", mods=("text", "audio", "visual"))
class LMFRank(Enc):
    def __init__(self):
        super().__init__(out=8); self.fac = nn.ParameterDict({k: nn.Parameter(torch.randn(2, 9, 8) * .3) for k in "lav"})
    def forward(self, text, audio, video):
        hs = {k: torch.cat([x, torch.ones_like(x[..., :1])], -1) for k, x in zip("lav", self.enc(text, audio, video))}
        z = torch.einsum("btd,rdo->rbto", hs["l"], self.fac["l"]) * torch.einsum("btd,rdo->rbto", hs["a"], self.fac["a"]) * torch.einsum("btd,rdo->rbto", hs["v"], self.fac["v"])  # SITE LMFRank
        return self.cls(z.sum(0))
LMFRank.layouts = ("(..., d)",)

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
