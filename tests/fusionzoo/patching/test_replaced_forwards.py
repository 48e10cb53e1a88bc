"""A patch where somebody has replaced, or will replace, the instance's forward."""

from __future__ import annotations

import functools
import types

import pytest
import torch
from torch import nn
from zoo.wrapped import Early, Host, call_of, make, mask_of_early, patched

import fusionzoo
from fusionzoo.errors import SiteNotReachedError


def bound(model):
    original = model.forward
    model.forward = types.MethodType(lambda self, *args, **kwargs: original(*args, **kwargs), model)


def decorated(model):
    model.forward = torch.autocast("cpu", enabled=False)(model.forward)


def partly(model):
    def logged(function, *args, **kwargs):
        return function(*args, **kwargs)

    model.forward = functools.partial(logged, model.forward)


class Callable_:
    def __init__(self, function):
        self.function = function

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)


def an_object(model):
    model.forward = Callable_(model.forward)


def by_attribute(model):
    """As Accelerate's hooks do."""
    model.old_forward = model.forward
    model.forward = functools.update_wrapper(
        functools.partial(lambda module, *args, **kwargs: module.old_forward(*args, **kwargs), model), model.old_forward
    )


def by_class(model):
    model.forward = lambda *args, **kwargs: type(model).forward(model, *args, **kwargs)


def by_name(model):
    cls = type(model)
    model.forward = lambda *args, **kwargs: cls.forward(model, *args, **kwargs)


def compiled(model):
    model.forward = torch.compile(model.forward, backend="eager")


def twice(model):
    decorated(model)
    bound(model)


REPLACED = [bound, decorated, partly, an_object, by_attribute, by_class, by_name, twice]


@pytest.mark.parametrize("how", ["find", "site", "load"])
@pytest.mark.parametrize("cls", [Host, Early])
@pytest.mark.parametrize("replace", [*REPLACED, pytest.param(compiled, marks=pytest.mark.slow)])
def test_the_fusion_is_in_force_where_forward_was_replaced(batch, shake, tmp_path, replace, cls, how):
    trained, saved = patched(cls, batch, shake)
    call = call_of(cls, batch)
    expected = trained(*call)
    saved.save(tmp_path / "p.safetensors")
    model = make(cls)
    replace(model)
    before, plain = dict(vars(model)), model(*call)
    context = mask_of_early if cls is Early else None
    if how == "load":
        patch = fusionzoo.load_patch(model, tmp_path / "p.safetensors", context=context)
    else:
        kwargs = {"inputs": call} if how == "find" else {}
        patch = fusionzoo.patch(model, "gated", site=saved.site, context=context, **kwargs)
        assert torch.equal(model(*call), plain)
        patch.load_state_dict(saved.state_dict())
    assert torch.allclose(model(*call), expected, atol=1e-6)
    assert torch.allclose(model(*call), expected, atol=1e-6)
    assert patch.calls >= 2
    patch.remove()
    assert torch.equal(model(*call), plain)
    assert vars(model) == before
    assert type(model) is cls


@pytest.mark.parametrize("replace", [r for r in REPLACED if r not in (by_class, by_name)])
def test_a_forward_that_is_replaced_later_runs_the_patched_one(batch, shake, replace):
    model = make()
    plain = model(*batch)
    _, patch = patched(Host, batch, shake, model=model)
    changed = model(*batch)
    replace(model)
    assert torch.allclose(model(*batch), changed, atol=1e-6)
    patch.remove()
    assert torch.allclose(model(*batch), plain, atol=1e-6)


def test_a_forward_that_leaves_the_hosts_code_out_is_an_error(batch, shake, tmp_path):
    _, saved = patched(Host, batch, shake)
    saved.save(tmp_path / "p.safetensors")
    model = make()
    frozen = torch.jit.trace(make(), batch, check_trace=False)
    model.forward = lambda *args: frozen(*args)
    patch = fusionzoo.load_patch(model, tmp_path / "p.safetensors")
    with pytest.raises(SiteNotReachedError, match="before it is wrapped"):
        model(*batch)
    patch.remove()
    assert torch.equal(model(*batch), frozen(*batch))
    with pytest.raises(SiteNotReachedError, match="before it is wrapped"):
        fusionzoo.patch(model, "gated", site=saved.site, inputs=batch)


class Table(nn.Module):
    """Keeps its own methods in a table."""

    def __init__(self):
        super().__init__()
        self.t, self.a, self.head = nn.Linear(6, 4), nn.Linear(5, 4), nn.Linear(8, 2)
        self.ways = {"cat": self.cat}

    def cat(self, a, b):
        return torch.cat([a, b], -1)

    def forward(self, text, audio, umask):
        return self.head(self.ways["cat"](self.t(text), self.a(audio)))


def test_methods_that_a_host_keeps_in_a_table(batch, shake):
    model = make(Table)
    table, plain = model.ways, model(*batch)
    _, patch = patched(Table, batch, shake, model=model)
    assert patch.calls == 0
    assert not torch.equal(model(*batch), plain)
    patch.remove()
    assert model.ways is table
    assert torch.equal(model(*batch), plain)
