"""Whose code a function is, the model decides."""

from __future__ import annotations

import ast
import json
import sys

import torch
from torch import nn

import fusionzoo
from fusionzoo.patching import patcher
from fusionzoo.patching.whose_code import HostCode

PACKAGE = """
import torch
from torch import nn


def join(*streams):
    return torch.cat(streams, -1)


class Joins(nn.Module):
    def __init__(self):
        super().__init__()
        self.t, self.a, self.head = nn.Linear(6, 8), nn.Linear(5, 8), nn.Linear(16, 3)

    def forward(self, text, audio):
        return self.head(join(self.t(text), self.a(audio)))
"""


def installed(tmp_path, monkeypatch, name):
    """A package in a folder of installed ones."""
    folder = tmp_path / "site-packages" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    return __import__(name)


class Outer(nn.Module):
    """A module of the caller's around one of a package's."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, text, audio):
        return self.inner(text, audio).tanh()


def test_a_package_is_the_models_code_where_the_model_has_a_class_of_it(tmp_path, monkeypatch):
    package = installed(tmp_path, monkeypatch, "somebodys_models")
    alone, strange = HostCode(package.Joins()), HostCode(Outer(nn.Linear(2, 2)))
    assert package.__file__ in alone
    assert package.__file__ in HostCode(Outer(package.Joins()))
    assert package.__file__ not in strange
    assert __file__ in strange
    for module in (torch, nn.functional, json, ast):
        assert module.__file__ not in alone
    assert patcher.__file__ not in HostCode(Outer(nn.Linear(2, 2)))


def test_a_free_function_of_an_installed_package_is_patched(tmp_path, monkeypatch):
    package = installed(tmp_path, monkeypatch, "somebodys_other_models")
    torch.manual_seed(0)
    call = torch.randn(4, 6), torch.randn(4, 5)
    for model in (package.Joins(), Outer(package.Joins())):
        before = model(*call)
        patch = fusionzoo.patch(model, "gated", inputs=call)
        assert patch.site.function == "join"
        assert torch.equal(model(*call), before)
        patch.remove()
    sys.modules.pop("somebodys_other_models")
