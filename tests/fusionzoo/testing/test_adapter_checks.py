"""The checks of an adapter, on a small model, a faithful patch function and patch functions that each forget one thing."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo.errors import FusionZooError, OptionError
from fusionzoo.testing import all_checks, check_adapter, run


class Joiner(nn.Module):
    def forward(self, text, audio):
        return torch.cat([text, audio], -1)


JOINED = Joiner.forward


class Model(nn.Module):
    """Joins two streams and classifies."""

    def __init__(self):
        super().__init__()
        self.join = Joiner()
        self.head = nn.Linear(9, 3)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, text, audio):
        return {"logits": self.head(self.join(text, audio)) * self.frozen}


class Adapter:
    """What an adapter gives to the suite."""

    @staticmethod
    def test_host():
        Joiner.forward = JOINED
        return Model(), (torch.randn(2, 4, 5), torch.randn(2, 4, 4)), {}


class Patch:
    """The faithful patch, each step of which a subclass may forget or overdo."""

    def __init__(self, model, fusion):
        self.model = model
        with torch.random.fork_rng(devices=[]):
            self.build(fusion)
        self.install()

    def build(self, fusion):
        inner = fusionzoo.get(fusion)([5, 4], 9)
        out = nn.Linear(9, 9)
        nn.init.zeros_(out.weight)
        nn.init.zeros_(out.bias)
        self.parts = nn.ModuleDict({"fusion": inner, "out": out}).train(self.model.training)

    def install(self):
        self.model.join.fusionzoo_patch = self.parts
        self.handle = self.model.join.register_forward_hook(Hook())

    def parameters(self):
        return self.parts.parameters()

    def remove(self):
        self.handle.remove()
        del self.model.join.fusionzoo_patch


class Hook:
    """Finds the fusion in the module that it is called for, so that copies use their own."""

    def __call__(self, module, args, joined):
        parts = module.fusionzoo_patch
        return joined + parts["out"](parts["fusion"](list(args)))


class ForgetsProjection(Patch):
    def build(self, fusion):
        super().build(fusion)
        nn.init.ones_(self.parts["out"].bias)


class Idle(Patch):
    def install(self):
        super().install()
        self.handle.remove()


class Detaches(Patch):
    def install(self):
        super().install()
        self.handle.remove()
        self.handle = self.model.join.register_forward_hook(DetachedHook())


class DetachedHook:
    def __call__(self, module, args, joined):
        parts = module.fusionzoo_patch
        return joined + parts["out"](parts["fusion"](list(args)).detach())


class Outside(Patch):
    """Keeps the fusion outside the model: no optimiser, checkpoint or train() of the model sees it."""

    def install(self):
        self.handle = self.model.join.register_forward_hook(OutsideHook(self.parts))

    def remove(self):
        self.handle.remove()


class OutsideHook:
    def __init__(self, parts):
        self.parts = parts

    def __call__(self, module, args, joined):
        return joined + self.parts["out"](self.parts["fusion"](list(args)))


class Wraps(Patch):
    """Renames the host's parameters by wrapping its head."""

    def install(self):
        super().install()
        self.model.head = nn.Sequential(self.model.head).train(self.model.training)

    def remove(self):
        self.model.head = self.model.head[0]
        super().remove()


class Freezes(Patch):
    def install(self):
        super().install()
        self.model.head.requires_grad_(False)

    def remove(self):
        self.model.head.requires_grad_(True)
        super().remove()


class Stubborn(nn.ModuleDict):
    def train(self, mode=True):
        return self


class AlwaysTraining(Patch):
    def build(self, fusion):
        super().build(fusion)
        self.parts = Stubborn(self.parts)


class DrawsNumbers(Patch):
    def __init__(self, model, fusion):
        super().__init__(model, fusion)
        torch.rand(1)


class Other(Model):
    """What `ChangesClass` makes of the model."""


class ChangesClass(Patch):
    def install(self):
        super().install()
        self.model.__class__ = Other

    def remove(self):
        self.model.__class__ = Model
        super().remove()


class PatchesTheClass(Patch):
    shared = None

    def install(self):
        self.model.join.fusionzoo_patch = PatchesTheClass.shared = self.parts
        Joiner.forward = joined_by_class

    def remove(self):
        Joiner.forward = JOINED
        del self.model.join.fusionzoo_patch


def joined_by_class(module, *args):
    parts = PatchesTheClass.shared
    return JOINED(module, *args) + parts["out"](parts["fusion"](list(args)))


class ReplacesTorch(Patch):
    original = torch.cat

    def install(self):
        super().install()
        torch.cat = lambda *args, **kwargs: ReplacesTorch.original(*args, **kwargs)


class LeavesAHook(Patch):
    def remove(self):
        del self.model.join.fusionzoo_patch
        self.handle.remove()
        self.model.join.register_forward_hook(Nothing())


class Nothing:
    def __call__(self, module, args, joined):
        return None


class LeavesParameters(Patch):
    def remove(self):
        self.handle.remove()


class LeavesTheEffect(Patch):
    def remove(self):
        super().remove()
        with torch.no_grad():
            self.model.head.bias += 1


class Closure(Patch):
    """A hook that holds the original's fusion: deep copies and pickles go on using it."""

    def install(self):
        self.model.join.fusionzoo_patch = parts = self.parts
        self.handle = self.model.join.register_forward_hook(
            lambda module, args, joined: joined + parts["out"](parts["fusion"](list(args)))
        )


NUMBERS = itertools.count(1)


class LosesABuffer(Patch):
    def build(self, fusion):
        super().build(fusion)
        self.parts["out"].register_buffer("scale", torch.tensor(float(next(NUMBERS))), persistent=False)

    def install(self):
        super().install()
        self.handle.remove()
        self.handle = self.model.join.register_forward_hook(ScaledHook())


class ScaledHook:
    def __call__(self, module, args, joined):
        parts = module.fusionzoo_patch
        return joined + parts["out"](parts["fusion"](list(args))) * parts["out"].scale


class OnlyOnce(Patch):
    def install(self):
        if hasattr(self.model.head, "seen"):
            raise RuntimeError("patched before")
        super().install()

    def remove(self):
        super().remove()
        self.model.head.__dict__["seen"] = True


class NotRandomHost(Adapter):
    calls = 0

    @classmethod
    def test_host(cls):
        cls.calls += 1
        model, args, kwargs = Adapter.test_host()
        with torch.no_grad():
            model.head.bias.fill_(cls.calls)
        return model, args, kwargs


def cannot(model, fusion):
    raise ValueError("no site")


#: check -> (patch function, checks that cannot hold then either)
BREAKERS = {
    "patches": (cannot, set()),
    "step_zero_identical": (ForgetsProjection, {"patch_again"}),
    "fusion_acts": (Idle, {"fusion_learns", "patch_again"}),
    "fusion_learns": (Detaches, set()),
    "parameters_belong_to_model": (Outside, {"state_dict_round_trip"}),
    "names_kept": (Wraps, set()),
    "flags_kept": (Freezes, set()),
    "mode_followed": (AlwaysTraining, set()),
    "random_state_kept": (DrawsNumbers, set()),
    "class_kept": (ChangesClass, set()),
    "other_instances_kept": (PatchesTheClass, {"deepcopy_works"}),
    "surroundings_kept": (ReplacesTorch, set()),
    "remove_restores_outputs": (LeavesTheEffect, {"remove_restores_state_dict", "patch_again"}),
    "remove_restores_state_dict": (LeavesParameters, {"remove_leaves_no_trace"}),
    "remove_leaves_no_trace": (LeavesAHook, set()),
    "deepcopy_works": (Closure, {"pickle_works"}),
    "state_dict_round_trip": (LosesABuffer, set()),
    "patch_again": (OnlyOnce, {"remove_leaves_no_trace"}),
}


#: Checks of how an adapter is found.
RECOGNITION = {"foreign_models_passed_over", "site_named", "own_model_recognised"}


@pytest.fixture(autouse=True)
def restore():
    cat = torch.cat
    yield
    torch.cat, Joiner.forward = cat, JOINED


def told(results):
    return "\n".join(f"{r.check}: {r.reason}" for r in results.failed)


def test_a_faithful_patch_passes():
    results = check_adapter(Adapter, patch=Patch)
    assert results.ok, told(results)
    assert {r.check for r in results.skipped} == RECOGNITION  # the adapter above is found by nobody


@pytest.mark.parametrize("name", BREAKERS)
def test_a_check_catches_its_breaker(name):
    patch, also = BREAKERS[name]
    results = check_adapter(Adapter, patch=patch)
    assert name in {r.check for r in results.failed}, told(results)
    assert {r.check for r in results.failed} == {name, *also}, told(results)


def test_an_unsteady_host_is_caught():
    assert [r.check for r in check_adapter(NotRandomHost, patch=Patch).failed] == ["host_given"]


def test_a_patch_that_cannot_be_pickled_is_caught():
    assert "pickle_works" in {r.check for r in check_adapter(Adapter, patch=Closure).failed}


def test_every_check_has_a_breaker():
    assert {c.name for c in all_checks("adapter")} == {*BREAKERS, *RECOGNITION, "host_given", "pickle_works"}


class Anybodys(Adapter):
    """Takes every model for its own, and does not say where its streams meet."""

    @staticmethod
    def recognise(model):
        return True


class Nobodys(Anybodys):
    site = "join"

    @staticmethod
    def recognise(model):
        return bool(model.never_there)


def test_recognition_is_checked():
    anybodys = check_adapter(Anybodys, patch=Patch, only=RECOGNITION)
    assert {r.check for r in anybodys.failed} == {"foreign_models_passed_over", "site_named"}
    nobodys = check_adapter(Nobodys, patch=Patch, only=RECOGNITION)
    assert {r.check for r in nobodys.failed} == {"foreign_models_passed_over", "own_model_recognised"}


def test_an_example_comes_from_the_caller_too():
    class Bare:
        """An adapter without a model."""

    without = check_adapter(Bare, patch=Patch)
    assert all(r.status == "skipped" for r in without)
    assert "check_adapter(name, example=function)" in without[-1].reason
    assert not check_adapter(Bare, patch=Patch, example=Adapter.test_host).failed
    with pytest.raises(OptionError, match="cannot be"):
        check_adapter(Bare, patch=Patch, example="a model")
    with pytest.raises(OptionError, match="'lmam' is a fusion; leave it out"):
        run("lmam", example=Adapter.test_host)


def test_without_a_patcher_it_says_so(monkeypatch):
    monkeypatch.setattr(fusionzoo, "patch", None, raising=False)
    with pytest.raises(FusionZooError, match=r"cannot patch models yet.*patch=function"):
        check_adapter(Adapter)
