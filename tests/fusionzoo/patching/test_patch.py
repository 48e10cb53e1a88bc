"""What a patch promises beside the styles of joins: modes, persistence, context, randomness, and what it leaves alone."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo.errors import (
    FusionZooWarning,
    LayoutError,
    ModalityError,
    NoSiteError,
    PatchError,
    ShapeError,
    SiteNotReachedError,
)

HERE = Path(__file__).parent


def first(model, args, kwargs, **options):
    return fusionzoo.find_sites(model, *args, **options, **kwargs)[0]


def test_training_draws_the_hosts_random_numbers(build, hosts):
    """In train mode too: the fusion's dropout uses numbers of its own, and other ones each time."""

    model, args, kwargs = build(hosts.Cat, training=True)
    model.head = nn.Sequential(nn.Dropout(0.5), model.head)
    torch.manual_seed(3)
    expected = model(*args)
    after = torch.get_rng_state()
    patch = fusionzoo.patch(model, "self-attention", first(model, args, kwargs), layout="(B, T, d)", dropout=0.3)
    torch.manual_seed(3)
    assert torch.equal(model(*args), expected)
    assert torch.equal(torch.get_rng_state(), after)
    for p in patch.layer.out.parameters():
        p.data.fill_(0.1)
    torch.manual_seed(3)
    one = model(*args)
    torch.manual_seed(3)
    assert not torch.equal(model(*args), one)


def test_checkpointing_repeats_the_same_dropout(build, hosts, shake):
    model, args, kwargs = build(hosts.Checkpointed, training=True)
    model.head = nn.Sequential(nn.Dropout(0.5), model.head)
    patch = fusionzoo.patch(model, "self-attention", first(model, args, kwargs), layout="(B, T, d)", dropout=0.3)
    shake(patch)
    state = dict(patch.layer._random)

    def grads(function):
        patch.layer._random = dict(state)
        torch.manual_seed(3)
        model.zero_grad()
        function(*args).square().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    direct = grads(model._body)
    again = grads(model)
    assert all(torch.allclose(a, b) for a, b in zip(direct, again, strict=True))


def test_two_patches(build, hosts, shake):
    model, args, _ = build(hosts.Rows)
    expected = model(*args)
    sites = fusionzoo.find_sites(model, *args)
    a = fusionzoo.patch(model, "lmam", sites[0])
    b = fusionzoo.patch(model, "gated", next(s for s in sites if s.kind == "rows"))
    with pytest.warns(FusionZooWarning, match="another fusion at .* already"):
        c = fusionzoo.patch(model, "gated", sites[0])
    assert torch.equal(model(*args), expected)
    shake(a), shake(b), shake(c)
    three = model(*args)
    assert len({*a.parameters()} & {*b.parameters()}) == 0
    c.remove()
    a.remove()
    assert not torch.equal(model(*args), expected)
    b.remove()
    assert torch.equal(model(*args), expected)
    assert not torch.equal(three, expected)


def test_other_instances_classes_and_globals_are_left_alone(build, hosts, shake):
    model, args, kwargs = build(hosts.FreeFunction)
    other, *_ = build(hosts.FreeFunction)
    expected = other(*args)
    names, members = dict(vars(hosts)), dict(vars(hosts.FreeFunction))
    patch = fusionzoo.patch(model, "gated", first(model, args, kwargs))
    shake(patch)
    assert not torch.equal(model(*args), expected)
    assert torch.equal(other(*args), expected)
    assert type(model) is hosts.FreeFunction
    assert {k: v for k, v in vars(hosts).items() if k != "__builtins__"} == {
        k: v for k, v in names.items() if k != "__builtins__"
    }
    assert dict(vars(hosts.FreeFunction)) == members


def test_flags_modes_and_freezing(build, hosts):
    model, args, kwargs = build(hosts.Cat)
    model.t.weight.requires_grad_(False)
    model.a.train()
    patch = fusionzoo.patch(model, "gated", first(model, args, kwargs))
    assert not model.t.weight.requires_grad
    assert model.a.training
    assert not patch.layer.training
    assert not patch.fusion.training
    model.train()
    assert patch.fusion.training
    patch.freeze_host()
    own = {id(p) for p in patch.parameters()}
    assert all(p.requires_grad == (id(p) in own) for p in model.parameters())
    patch.remove()
    assert not model.t.weight.requires_grad
    assert model.a.weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes(build, hosts, shake, dtype):
    model, args, kwargs = build(hosts.Cat)
    model.to(dtype)
    args = tuple(x.to(dtype) for x in args)
    expected = model(*args)
    patch = fusionzoo.patch(model, "gated", first(model, args, kwargs))
    assert all(p.dtype == dtype for p in patch.parameters())
    assert torch.equal(model(*args), expected)
    shake(patch)
    assert model(*args).dtype == dtype
    model.float()
    assert model(*(x.float() for x in args)).dtype == torch.float32


def test_autocast(build, hosts, shake):
    model, args, kwargs = build(hosts.Cat)
    patch = fusionzoo.patch(model, "lmam", first(model, args, kwargs), layout="(B, T, d)")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        patched = model(*args)
        patch.remove()
        assert torch.equal(patched, model(*args))


def test_inside_sequential(build, hosts, shake):
    host, args, kwargs = build(hosts.Comprehension)
    model = nn.Sequential(host, nn.Identity())
    site = first(model, args, kwargs)
    assert site.path == "0"
    expected = model(*args)["logits"]
    patch = fusionzoo.patch(model, "gated", site)
    assert torch.equal(model(*args)["logits"], expected)
    shake(patch)
    assert not torch.equal(model(*args)["logits"], expected)
    patch.remove()
    assert len(model) == 2


def test_input_of_a_sequential(shake):
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    x = torch.randn(3, 6)
    expected = model(x)
    patch = fusionzoo.patch(model, "gated", fusionzoo.InputSite("input", {"text": 4, "audio": 2}, layout="(B, d)"))
    assert torch.equal(model(x), expected)
    shake(patch)
    assert not torch.equal(model(x), expected)
    patch.remove()
    assert torch.equal(model(x), expected)


def test_input_site(build, hosts, shake):
    model, args, kwargs = build(hosts.Early)
    with pytest.raises(ModalityError, match="widths"):
        fusionzoo.patch(model, "lmam", first(model, args, kwargs))
    widths = {"text": 10, "audio": 6, "visual": 4}
    site = first(model, args, kwargs, modalities={"U": widths})
    assert site.layout == "(T, B, d)"
    assert site.context == ("umask", "mask")
    assert fusionzoo.InputSite.from_dict(site.to_dict()).context == site.context
    expected = model(*args)
    for s in (site, fusionzoo.InputSite("U", widths, layout="tbd")):
        patch = fusionzoo.patch(model, "lmam", s, context=lambda model, args, kwargs: {"mask": args[1].bool()})
        assert torch.equal(model(*args), expected)
        shake(patch)
        changed = model(*args)
        assert not torch.equal(changed, expected)
        patch.remove()
        assert torch.equal(model(*args), expected)
    patch = fusionzoo.patch(model, "lmam", site)  # the mask is the one that find_sites saw
    seen = []
    hook = patch.fusion.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    model(*args)
    hook.remove()
    assert torch.equal(seen[0], args[1].bool())
    patch.remove()
    patch = fusionzoo.patch(model, "gated", fusionzoo.InputSite("U", {**widths, "visual": 5}, layout="tbd"))
    with pytest.raises(ShapeError, match="expected 21 features"):
        model(*args)
    patch.remove()


def test_dialogues_are_never_mixed(build, hosts, shake):
    """In a flat list, changing one dialogue leaves the others' outputs as they are."""
    for cls in (hosts.FlatNodes, hosts.MaskedFlat):
        model, args, kwargs = build(cls)
        patch = fusionzoo.patch(model, "lmam", first(model, args, kwargs))
        shake(patch)
        before = model(*args)
        lengths = hosts.LENGTHS
        for x in args[:3]:
            (x[:, 1] if cls is hosts.FlatNodes else x[1]).add_(1.0)
        after = model(*args)
        rows = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        assert torch.equal(before[rows != 1], after[rows != 1])
        assert not torch.equal(before[rows == 1], after[rows == 1])


def test_flat_nodes_without_lengths_are_refused(build, hosts):
    model, args, kwargs = build(hosts.FlatNodes)
    site = first(model, args, kwargs)
    site.context = None
    with pytest.raises(LayoutError, match="lengths"):
        fusionzoo.patch(model, "lmam", site)
    fusionzoo.patch(model, "gated", site).remove()
    patch = fusionzoo.patch(model, "lmam", site, context=lambda m, a, k: {"lengths": [1, 2]})
    with pytest.raises(LayoutError, match="add up to 3"):
        model(*args)
    patch.remove()
    patch = fusionzoo.patch(model, "lmam", site, context=lambda m, a, k: {"lengths": a[3]})
    model(*args)
    patch.remove()


def test_context_is_seen_by_direct_calls_and_other_shapes(build, hosts, shake):
    model, args, kwargs = build(hosts.FlatNodes)
    shake(fusionzoo.patch(model, "lmam", first(model, args, kwargs)))
    assert torch.equal(model.forward(*args), model(*args))
    model(*(x[:, :2] for x in args[:3]), hosts.LENGTHS[:2])


def test_errors(build, hosts):
    model, args, kwargs = build(hosts.Cat)
    with pytest.raises(NoSiteError, match="no adapter knows Cat"):
        fusionzoo.patch(model, "gated")
    with pytest.raises(PatchError, match="inputs="):
        fusionzoo.patch(model, "gated", "hosts.py:1")
    with pytest.raises(NoSiteError, match="no site is at"):
        fusionzoo.patch(model, "gated", "nowhere.py:1", inputs=args)
    with pytest.raises(fusionzoo.FusionZooError, match="residual"):
        fusionzoo.patch(model, "gated", mode="residul")
    with pytest.raises(ModalityError, match="no tensor among the arguments; did you mean 'text'"):
        fusionzoo.find_sites(model, *args, modalities={"txt": "text"})
    with pytest.raises(ModalityError, match="looks like a stream"):
        fusionzoo.find_sites(nn.Embedding(3, 2), torch.zeros(2, dtype=torch.long))
    model, args, kwargs = build(hosts.ControlFlow)
    site = first(model, args, kwargs)
    with pytest.raises(SiteNotReachedError):
        fusionzoo.patch(model, "gated", site, inputs=tuple(x + 1000 for x in args))
    assert "forward" not in vars(model)


class Apart(nn.Module):
    def __init__(self):
        super().__init__()
        self.t, self.a = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, text, audio):
        return self.t(text), self.a(audio)


def test_no_site_says_what_was_seen():
    with pytest.raises(NoSiteError, match=r"text .* as text, audio .* as audio"):
        fusionzoo.find_sites(Apart(), torch.randn(2, 4), torch.randn(2, 3))


def test_without_source(shake):
    """A host that was compiled from a string has no source: its calls are watched while it runs."""
    space = {"torch": torch, "nn": nn}
    exec(
        textwrap.dedent("""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(6, 2)
            def forward(self, text, audio):
                return self.head(torch.cat([text, audio], -1))
        """),
        space,
    )
    model, args = space["Net"](), (torch.randn(3, 4), torch.randn(3, 2))
    site = fusionzoo.find_sites(model, *args)[0]
    assert site.how == "intercept"
    expected = model(*args)
    patch = fusionzoo.patch(model, "gated", site)
    assert torch.equal(model(*args), expected)
    shake(patch)
    assert not torch.equal(model(*args), expected)
    assert torch.equal(copy.deepcopy(model)(*args), model(*args))
    patch.remove()
    assert torch.equal(model(*args), expected)


def test_dry_run_and_texts(build, hosts):
    model, args, _ = build(hosts.Cat)
    before = set(vars(model)), list(model._modules)
    sites = fusionzoo.find_sites(model, *args)
    patch = fusionzoo.patch(model, "gated", sites[0], dry_run=True)
    assert (set(vars(model)), list(model._modules)) == before
    assert "nothing changed" in str(patch)
    assert "torch.cat" in str(patch)
    assert "text:8, audio:8, visual:8" in str(sites[0])
    assert '"layout": "(B, T, d)"' in sites[0].to_json()
    assert sites.table().row_count == len(sites)


def test_signature_and_trace_of_a_patched_model(build, hosts):
    import inspect

    model, args, kwargs = build(hosts.Cat)
    before = inspect.signature(model.forward)
    patch = fusionzoo.patch(model, "gated", first(model, args, kwargs))
    assert inspect.signature(model.forward) == before
    site = first(model, args, kwargs)
    assert (site.line, site.kind) == (patch.site.line, "cat")


class Chained(nn.Sequential):
    """A container with a forward of its own, which runs whatever is registered in it."""

    def forward(self, text, audio):
        text, audio = (m(x) for m, x in zip(self, (text, audio), strict=True))
        return torch.cat([text, audio], -1)


class Listing(nn.ModuleList):
    """The same as a list that can be called."""

    forward = Chained.forward


@pytest.mark.parametrize("container", [Chained, Listing])
def test_a_container_that_joins_in_a_forward_of_its_own(shake, container, tmp_path):
    parts = nn.Linear(6, 4), nn.Linear(5, 4)
    model = Chained(*parts) if container is Chained else Listing(parts)
    batch = torch.randn(3, 6), torch.randn(3, 5)
    plain, length = model(*batch), len(model)
    patch = fusionzoo.patch(model, "gated", inputs=batch)
    assert torch.equal(model(*batch), plain)
    shake(patch)
    trained = model(*batch)
    assert not torch.equal(trained, plain)
    assert len(model) == length
    assert torch.equal(copy.deepcopy(model)(*batch), trained)
    patch.save(tmp_path / "p.safetensors")
    patch.remove()
    assert torch.equal(model(*batch), plain)
    fusionzoo.load_patch(model, tmp_path / "p.safetensors")
    assert torch.equal(model(*batch), trained)


def test_command_line(tmp_path, hosts):
    script = tmp_path / "mine.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(HERE)!r})\nimport hosts\n\ndef build():\n    m = hosts.Cat()\n    return m, *m.call()\n"
    )
    command = [sys.executable, "-m", "fusionzoo", "sites"]
    done = subprocess.run([*command, f"{script}:build"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "hosts.py" in done.stdout
    done = subprocess.run([*command, f"{script}:built"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean 'build'" in done.stderr


def test_a_fusion_with_options_is_spelt_as_everywhere(build, hosts):
    widths = []
    for fusion, options in (
        ({"name": "gated", "width": 3}, {}),
        ("gated", {"width": 3}),
        ({"name": "gated"}, {"width": 3}),
    ):
        model, args, kwargs = build(hosts.Cat)
        widths.append(fusionzoo.patch(model, fusion, first(model, args, kwargs), **options).fusion.width)
    assert widths == [3, 3, 3]
