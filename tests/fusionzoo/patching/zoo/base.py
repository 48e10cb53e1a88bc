# ruff: noqa
# fmt: off
# pyright: basic
"""What the hosts of this folder share: sizes, the encoder, and `host`, which says what is right for one."""

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
import zoo.joins as fu
from zoo.joins import merge_streams, Fuser, outer_level

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
