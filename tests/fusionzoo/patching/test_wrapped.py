"""A patch under wrappers, in whichever order: replicas, copies, replaced forwards, prefixes in names, PEFT."""

from __future__ import annotations

import copy
import pickle
from abc import ABC
from typing import ClassVar

import accelerate
import pytest
import torch
from torch import nn
from zoo.wrapped import (
    MASK,
    WRAPPERS,
    Early,
    Host,
    Nested,
    Wrapper,
    averaged,
    call_of,
    lora,
    make,
    mask_of_early,
    patched,
)

import fusionzoo
from fusionzoo._processes import forget_accelerate
from fusionzoo.errors import FusionZooWarning, HostChangedError, PatchError
from fusionzoo.patching.wrappers import host_of

# -- whose parameters compute ------------------------------------------------------------------------------------------


def replica(model, shift):
    """What nn.DataParallel makes of a model: copies by the method that it calls, with tensors in the parameters' places."""
    modules = list(model.modules())
    twins = [module._replicate_for_data_parallel() for module in modules]
    for module, twin in zip(modules, twins, strict=True):
        for name, child in module.named_children():
            setattr(twin, name, twins[modules.index(child)])
        for name, p in module.named_parameters(recurse=False):
            setattr(twin, name, p.detach() + shift)
    return twins[0]


def shifted(model, shift):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(shift)
    return other


@pytest.mark.parametrize("mode", ["residual", "replace"])
@pytest.mark.parametrize("fusion", ["gated", "lmam"])
@pytest.mark.parametrize("cls", [Host, Early, Nested])
def test_a_replica_computes_with_its_own_parameters(batch, shake, cls, fusion, mode):
    model, patch = patched(cls, batch, shake, fusion, mode=mode)
    call = call_of(cls, batch)
    before = patch.calls
    out = replica(model, 0.5)(*call)
    assert torch.allclose(out, shifted(model, 0.5)(*call), atol=1e-5)
    assert not torch.allclose(out, model(*call), atol=1e-3)
    assert patch.calls > before


def test_a_replica_that_was_made_before_any_call_works_in_its_own_dtype(batch, shake):
    model, _ = patched(Host, batch, shake)
    out = replica(model.double(), 0.5)(batch[0].double(), batch[1].double(), MASK)
    assert out.dtype == torch.float64
    assert torch.allclose(out, shifted(model, 0.5)(batch[0].double(), batch[1].double(), MASK))


def test_copies_and_pickles_are_patched_on_their_own(batch, shake):
    for cls in (Host, Early, Nested):
        model, patch = patched(cls, batch, shake, "lmam")
        call = call_of(cls, batch)
        expected = model(*call)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model)):
            assert type(twin) is cls
            assert torch.equal(twin(*call), expected)
        deep = copy.deepcopy(model)
        with torch.no_grad():
            for p in deep.parameters():
                p.zero_()
        assert not deep(*call).any()
        patch.remove()
        assert type(model) is cls
        assert torch.equal(pickle.loads(pickle.dumps(deep))(*call), deep(*call))


def test_parameters_from_outside(batch, shake):
    """torch.func: several patched models in one call."""
    models = [patched(Host, batch, shake)[0] for _ in range(2)]
    with torch.no_grad():
        models[1].head.weight.add_(1.0)
    parameters, buffers = torch.func.stack_module_state(models)
    one = copy.deepcopy(models[0])

    def call(p, b):
        return torch.func.functional_call(one, (p, b), batch)

    for i, model in enumerate(models):
        alone = {k: v[i] for k, v in parameters.items()}
        assert torch.allclose(call(alone, {k: v[i] for k, v in buffers.items()}), model(*batch), atol=1e-6)


def test_a_parametrized_host_can_be_patched_and_a_patched_one_parametrized(batch, shake):
    class Twice(nn.Module):
        def forward(self, x):
            return 2 * x

    parametrize = torch.nn.utils.parametrize
    for first in (True, False):
        model = make()
        model.scale = nn.Parameter(torch.ones(()))
        plain = model(*batch)
        if first:
            parametrize.register_parametrization(model, "scale", Twice())
        _, patch = patched(Host, batch, shake, model=model)
        if not first:
            parametrize.register_parametrization(model, "scale", Twice())
        changed = model(*batch)
        assert float(model.scale) == 2.0
        assert not torch.equal(changed, plain)
        assert torch.equal(copy.deepcopy(model)(*batch), changed)
        patch.remove()
        assert torch.equal(model(*batch), plain)
        parametrize.remove_parametrizations(model, "scale")
        assert torch.equal(model(*batch), plain)


class Registered(nn.Module):
    known: ClassVar[list] = []

    def __init_subclass__(cls, *, name, **kwargs):
        super().__init_subclass__(**kwargs)
        Registered.known.append(name)


class Own(Registered, name="own"):
    def __init__(self):
        super().__init__()
        self.net = Host()
        self.t, self.a, self.head = nn.Linear(6, 4), nn.Linear(5, 4), nn.Linear(8, 2)

    def forward(self, text, audio, umask):
        return self.head(torch.cat([self.t(text), self.a(audio)], -1))


class Abstract(ABC, Host.__mro__[1]):
    def __init__(self):
        super().__init__()
        self.t, self.a, self.head = nn.Linear(6, 4), nn.Linear(5, 4), nn.Linear(8, 2)

    forward = Own.forward


class Slotted(Abstract):
    __slots__ = ("extra",)


@pytest.mark.parametrize("cls", [Own, Abstract, Slotted])
def test_hosts_whose_classes_are_special(batch, shake, cls):
    known = list(Registered.known)
    model, patch = patched(cls, batch, shake)
    changed = model(*batch)
    assert type(model) is cls
    assert torch.equal(copy.deepcopy(model)(*batch), changed)
    assert Registered.known == known
    patch.remove()
    assert type(model) is cls
    assert not torch.equal(model(*batch), changed)


@pytest.fixture
def half_precision():
    """An accelerator of one's own, whatever another test in this process has told Accelerate."""
    forget_accelerate()
    yield accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    forget_accelerate()


@pytest.mark.parametrize("first", ["patch", "prepare"])
def test_accelerates_half_precision(batch, shake, first, half_precision):
    accelerator = half_precision
    model = make()
    plain = model(*batch)
    if first == "prepare":
        model = accelerator.prepare(model)
    _, patch = patched(Host, batch, shake, model=model)
    full = patched(Host, batch, shake)[0](*batch)
    if first == "patch":
        model = accelerator.prepare(model)
    out = model(*batch)
    assert out.dtype == torch.float32
    assert not torch.equal(out, full)  # in half precision
    assert torch.allclose(out, full, atol=0.05)
    assert not torch.allclose(out, plain, atol=0.05)
    model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    assert torch.allclose(model(*batch), full, atol=1e-6)
    patch.remove()
    assert torch.allclose(model(*batch), plain, atol=1e-6)
    accelerator.free_memory()


def test_accelerates_hooks(batch, shake):
    hooks = pytest.importorskip("accelerate.hooks")
    for cls, path in ((Host, ""), (Early, ""), (Nested, "join")):
        call = call_of(cls, batch)
        full = patched(cls, batch, shake)[0](*call)
        for first in (True, False):
            model = make(cls)
            plain = model(*call)
            if first:
                hooks.add_hook_to_module(model.get_submodule(path), hooks.ModelHook())
            _, patch = patched(cls, batch, shake, model=model)
            if not first:
                hooks.add_hook_to_module(model.get_submodule(path), hooks.ModelHook())
            assert torch.allclose(model(*call), full, atol=1e-6)
            hooks.remove_hook_from_module(model.get_submodule(path))
            assert torch.allclose(model(*call), full, atol=1e-6)
            patch.remove()
            assert torch.equal(model(*call), plain)


# -- names that gain a prefix ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Host, Early, Nested])
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "compile")) for n in WRAPPERS])
def test_a_file_goes_into_and_out_of_a_wrapper(batch, shake, tmp_path, name, cls):
    call, wrap, file = call_of(cls, batch), WRAPPERS[name], tmp_path / "p.safetensors"
    context = mask_of_early if cls is Early else None
    outer = wrap(make(cls)).eval()
    assert type(host_of(outer)).__name__ == cls.__name__
    _, patch = patched(cls, batch, shake, model=outer)
    expected = outer(*call)
    assert patch.model is outer
    assert patch.host is host_of(outer)
    assert type(outer).__name__ in patch.summary()
    patch.save(file)
    inner = make(cls)
    fusionzoo.load_patch(inner, file, context=context)
    assert torch.allclose(inner(*call), expected, atol=1e-6)
    other = wrap(make(cls)).eval()
    again = fusionzoo.load_patch(other, file, context=context)
    assert torch.allclose(other(*call), expected, atol=1e-6)
    again.remove()
    assert not any("fusionzoo" in n for n, _ in other.named_modules())
    later = wrap(inner).eval()
    assert torch.allclose(later(*call), expected, atol=1e-6)


def test_sites_are_the_hosts_whatever_is_around_it(batch):
    model = make(Nested)
    plain = fusionzoo.find_sites(model, *batch)
    for wrap in (nn.DataParallel, averaged, Wrapper):
        assert [s.to_dict() for s in fusionzoo.find_sites(wrap(model), *batch)] == [s.to_dict() for s in plain]
    assert plain[0].path == "join"


class Joining(nn.Module):
    """Takes any arguments too, but does something with them: no wrapper."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(11, 2)

    def forward(self, *streams, **options):
        return self.net(torch.cat(streams, -1))


class Named(nn.Module):
    """Spells the arguments out: a host around a host."""

    def __init__(self):
        super().__init__()
        self.net = Host()

    def forward(self, text, audio, umask):
        return self.net(text, audio, umask)


def test_a_host_that_does_something_itself_is_no_wrapper(batch, shake, tmp_path):
    joining, named = Joining(), make(Named)
    assert host_of(joining) is joining
    assert host_of(named) is named
    sites = fusionzoo.find_sites(joining, *batch[:2], modalities=["text", "audio"])
    assert sites[0].kind == "cat"
    _, patch = patched(Named, batch, shake, model=named)
    assert patch.site.path == "net"
    patch.save(tmp_path / "p.safetensors")
    inner = Host().eval()
    inner.load_state_dict({k: v for k, v in named.net.state_dict().items() if "fusionzoo" not in k})
    fusionzoo.load_patch(inner, tmp_path / "p.safetensors")
    assert torch.equal(inner(*batch), named(*batch))
    _, plain = patched(Host, batch, shake)
    plain.save(tmp_path / "q.safetensors")
    assert fusionzoo.load_patch(make(Named), tmp_path / "q.safetensors").site.path == ""


def test_a_file_for_one_of_several_hosts_inside_says_so(batch, shake, tmp_path):
    _, patch = patched(Host, batch, shake)
    patch.save(tmp_path / "p.safetensors")
    several = nn.ModuleList([Host(), Host()])
    with pytest.raises(PatchError, match=r"2 places .*get_submodule\('0'\)"):
        fusionzoo.load_patch(several, tmp_path / "p.safetensors")
    assert fusionzoo.load_patch(several[1], tmp_path / "p.safetensors").active
    with pytest.raises(HostChangedError, match="nor anywhere inside"):
        fusionzoo.load_patch(nn.Sequential(nn.Linear(2, 2)), tmp_path / "p.safetensors")


def test_files_of_earlier_versions_name_the_wrapper(batch, shake, tmp_path):
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    model, patch = patched(Nested, batch, shake)
    patch.save(tmp_path / "p.safetensors")
    with safe_open(tmp_path / "p.safetensors", "pt") as f:
        meta, weights = json.loads(f.metadata()["fusionzoo_patch"]), {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
    meta["host"], meta["site"]["path"] = "DataParallel", "module.join"
    save_file(weights, tmp_path / "old.safetensors", {"fusionzoo_patch": json.dumps(meta)})
    for other in (make(Nested), nn.DataParallel(make(Nested))):
        fusionzoo.load_patch(other, tmp_path / "old.safetensors")
        assert torch.equal(other(*batch), model(*batch))


# -- PEFT --------------------------------------------------------------------------------------------------------------


def test_a_frozen_fusion_is_said_to_be(batch, shake):
    model, patch = patched(Host, batch, shake)
    assert "frozen" not in patch.summary()
    lora(model)
    assert "modules_to_save=['fusionzoo_patch_0']" in str(patch)
    assert "frozen" in str(patch)
    next(patch.parameters()).requires_grad_(True)
    assert "frozen in part" in str(patch)
    for p in patch.parameters():
        p.requires_grad_(True)
    assert "frozen" not in str(patch)


@pytest.mark.parametrize("cls", [Host, Early, Nested])
def test_peft_trains_and_saves_a_fusion_that_it_is_told_of(batch, shake, tmp_path, cls):
    peft = pytest.importorskip("peft")
    call = call_of(cls, batch)
    model, patch = patched(cls, batch, shake, "lmam")
    untouched = {k: v.clone() for k, v in patch.state_dict().items()}
    config = peft.LoraConfig(r=2, target_modules=["head"], modules_to_save=["fusionzoo_patch_0"])
    outer = peft.get_peft_model(model, config)
    assert all(p.requires_grad for p in patch.parameters())
    assert "frozen" not in patch.summary()
    optimizer = torch.optim.SGD([p for p in outer.parameters() if p.requires_grad], 0.5)
    for _ in range(2):
        optimizer.zero_grad()
        outer(*call).square().sum().backward()
        optimizer.step()
    assert any(not torch.equal(v, untouched[k]) for k, v in patch.state_dict().items())
    assert patch.calls
    expected = outer.eval()(*call)

    outer.save_pretrained(tmp_path / "peft")
    other, _ = patched(cls, batch, lambda patch: None, "lmam")
    again = peft.PeftModel.from_pretrained(other, tmp_path / "peft").eval()
    assert torch.allclose(again(*call), expected, atol=1e-6)

    patch.save(tmp_path / "p.safetensors")
    plain = make(cls)
    loaded = fusionzoo.load_patch(plain, tmp_path / "p.safetensors", context=mask_of_early if cls is Early else None)
    assert all(torch.equal(v, patch.state_dict()[k]) for k, v in loaded.state_dict().items())

    with outer.disable_adapter():
        assert all(torch.equal(v, untouched[k]) for k, v in patch.state_dict().items())
    merged = outer.merge_and_unload()
    assert torch.allclose(merged(*call), expected, atol=1e-5)
    assert patch.layer in list(merged.modules())
    patch.remove()
    assert not any("fusionzoo" in n for n, _ in merged.named_modules())


def test_a_fusion_put_into_a_peft_model_trains_and_is_said_not_to_be_saved_by_it(batch, shake):
    outer = lora(make())
    _, patch = patched(Host, batch, shake, model=outer)
    assert all(p.requires_grad for p in patch.parameters())
    assert "save_pretrained" in patch.summary()


def test_a_fusion_whose_own_layers_peft_has_changed_is_not_saved_by_halves(batch, shake, tmp_path):
    peft = pytest.importorskip("peft")
    model, patch = patched(Host, batch, shake)
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    outer = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=names))
    outer(*batch)
    with pytest.raises(PatchError, match="merge_and_unload"):
        patch.save(tmp_path / "p.safetensors")
    outer.merge_and_unload()
    patch.save(tmp_path / "p.safetensors")


# -- several patches, later changes ------------------------------------------------------------------------------------


def test_several_patches_come_and_go_in_any_order_under_wrappers(batch, shake):
    model = make(Nested)
    plain = model(*batch)
    outer = nn.DataParallel(model)
    site = fusionzoo.find_sites(outer, *batch)[0]
    patches = [fusionzoo.patch(outer, "gated", site)]
    with pytest.warns(FusionZooWarning, match="another fusion at .* already"):
        patches.append(fusionzoo.patch(model, "gated", site))
    for patch in patches:
        shake(patch)
    both = outer(*batch)
    assert torch.allclose(replica(outer, 0.0)(*batch), both, atol=1e-6)
    patches[0].remove()
    assert not torch.equal(outer(*batch), both)
    patches[1].remove()
    assert torch.equal(outer(*batch), plain)
    assert type(model.join) is Host
