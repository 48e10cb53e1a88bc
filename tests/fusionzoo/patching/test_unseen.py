"""Hosts that nobody wrote the patcher for: the join found first, identical at step 0, learning, copied, saved, taken out."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch

import fusionzoo
from fusionzoo.testing.checks import adapter as anatomy

HERE = Path(__file__).parent
HOSTS_OWN = tuple(
    f"attribute {n}" for n in ("note", "weight", "seen", "cache", "proj2")
)  # what the hosts themselves set
import zoo  # noqa: E402  (hosts have to be importable under one name for pickles)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*looks across steps", "ignore:.*weight_norm", "ignore:None of the inputs"
)


def make(cls, training=False):
    torch.manual_seed(0)
    model = cls().train(training)
    return model, *cls.call()


def outputs(model, args, kwargs):
    torch.manual_seed(5)
    return anatomy.outputs(model, args, kwargs)


def same(a, b):
    bits = [[x.detach().reshape(-1).view(torch.int32) for x in xs] for xs in (a, b)]
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(*bits, strict=True))


def loss(out):
    return sum(x.square().sum() for x in out)


def marked(name):
    return [
        (file.name, i)
        for file in sorted((HERE / "zoo").glob("*.py"))
        for i, line in enumerate(file.read_text().splitlines(), 1)
        if line.endswith(f"# SITE {name}")
    ]


@pytest.mark.parametrize("cls", zoo.ALL, ids=lambda c: c.__name__)
def test_found(cls):
    model, args, kwargs = make(cls)
    sites = fusionzoo.find_sites(model, *args, **getattr(cls, "opts", {}), **kwargs)
    site = sites[0]
    assert site.kind in cls.kinds
    assert site.layout in cls.layouts
    if cls.mods is not None:
        assert sorted(site.modalities) == sorted(cls.mods)
    lines = marked(getattr(cls, "marker", cls.__name__))
    if lines and not getattr(cls, "any_line", False):
        assert (os.path.basename(site.file), site.line) in lines
    again = type(site).from_dict(site.to_dict())
    assert again.to_json() == site.to_json()


@pytest.mark.parametrize("cls", zoo.ALL, ids=lambda c: c.__name__)
def test_patch(cls, shake, tmp_path):
    expected = outputs(*make(cls, True))
    model, args, kwargs = make(cls, True)
    before, around = anatomy._anatomy(model), anatomy._surroundings(model)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    site = fusionzoo.find_sites(model, *args, **getattr(cls, "opts", {}), **kwargs)[0]
    patch = fusionzoo.patch(model, "lmam", site)
    assert same(outputs(model, args, kwargs), expected)
    assert patch.calls == site.calls or cls.__name__ == "LoopSum"  # which begins with 0 + x
    model.load_state_dict(state, strict=False)

    shake(patch)
    loss(outputs(model, args, kwargs)).backward()
    assert all(p.grad is not None for p in patch.parameters())
    assert any(p.grad is not None for n, p in model.named_parameters() if "fusionzoo" not in n)
    model.eval()
    with torch.no_grad():
        changed = outputs(model, args, kwargs)
        assert not same(changed, outputs(*make(cls)))
        if not getattr(cls, "nocopy", False):
            assert same(outputs(copy.deepcopy(model), args, kwargs), changed)
        fresh = make(cls)[0]
        fresh.load_state_dict({k: v for k, v in model.state_dict().items() if "fusionzoo" not in k})
        fusionzoo.load_patch(fresh, patch.save(tmp_path / "p.safetensors"))
        assert same(outputs(fresh, args, kwargs), changed)

    model.train()
    patch.remove()
    model.load_state_dict(state)
    assert same(outputs(model, args, kwargs), expected)
    left = anatomy._difference(before, anatomy._anatomy(model))
    assert [x for x in left if not x.endswith(HOSTS_OWN)] == []
    assert anatomy._difference(around, anatomy._surroundings(model)) == []


@pytest.mark.parametrize("cls", zoo.ALL, ids=lambda c: c.__name__)
def test_replace(cls):
    model, args, kwargs = make(cls)
    expected = outputs(model, args, kwargs)
    fusionzoo.patch(
        model, "gated", fusionzoo.find_sites(model, *args, **getattr(cls, "opts", {}), **kwargs)[0], mode="replace"
    )
    out = outputs(model, args, kwargs)
    assert [x.shape for x in out] == [x.shape for x in expected]
    loss(out).backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "fusionzoo" in n)
