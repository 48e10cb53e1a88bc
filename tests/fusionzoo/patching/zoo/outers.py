# ruff: noqa
# fmt: off
# pyright: basic
"""Hosts that multiply every feature with every other."""

from zoo.base import *


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


@host(kind="outer", layout="(B, T, d)", mods=("text", "audio"))
class EllipsisOuter(Enc):
    def __init__(self): super().__init__(out=64)
    def forward(self, text, audio):
        z = torch.einsum("...i,...j->...ij", self.enc_l(text), self.enc_a(audio))  # SITE EllipsisOuter
        return self.cls(z.flatten(-2))
    @classmethod
    def call(cls): return tuple(xs()[:2]), {}

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
