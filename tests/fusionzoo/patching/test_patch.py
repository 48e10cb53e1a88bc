"""What a patch promises beside the styles of joins: modes, persistence, context, randomness, and what it leaves alone."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo._registry import registry
from fusionzoo.errors import (
    CheckpointError,
    HostChangedError,
    LayoutError,
    ModalityError,
    NoSiteError,
    PatchError,
    ShapeError,
    SiteNotReachedError,
)
from fusionzoo.patching.repositories import adapter_for

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


@pytest.mark.parametrize("name", ["FreeFunction", "FlatNodes", "Wrapped", "Cat"])
def test_save_load_in_a_fresh_process(build, hosts, shake, tmp_path, name):
    model, args, kwargs = build(getattr(hosts, name))
    patch = fusionzoo.patch(
        model, "lmam", first(model, args, kwargs), layout=None if name == "FlatNodes" else "(B, T, d)"
    )
    shake(patch)
    expected = model(*args, **kwargs)
    expected = expected["logits"] if isinstance(expected, dict) else expected
    patch.save(tmp_path / "p.safetensors")
    torch.save(
        {"host": {k: v for k, v in model.state_dict().items() if "fusionzoo" not in k}, "y": expected},
        tmp_path / "w.pt",
    )
    code = f"""
    import sys, torch, fusionzoo
    sys.path.insert(0, {str(HERE)!r})
    import hosts
    saved = torch.load({str(tmp_path / "w.pt")!r})
    model = hosts.{name}().eval()
    model.load_state_dict(saved["host"])
    state = torch.get_rng_state()
    patch = fusionzoo.load_patch(model, {str(tmp_path / "p.safetensors")!r})
    assert torch.equal(state, torch.get_rng_state())
    args, kwargs = hosts.{name}.call()
    assert torch.equal(model(*args, **kwargs), saved["y"])
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_load_says_what_does_not_fit(build, hosts, tmp_path):
    model, args, kwargs = build(hosts.FreeFunction)
    patch = fusionzoo.patch(model, "gated", first(model, args, kwargs))
    path = patch.save(tmp_path / "p.safetensors")
    with pytest.raises(HostChangedError):
        fusionzoo.load_patch(hosts.Cat(), path)
    with pytest.raises(CheckpointError, match="no saved patch"):
        fusionzoo.load_patch(model, tmp_path / "other")
    (tmp_path / "broken").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="damaged"):
        fusionzoo.load_patch(model, tmp_path / "broken")
    state = patch.state_dict()
    given = dict(state)
    given.pop(next(iter(given)))
    with pytest.raises(CheckpointError, match="1 tensors of the model are not in it"):
        patch.load_state_dict(given)
    assert len(given) == len(state) - 1
    with pytest.raises(CheckpointError, match="not in the model"):
        patch.load_state_dict({**state, "more": torch.zeros(1)})


def test_changed_host_code_is_noticed(tmp_path):
    source = """
    import torch
    from torch import nn
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 2)
        def forward(self, text, audio):
            return self.head(torch.cat([text, audio], -1))
    """
    source = textwrap.dedent(source)
    check = """
    import sys, torch, fusionzoo
    sys.path.insert(0, {folder!r})
    from net import Net
    {body}
    """
    save = "m = Net(); x = (torch.randn(2, 4), torch.randn(2, 2)); fusionzoo.patch(m, 'gated', inputs=x).save({path!r})"
    load = "fusionzoo.load_patch(Net(), {path!r}); print('loaded')"
    path = str(tmp_path / "p.safetensors")

    def run(text, body):
        (tmp_path / "net.py").write_text(text)
        code = textwrap.dedent(check).format(folder=str(tmp_path), body=body.format(path=path))
        return subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True)

    assert run(source, save).returncode == 0
    assert "loaded" in run("# a line above\n\n" + source, load).stdout
    changed = run(source.replace("[text, audio]", "[text * 2, audio]"), load)
    assert "HostChangedError" in changed.stderr
    assert "has changed since the patch was saved" in changed.stderr


def test_pickle(build, hosts, shake):
    for cls in (hosts.FreeFunction, hosts.FlatNodes, hosts.Rows, hosts.Child):
        model, args, kwargs = build(cls)
        shake(fusionzoo.patch(model, "gated", first(model, args, kwargs)))
        other = pickle.loads(pickle.dumps(model))
        assert torch.equal(other(*args, **kwargs), model(*args, **kwargs))


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Cat", "FreeFunction", "FlatNodes"])
def test_compile(build, hosts, shake, name):
    model, args, kwargs = build(getattr(hosts, name))
    expected = model(*args)
    patch = fusionzoo.patch(model, "gated", first(model, args, kwargs))
    compiled = torch.compile(model, backend="eager")
    assert torch.allclose(compiled(*args), expected)
    shake(patch)
    torch.compiler.reset()
    assert torch.allclose(torch.compile(model, backend="eager")(*args), model(*args), atol=1e-5)


def _wrapped_in_two_processes(rank, port, path, wrapper, first):
    import os

    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    sys.path.insert(0, str(HERE))
    import hosts

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    wrap = DistributedDataParallel if wrapper == "ddp" else lambda m: fully_shard(m, mesh=mesh)
    torch.manual_seed(0)
    model = hosts.FreeFunction().eval()
    args, _ = hosts.FreeFunction.call()
    torch.manual_seed(rank)  # whoever wraps starts all processes from the first one's weights
    if first == "wrap":
        model = wrap(model)
    patch = fusionzoo.patch(model, "lmam", inputs=args, layout="(B, T, d)")
    if first == "patch":
        model = wrap(model)
    opt = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        opt.zero_grad()
        model(*(x + rank for x in args)).square().mean().backward()
        opt.step()
    full = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in patch.parameters()]
    torch.save([p.detach() for p in full], f"{path}/{wrapper}-{first}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp"])
def test_two_processes_agree_whichever_comes_first_the_patch_or_the_wrapper(tmp_path, wrapper):
    import socket

    for first in ("patch", "wrap"):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        code = f"""
        import sys
        sys.path.insert(0, {str(HERE)!r})
        import test_patch
        test_patch._wrapped_in_two_processes(int(sys.argv[1]), {port}, {str(tmp_path)!r}, {wrapper!r}, {first!r})
        """
        runs = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(r)]) for r in range(2)]
        assert [r.wait(120) for r in runs] == [0, 0]
    read = {n: torch.load(tmp_path / f"{wrapper}-{n}.pt") for n in ("patch-0", "patch-1", "wrap-0", "wrap-1")}
    for name in ("patch", "wrap"):
        assert all(torch.equal(x, y) for x, y in zip(read[f"{name}-0"], read[f"{name}-1"], strict=True))
    if wrapper == "ddp":  # which starts from the first process's weights; FSDP leaves each its own shards
        assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(read["patch-0"], read["wrap-0"], strict=True))
    assert any(x.abs().sum() > 0 for x in read["wrap-0"])


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
