"""Weights of official implementations: tables of names, parts, blocks that are joined or taken apart."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo._variants import variant_classes, variant_docs
from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.reference import WithReference, attention_names, check_modalities, split_joint, state_within, within


class Layer(WithReference, nn.Module):
    def __init__(self):
        super().__init__()
        self.map, self.scale = nn.Linear(2, 3), nn.Parameter(torch.zeros(2))

    def reference_names(self):
        return {"fc.": "map", "temp": "scale"}

    def reference_unused(self):
        return ("old.",)


def official():
    return {"fc.weight": torch.ones(3, 2), "fc.bias": torch.ones(3), "temp": torch.ones(2)}


def test_modules_and_parameters_are_parts():
    layer = Layer()
    layer.load_reference(official() | {"old.x": torch.ones(7)})
    assert all(bool((p == 1).all()) for p in layer.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temp": torch.ones(3)}, r"temp has shape \(3,\), expected \(2,\)"),
        ({"fc.weight": None}, r"missing fc\.weight"),
        ({"new.x": torch.ones(1)}, r"'new\.x'; expected names that begin with fc\., temp, old\."),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_copied(change, message):
    layer = Layer()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    state = {k: v for k, v in (official() | change).items() if v is not None}
    with pytest.raises(ReferenceWeightsError, match=message):
        layer.load_reference(state)
    assert all(v.equal(before[k]) for k, v in layer.state_dict().items())


def test_a_table_is_a_module_that_is_imported_when_weights_are_loaded(monkeypatch):
    class Tabled(Layer):
        reference_names = WithReference.reference_names
        reference_unused = WithReference.reference_unused
        reference_table = "a_table_of_names"

    layer = Tabled()
    with pytest.raises(ModuleNotFoundError):
        layer.load_reference(official())
    table = types.ModuleType("a_table_of_names")
    table.reference_names = lambda model: {"fc.": "map", "temp": "scale"}
    table.reference_state = lambda model, state: {k.removeprefix("m."): v for k, v in state.items()}
    monkeypatch.setitem(sys.modules, "a_table_of_names", table)
    layer.load_reference({f"m.{k}": v for k, v in official().items()})
    assert bool((layer.scale == 1).all())


def test_parts_of_parts():
    class Owner(WithReference, nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Layer()

        def reference_names(self):
            return within("inner", self.inner.reference_names(), "block.")

        def reference_state(self, state_dict):
            return state_within(self.inner, state_dict, "block.")

    owner = Owner()
    owner.load_reference({f"block.{k}": v for k, v in official().items()})
    assert bool((owner.inner.map.weight == 1).all())


def test_joint_matrices_are_taken_apart():
    torch_attention = nn.MultiheadAttention(4, 2, batch_first=True)
    ours = fusionzoo.layers.MultiheadAttention(4, heads=2)

    class Owner(WithReference, nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = ours

        def reference_names(self):
            return attention_names("", "attention")

        def reference_state(self, state_dict):
            return split_joint(state_dict)

    Owner().load_reference(torch_attention.state_dict())
    x = torch.rand(2, 5, 4)
    torch.testing.assert_close(ours(x, x)[0], torch_attention(x, x, x)[0])
    with pytest.raises(ReferenceWeightsError, match=r"query\.bias has shape \(10,\), expected \(4,\)"):
        Owner().load_reference(torch_attention.state_dict() | {"in_proj_bias": torch.zeros(10)})


def test_another_number_of_modalities_is_refused():
    check_modalities(("a", "b"), 2, "Net")
    with pytest.raises(ReferenceWeightsError, match=r"Net has three modalities, this one 2 \(a, b\)"):
        check_modalities(("a", "b"), 3, "Net")


VARIANTS = [(k, n) for k in ("fusion", "objective") for n in fusionzoo.names(k) if fusionzoo.card(n, kind=k).variants]


@pytest.mark.parametrize(("kind", "name"), VARIANTS)
def test_every_variant_says_what_it_does_differently(kind, name):
    cls = fusionzoo.get(name, kind=kind)
    assert set(variant_docs(cls)) == set(fusionzoo.card(name, kind=kind).variants) - {"default"}
    for form in variant_classes(cls)[1:]:
        assert issubclass(form, cls)
        assert form.__doc__
        assert form.__doc__ != cls.__doc__
