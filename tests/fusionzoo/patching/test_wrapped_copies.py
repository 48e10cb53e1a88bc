"""Copies, pickles, averages and files of patched models in wrappers: each has its own fusion, and all of them have one."""

from __future__ import annotations

import copy
import pickle

import accelerate
import pytest
import torch
from torch import nn
from zoo.wrapped import WRAPPERS, Early, Host, Nested, call_of, make, mask_of_early, patched

import fusionzoo
from fusionzoo._processes import forget_accelerate
from fusionzoo.patching.wrappers import host_of


@pytest.fixture
def half_precision():
    """An accelerator of one's own, whatever another test in this process has told Accelerate."""
    forget_accelerate()
    yield accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    forget_accelerate()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("first", ["patch", "prepare"])
@pytest.mark.parametrize("cls", [Host, Early, Nested])
def test_copies_of_what_accelerate_has_unwrapped_run_their_own_fusion(batch, shake, half_precision, cls, first, keep):
    model, call = make(cls), call_of(cls, batch)
    if first == "prepare":
        model = half_precision.prepare(model)
    _, patch = patched(cls, batch, shake, model=model)
    if first == "patch":
        model = half_precision.prepare(model)
    model = half_precision.unwrap_model(model, keep_fp32_wrapper=keep)
    twin = copy.deepcopy(model)
    expected = model(*call)
    assert torch.equal(twin(*call), expected)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert not twin(*call).any()
    assert torch.equal(model(*call), expected)
    if not keep:
        assert torch.equal(pickle.loads(pickle.dumps(model))(*call), expected)
    patch.remove()
    assert torch.allclose(model(*call), make(cls)(*call), atol=0.05)
    half_precision.free_memory()


class Packed(nn.Module):
    """Stands where a linear map stood, as after quantisation: `weight` is a method."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def weight(self):
        return self.linear.weight

    def forward(self, x):
        return self.linear(x)


def test_maps_of_the_fusion_may_be_exchanged_for_such_without_a_weight(batch, shake):
    model, patch = patched(Host, batch, shake)
    expected = model(*batch)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
                    module[int(name) if name.isdigit() else name] = Packed(child)
                else:
                    setattr(module, name, Packed(child))
    assert isinstance(patch.layer.out["joined"], Packed)
    assert torch.equal(model(*batch), expected)


@pytest.mark.parametrize("first", ["patch", "average"])
def test_an_average_of_a_patched_model_averages_the_fusion(batch, shake, first):
    model = make(Nested)
    average = torch.optim.swa_utils.AveragedModel(model)  # which needs the patch too, as it would need any other layer
    _, patch = patched(Nested, batch, lambda patch: None, model=model)
    if first == "patch":
        average = torch.optim.swa_utils.AveragedModel(model)
    else:
        patched(Nested, batch, lambda patch: None, model=average)
    untrained = average(*batch)
    shake(patch)
    average.update_parameters(model)
    assert torch.allclose(average(*batch), model(*batch), atol=1e-6)
    assert not torch.allclose(average(*batch), untrained, atol=1e-3)


QUICK = [n for n in WRAPPERS if n != "compile"]


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("cls", [Early, Nested])
def test_a_file_goes_from_any_wrapper_into_any_other(batch, shake, tmp_path, cls, name):
    call, context = call_of(cls, batch), mask_of_early if cls is Early else None
    outer = WRAPPERS[name](make(cls)).eval()
    _, patch = patched(cls, batch, shake, model=outer)
    patch.save(tmp_path / "p.safetensors")
    expected = outer(*call)
    for other in QUICK:
        into = WRAPPERS[other](make(cls)).eval()
        fusionzoo.load_patch(into, tmp_path / "p.safetensors", context=context)
        assert torch.allclose(into(*call), expected, atol=1e-6)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "compile")) for n in WRAPPERS])
def test_a_wrapper_with_a_patched_model_can_be_copied_and_pickled(batch, shake, name):
    model, _ = patched(Nested, batch, shake)
    outer = WRAPPERS[name](model).eval()
    host = host_of(outer)
    expected = host(*batch)
    for twin in (copy.deepcopy(outer), pickle.loads(pickle.dumps(outer))):
        inside = host_of(twin)
        assert inside is not host
        assert torch.equal(inside(*batch), expected)
        with torch.no_grad():
            for p in twin.parameters():
                p.add_(0.5)
        assert not torch.allclose(inside(*batch), expected, atol=1e-3)
        assert torch.equal(host(*batch), expected)
