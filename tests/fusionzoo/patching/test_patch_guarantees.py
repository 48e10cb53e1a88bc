"""What holds around a patch: threads, re-run segments, transforms, compiled models, and refusals that change nothing."""

from __future__ import annotations

import copy
import pickle
import random
import textwrap
import threading

import numpy as np
import pytest
import torch
import zoo
from torch import nn
from torch.utils.checkpoint import checkpoint
from zoo import base
from zoo.cats_and_helpers import XlXaXv
from zoo.sums_and_products import PlusEq

import fusionzoo
from fusionzoo.errors import LayoutError, ModalityError, NoSiteError, OptionError, PatchError, SiteNotReachedError
from fusionzoo.testing.checks import adapter as anatomy

pytestmark = pytest.mark.filterwarnings("ignore:.*looks across steps", "ignore:None of the inputs")
LENGTHS = torch.tensor(base.LENS)
REAL = torch.arange(base.L) < LENGTHS[:, None]


def make(name, fusion="gated", training=False, **options):
    torch.manual_seed(0)
    cls = zoo.HOSTS[name]
    model = cls().train(training)
    args, kwargs = cls.call()
    patch = fusionzoo.patch(model, fusion, fusionzoo.find_sites(model, *args, **kwargs)[0], **options)
    return model, args, patch


@pytest.mark.parametrize("mode", ["residual", "replace"])
@pytest.mark.parametrize("fusion", ["lmam", "cross-attention"])
@pytest.mark.parametrize("name", ["LinVisAco", "PlusEq", "StackMean", "OuterSteps", "GatedByOther"])
def test_padding_is_never_mixed(shake, name, fusion, mode):
    model, args, patch = make(name, fusion, layout="(B, T, d)", mode=mode, context=lambda m, a, k: {"mask": REAL})
    shake(patch)
    expected = model(*args)
    poisoned = [torch.where(REAL[..., None], x, torch.full_like(x, 1e3)) for x in args]
    assert torch.equal(model(*poisoned)[REAL], expected[REAL])
    for x in args:
        x[1, :2] += 1
    assert torch.equal(model(*args)[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("mode", ["residual", "replace"])
@pytest.mark.parametrize("name", ["FlatLens", "MaskSelect", "GraphDict"])
def test_flat_lists_never_mix_dialogues(shake, name, mode):
    model, args, patch = make(name, "lmam", mode=mode)
    shake(patch)
    expected = model(*args)
    changed = copy.deepcopy(args)
    for x in anatomy._tensors(changed):
        if x.is_floating_point() and x.dim() == 3:
            x[1] += 1.0
    rows = torch.repeat_interleave(torch.arange(3), LENGTHS)
    assert torch.equal(model(*changed)[rows != 1], expected[rows != 1])
    assert not torch.equal(model(*changed)[rows == 1], expected[rows == 1])


def test_threads(shake):
    """Operands put by and contexts belong to the call that made them."""
    for name, fusion in (("PlusEq", "gated"), ("FlatLens", "lmam")):
        model, args, patch = make(name, fusion)
        shake(patch)
        other = tuple(x * 2 if isinstance(x, torch.Tensor) else [2, 3, 1] for x in args)
        wrong = []

        def work(given, expected, model=model, wrong=wrong):
            wrong.extend(1 for _ in range(30) if not torch.equal(model(*given), expected))

        threads = [threading.Thread(target=work, args=(a, model(*a).detach())) for a in (args, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


class Rerun(nn.Module):
    def __init__(self, reentrant=False):
        super().__init__()
        self.encoders = nn.ModuleList(nn.Linear(w, 8) for w in base.D.values())
        self.head = nn.Linear(24, 4)
        self.reentrant = reentrant

    def body(self, text, audio, video):
        return self.head(torch.cat([text, audio, video], -1))

    def forward(self, text, audio, video, umask):
        parts = [e(x) for e, x in zip(self.encoders, (text, audio, video), strict=True)]
        return checkpoint(self.body, *parts, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_rerun_segment_gets_its_own_mask(shake, reentrant):
    torch.manual_seed(0)
    model = Rerun(reentrant)
    batches = [(*base.xs(seed=i), m.float()) for i, m in enumerate((REAL, ~REAL | (torch.arange(base.L) < 1)))]
    site = fusionzoo.find_sites(model, *batches[0])[0]
    context = lambda model, args, kwargs: {"mask": args[3].bool()}  # noqa: E731
    shake(fusionzoo.patch(model, "lmam", site, layout="(B, T, d)", context=context))
    for batch in batches:
        model(*batch).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    sum(model(*batch).square().sum() for batch in batches).backward()
    assert all(torch.allclose(p.grad, e, atol=1e-4) for p, e in zip(model.parameters(), expected, strict=True))


def test_functional_calls_and_export(shake):
    model, args, patch = make("XlXaXv")
    shake(patch)
    parameters = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert torch.equal(torch.func.functional_call(model, parameters, args), model(*args))
    grads = torch.func.grad(lambda p: torch.func.functional_call(model, p, args).square().sum())(parameters)
    assert all(g.any() for n, g in grads.items() if "fusion." in n and "project" in n)
    exported = torch.export.export(model, args, strict=False)
    assert torch.allclose(exported.module()(*args), model(*args), atol=1e-5)


@pytest.mark.slow
def test_a_model_compiled_in_place(shake):
    torch.manual_seed(0)
    model = XlXaXv().eval()
    args, _ = XlXaXv.call()
    expected = model(*args)
    model.compile(backend="eager")
    model(*args)
    patch = fusionzoo.patch(model, "gated", fusionzoo.find_sites(model, *args)[0])
    assert torch.equal(model(*args), expected)
    shake(patch)
    assert not torch.allclose(model(*args), expected)


def test_copies_of_a_patch_go_with_their_model(shake):
    model, args, patch = make("DeepHelpers")
    shake(patch)
    expected = model(*args)
    for other, twin in (copy.deepcopy((model, patch)), pickle.loads(pickle.dumps((model, patch)))):
        assert twin.model is other
        assert torch.equal(other(*args), expected)
        twin.remove()
        assert not torch.equal(other(*args), expected)
    assert torch.equal(model(*args), expected)


def test_patching_in_inference_mode():
    torch.manual_seed(0)
    model, (args, _) = PlusEq(), PlusEq.call()
    with torch.inference_mode():
        patch = fusionzoo.patch(model, "gated", fusionzoo.find_sites(model, *args)[0])
    model(*args).sum().backward()
    assert all(p.grad is not None for p in patch.layer.out.parameters())


class Counting(XlXaXv):
    """Draws from Python and numpy, counts, and keeps what it computed."""

    def __init__(self):
        super().__init__()
        self.count, self.kept = 0, None

    def forward(self, x_l, x_a, x_v):
        self.count += 1
        self.new = random.random() + np.random.rand()
        self.kept = super().forward(x_l, x_a, x_v)
        return self.kept


def test_looking_leaves_no_trace():
    model, (args, _) = Counting(), Counting.call()
    before, state, drawn = anatomy._anatomy(model), random.getstate(), np.random.get_state()[1].copy()
    sites = fusionzoo.find_sites(model, *args)
    fusionzoo.patch(model, "gated", sites[0], inputs=args).remove()
    assert anatomy._difference(before, anatomy._anatomy(model)) == []
    assert random.getstate() == state
    assert (np.random.get_state()[1] == drawn).all()


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (lambda m, a, k: {"lengths": "xx"}, "is str"),
        (lambda m, a, k: {"lengths": [-1, 13]}, "whole numbers"),
        (lambda m, a, k: {"lengths": [1, 2]}, "add up to 3"),
        (lambda m, a, k: {"foo": 1}, "not 'foo'"),
        (lambda m, a, k: 5, "returned int"),
        (lambda m, a, k: a[9], "raises IndexError"),
    ],
)
def test_contexts_that_do_not_fit(context, words):
    model, args, patch = make("FlatLens", "lmam", context=context)
    with pytest.raises(LayoutError, match=words):
        model(*args)
    patch.remove()


def test_masks_and_lengths_that_do_not_fit():
    for context in ({"mask": REAL.T}, {"mask": REAL[0]}, {"lengths": [1]}, {"lengths": [1, 2, 9]}):
        model, args, patch = make("Recurrent", "lmam", context=lambda m, a, k, c=context: c)
        with pytest.raises(LayoutError, match="3 dialogues of 6 steps"):
            model(*args)
        patch.remove()


def test_refusals_change_nothing():
    torch.manual_seed(0)
    model, (args, _) = XlXaXv().eval(), XlXaXv.call()
    sites = fusionzoo.find_sites(model, *args)
    wide = fusionzoo.get("gated")({"text": 8, "audio": 8, "visual": 9})
    before = anatomy._anatomy(model)
    for error, words, call in (
        (LayoutError, "does not fit the streams", lambda: fusionzoo.patch(model, "lmam", sites[0], layout="(B, T, d)")),
        (OptionError, "not str", lambda: fusionzoo.patch(model, "lmam", sites[0], context="mask")),
        (OptionError, "built for", lambda: fusionzoo.patch(model, wide, sites[0])),
        (PatchError, "one site", lambda: fusionzoo.patch(model, "gated", sites)),
        (PatchError, "not dict", lambda: fusionzoo.patch(model, "gated", {}, inputs=args)),
        (PatchError, "inputs=", lambda: fusionzoo.patch(model, "gated", inputs=5)),
        (PatchError, "not str", lambda: fusionzoo.load_patch("model", "path")),
        (SiteNotReachedError, "dry run", lambda: fusionzoo.patch(model, "gated", sites[0], dry_run=True).verify(*args)),
    ):
        with pytest.raises(error, match=words):
            call()
        assert anatomy._difference(before, anatomy._anatomy(model)) == []
    named = fusionzoo.get("gated")({"x": 8, "y": 8, "z": 8})
    fusionzoo.patch(model, named, sites[0], inputs=args).remove()  # an instance may have names of its own


def test_models_that_cannot_be_looked_into():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.LazyLinear(2)

        def forward(self, text, audio):
            return self.head(torch.cat([text, audio], -1))

    args = torch.randn(2, 4), torch.randn(2, 3)
    with pytest.raises(PatchError, match="not initialised yet"):
        fusionzoo.find_sites(Lazy(), *args)
    model = Lazy()
    model(*args)
    scripted = torch.jit.trace(model, args)
    with pytest.raises(PatchError, match="ScriptModule"):
        fusionzoo.find_sites(scripted, *args)
    with pytest.raises(PatchError, match="ScriptModule"):
        fusionzoo.patch(scripted, "gated", fusionzoo.find_sites(model, *args)[0])
    with pytest.raises(NoSiteError, match="inner is a ScriptModule"):
        fusionzoo.find_sites(Holder(scripted), *args)


class Holder(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, text, audio):
        return self.inner(text, audio)


class Alike(nn.Module):
    def forward(self, text1, text2):
        return torch.cat([text1, text2], -1)


def test_streams_that_cannot_be_told_apart():
    args = torch.randn(2, 4), torch.randn(2, 3)
    with pytest.raises(ModalityError, match="all taken for text"):
        fusionzoo.find_sites(Alike(), *args)
    assert fusionzoo.find_sites(Alike(), *args, modalities=["text", "audio"])[0].modalities == ("text", "audio")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("self.h(free(self.t(text), self.a(audio)))", "cat"),
        ("self.h([torch.cat(p, -1) for p in [(self.t(text), self.a(audio))]][0])", "cat"),
        ("self.h(torch.cat([self.t(text) + self.a(audio)] * 2, -1))", "sum"),
        ("self.h(torch.cat([self.m(self.t(text), self.a(audio), self.a(audio))[0]] * 2, -1))", "cross-attention"),
        ("self.h(torch.cat([sum([self.t(text), self.a(audio)])] * 2, -1))", "sum"),
    ],
)
def test_without_source(shake, tmp_path, body, kind):
    source = f"""
    def free(a, b):
        return torch.cat([a, b], -1)
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.t, self.a, self.h = nn.Linear(4, 4), nn.Linear(3, 4), nn.Linear(8, 2)
            self.m = nn.MultiheadAttention(4, 1)
        def forward(self, text, audio):
            return {body}
    """
    space = {"torch": torch, "nn": nn, "__name__": "nowhere"}
    exec(textwrap.dedent(source), space)
    torch.manual_seed(0)
    model, args = space["Net"]().eval(), (torch.randn(3, 4), torch.randn(3, 3))
    site = fusionzoo.find_sites(model, *args)[0]
    assert (site.how, site.kind) == ("intercept", kind)
    expected = model(*args)
    patch = fusionzoo.patch(model, "gated", site)
    assert torch.equal(model(*args), expected)
    assert patch.calls == 1
    shake(patch)
    changed = model(*args)
    assert not torch.equal(changed, expected)
    fresh = space["Net"]().eval()
    fresh.load_state_dict({k: v for k, v in model.state_dict().items() if "fusionzoo" not in k})
    fusionzoo.load_patch(fresh, patch.save(tmp_path / "p.safetensors"))
    assert torch.equal(fresh(*args), changed)
    patch.remove()
    assert torch.equal(model(*args), expected)


def test_a_scripts_own_failures_are_said_in_a_line(tmp_path):
    from fusionzoo.cli.targets import sites_of

    script = tmp_path / "theirs.py"
    for text, words in (
        ("def build(:", "raises SyntaxError"),
        ("import no_such_module", "raises ModuleNotFoundError"),
        ("def build():\n    raise ValueError('mine')", r"build\(\) of .* raises ValueError: mine"),
        (
            "from torch import nn\ndef build():\n    return nn.Bilinear(2, 2, 2), ()",
            "missing a required argument: 'input1'",
        ),
    ):
        script.write_text(text)
        with pytest.raises(PatchError, match=words):
            sites_of(f"{script}:build")
