"""Adapters: models of known repositories, and what they need to run on current libraries."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo._registry import registry
from fusionzoo.patching.repositories import adapter_for

HERE = Path(__file__).parent


class Known:
    """An adapter that traces a small call of the model."""

    repairs = ()

    @staticmethod
    def recognise(model):
        return type(model).__name__ == "FlatNodes"

    @staticmethod
    def example(model):
        return type(model).call()

    @staticmethod
    def context(model, args, kwargs):
        return {"lengths": args[3]}


class Declared(Known):
    """An adapter that names the expression."""

    @staticmethod
    def site(model):
        steps = [("forward", "torch.cat([t, a, v]")]
        return fusionzoo.patching.declare(model, "", steps, [("text", 8), ("audio", 8), ("visual", 8)], layout="(N, d)")


class Broken:
    """An adapter with a typo in it."""

    def recognise(self, model):
        return model.no_such_attribute


def test_a_broken_adapter_is_told_and_hides_no_other(build, hosts, monkeypatch):
    known = {"broken": Broken, "known": Known}
    monkeypatch.setattr(registry, "names", lambda kind: sorted(known))
    monkeypatch.setattr(registry, "get", lambda name, kind="fusion": known[name])
    model, _, _ = build(hosts.FlatNodes)
    with pytest.warns(UserWarning, match=r"adapter 'broken' failed to look at FlatNodes .*no_such_attribute"):
        assert isinstance(adapter_for(model), Known)


def install_adapter(monkeypatch, adapter):
    """As if this were the only adapter that is installed."""
    get = registry.get
    monkeypatch.setattr(registry, "names", lambda kind: ["known"])
    monkeypatch.setattr(registry, "get", lambda name, kind="fusion": adapter if name == "known" else get(name, kind))


@pytest.mark.parametrize("adapter", [Known, Declared])
def test_adapters(build, hosts, shake, monkeypatch, adapter):
    install_adapter(monkeypatch, adapter)
    model, args, _ = build(hosts.FlatNodes)
    expected = model(*args)
    patch = fusionzoo.patch(model, "lmam")
    assert patch.site.layout == "(N, d)"
    assert torch.equal(model(*args), expected)
    shake(patch)
    assert not torch.equal(model(*args), expected)
    patch.remove()
    assert torch.equal(model(*args), expected)
    assert fusionzoo.modernise(model) == []


def test_modernise(monkeypatch):
    from fusionzoo.patching import repairs as modernising

    class Old(nn.Module):
        def forward(self, text, audio):
            return torch.cat([text.cuda(), audio.cuda()], -1)

    class Knows(Known):
        repairs = (modernising.CUDA,)

        @staticmethod
        def recognise(model):
            return isinstance(model, Old)

    install_adapter(monkeypatch, Knows)
    model, other, args = Old(), Old(), (torch.randn(2, 3), torch.randn(2, 2))
    changed = fusionzoo.modernise(model)
    assert len(changed) == 1
    assert fusionzoo.modernise(model) == []
    assert model(*args).shape == (2, 5)
    if not torch.cuda.is_available():
        with pytest.raises((RuntimeError, AssertionError)):
            other(*args)
    assert fusionzoo.find_sites(model, *args)[0].kind == "cat"


def test_modernise_hooks_submodules_of_this_instance(monkeypatch):
    from fusionzoo.patching import repairs as modernising

    class RGCNConv(nn.Module):
        def forward(self, x, edge_index, edge_type=None):
            return x

    class HypergraphConv(nn.Module):
        def __init__(self):
            super().__init__()
            self.flow, self.hooks, self.size = "target_to_source", [], None

        def register_propagate_forward_pre_hook(self, hook):
            self.hooks.append(hook)
            return SimpleNamespace(remove=lambda: self.hooks.remove(hook))

        def forward(self, x):
            inputs = (None, (3, 5), {})
            for hook in self.hooks:
                inputs = hook(self, inputs) or inputs
            self.size = inputs[1]
            return x

    class Old(nn.Module):
        def __init__(self, hyper=True):
            super().__init__()
            self.conv = RGCNConv()
            self.hyper = HypergraphConv() if hyper else nn.Identity()

        def forward(self, text, audio):
            return self.hyper(self.conv(torch.cat([text, audio], -1), None, None, torch.ones(2)))

    class Knows(Known):
        repairs = (modernising.EDGE_WEIGHTS, modernising.HYPERGRAPH_SIZE)
        context = None

        @staticmethod
        def recognise(model):
            return isinstance(model, Old)

        @staticmethod
        def example(model):
            return (torch.randn(2, 3), torch.randn(2, 2)), {}

    install_adapter(monkeypatch, Knows)
    args = (torch.randn(2, 3), torch.randn(2, 2))
    untouched = Old()
    patch = fusionzoo.patch(
        untouched, "gated"
    )  # the repairs are in force while the adapter's example runs, and only then
    patch.remove()
    assert not untouched.conv._forward_pre_hooks
    assert not untouched.hyper.hooks
    with pytest.raises(TypeError, match="positional"):
        untouched(*args)

    model = Old()
    assert len(fusionzoo.modernise(model)) == 2
    assert fusionzoo.modernise(model) == []
    assert len(fusionzoo.modernise(Old(hyper=False))) == 1  # only what it needed is listed
    model(*args)
    assert model.hyper.size == (5, 3)
    model.hyper.flow = "source_to_target"
    model(*args)
    assert model.hyper.size == (3, 5)
    expected = model(*args)
    patch = fusionzoo.patch(model, "gated")
    assert torch.equal(model(*args), expected)
    assert torch.equal(copy.deepcopy(model)(*args), expected)
    patch.remove()
    assert len(model.conv._forward_pre_hooks) == 1
