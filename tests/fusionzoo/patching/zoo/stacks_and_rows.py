# ruff: noqa
# fmt: off
# pyright: basic
"""Hosts that stack their streams, or put rows below each other."""

from zoo.base import *


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

@host(kind="rows", layout=("(B, T, d)",), mods=("text", "audio", "visual"))
class ClsTokens(Enc):
    def __init__(self):
        super().__init__(out=8); self.cls_tok = nn.Parameter(torch.randn(1, 1, 8)); self.sep = nn.Parameter(torch.randn(1, 1, 8))
        self.tr = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, enable_nested_tensor=False)
    def forward(self, text, audio, video):
        l, a, v = self.enc(text, audio, video); b = l.size(0)
        seq = torch.cat([self.cls_tok.expand(b, -1, -1), l, self.sep.expand(b, 1, 8), a[:, :4], self.sep.repeat(b, 1, 1), v], dim=1)  # SITE ClsTokens
        return self.cls(self.tr(seq)[:, 0])

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
