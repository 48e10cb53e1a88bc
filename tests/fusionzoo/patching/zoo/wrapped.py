"""Hosts that tests put wrappers around, and what makes and patches them."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import fusionzoo


class Host(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.t, self.a = nn.Linear(6, width), nn.Linear(5, width)
        self.rnn, self.head = nn.GRU(2 * width, width, batch_first=True), nn.Linear(width, 3)

    def forward(self, text, audio, umask):
        return self.head(self.rnn(torch.cat([self.t(text), self.a(audio)], dim=-1))[0])


class Early(nn.Module):
    """Its features were joined before."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(11, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, joined, umask):
        return self.head(self.rnn(joined)[0])


class Nested(nn.Module):
    """The join is in a submodule."""

    def __init__(self):
        super().__init__()
        self.join, self.other = Host(), nn.Linear(3, 2)

    def forward(self, text, audio, umask):
        return self.other(self.join(text, audio, umask))


class Wrapper(nn.Module):
    """Somebody's own: hands everything on."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)


MASK = torch.arange(5) < torch.tensor([[5], [3], [2]])


def make(cls=Host, state=None):
    torch.manual_seed(0)
    model = cls().eval()
    if state is not None:
        model.load_state_dict(state)
    return model


def call_of(cls, batch):
    return (torch.cat(batch[:2], -1), batch[2]) if cls is Early else batch


def patched(cls, batch, shake, fusion="gated", model=None, **options):
    """A patched model and its patch, as after training."""
    model = make(cls) if model is None else model
    options.setdefault("layout", "(B, T, d)")
    if cls is Early:
        options["site"] = fusionzoo.InputSite("joined", {"text": 6, "audio": 5})
        options["context"] = mask_of_early
    patch = fusionzoo.patch(model, fusion, inputs=call_of(cls, batch), **options)
    shake(patch)
    return model, patch


def mask_of_early(model, args, kwargs):
    return {"mask": args[1]}


def averaged(model):
    return torch.optim.swa_utils.AveragedModel(model)


def lora(model):
    peft = pytest.importorskip("peft")
    targets = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and "fusionzoo" not in n]
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets))


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "compile": functools.partial(torch.compile, backend="eager"),
    "AveragedModel": averaged,
    "PEFT": lora,
    "own": Wrapper,
    "several": lambda m: nn.DataParallel(averaged(Wrapper(m))),
}
