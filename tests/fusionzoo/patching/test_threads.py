"""Several threads that patch, run and take apart, one model or one model each."""

from __future__ import annotations

import sys
import threading

import pytest
import torch
from torch import nn
from zoo.wrapped import Early, Host, Nested, call_of, make, mask_of_early, patched

import fusionzoo


@pytest.fixture(autouse=True)
def threads_that_take_turns_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*functions):
    """Run functions at once, each in a thread; what the first one that failed raised is raised here."""
    errors = []
    start = threading.Barrier(len(functions))

    def run(function):
        start.wait()
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def moved(value, generator):
    """A call's arguments with other features."""
    if isinstance(value, torch.Tensor):
        return value + torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)(moved(v, generator) for v in value)
    if isinstance(value, dict):
        return {k: moved(v, generator) for k, v in value.items()}
    return value


def tensors(out):
    return [out] if isinstance(out, torch.Tensor) else list(out.values() if isinstance(out, dict) else out)


def runs_in_threads(model, calls, count=4):
    """Each thread runs the model with arguments of its own, and gets what it gets alone."""
    expected = [tensors(model(*args, **kwargs)) for args, kwargs in calls]

    def work(i):
        args, kwargs = calls[i]
        for _ in range(count):
            for x, y in zip(tensors(model(*args, **kwargs)), expected[i], strict=True):
                assert torch.allclose(x, y, atol=1e-5)

    together(*(lambda i=i: work(i) for i in range(len(calls))))


def test_threads_run_one_patched_model(build, shake, style):
    if style.__name__ == "Wrapped":
        pytest.skip("keeps its batch on itself, so that threads get each other's without a patch too")
    model, args, kwargs = build(style)
    site = fusionzoo.find_sites(model, *args, **kwargs)[0]
    shake(fusionzoo.patch(model, "gated", site))
    generator = torch.Generator().manual_seed(3)
    runs_in_threads(model, [(args, kwargs), *(moved((args, kwargs), generator) for _ in range(2))])


def test_each_thread_has_the_mask_of_its_own_call(batch, shake):
    for cls in (Host, Early, Nested):
        model, _ = patched(cls, batch, shake, "lmam")
        *streams, mask = call_of(cls, batch)
        calls = [((*streams, m), {}) for m in (mask, torch.ones_like(mask), mask.flip(0))]
        first, second = model(*calls[0][0]), model(*calls[1][0])
        assert not torch.allclose(first, second, atol=1e-3)
        runs_in_threads(model, calls)


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.t, self.a = nn.Linear(6, 4), nn.Linear(5, 4)

    def forward(self, text, audio, inside=None):
        if inside is not None:
            inside()
        return torch.cat([self.t(text), self.a(audio)], -1)


class Unregistered(nn.Module):
    """Keeps a module in a list, where nn.Module does not see it."""

    def __init__(self):
        super().__init__()
        self.parts, self.head = [Part()], nn.Linear(8, 3)

    def forward(self, text, audio, umask, inside=None):
        return self.head(self.parts[0](text, audio, inside))


def test_a_module_that_hosts_share_without_registering_it_is_left_as_it_was(batch, shake):
    models = [make(Unregistered) for _ in range(3)]
    for model in models[1:]:
        model.parts = models[0].parts
    patches = [patched(Unregistered, batch, shake, model=model)[1] for model in models[:2]]
    expected = [model(*batch) for model in models]
    assert not torch.equal(expected[0], expected[2])
    second_is_in, first_is_out = threading.Event(), threading.Event()

    def first():
        assert torch.allclose(models[0](*batch, lambda: second_is_in.wait(60)), expected[0])
        first_is_out.set()

    def inside():
        second_is_in.set()
        assert torch.allclose(models[2](*batch), expected[2])  # which nobody has patched
        first_is_out.wait(60)

    together(first, lambda: torch.testing.assert_close(models[1](*batch, inside), expected[1]))
    assert "forward" not in vars(models[0].parts[0])
    for model, before in zip(models, expected, strict=True):
        assert torch.allclose(model(*batch), before)
    for patch in patches:
        patch.remove()
    assert torch.allclose(models[0](*batch), models[2](*batch))


def test_threads_patch_a_model_each(batch):
    def work(cls, fusion):
        model, call = make(cls), call_of(cls, batch)
        plain, options = model(*call), {}
        if cls is Early:
            options = {"site": fusionzoo.InputSite("joined", {"text": 6, "audio": 5}), "context": mask_of_early}
        patch = fusionzoo.patch(model, fusion, inputs=call, layout="(B, T, d)", **options)
        assert torch.equal(model(*call), plain)
        assert patch.proof.holds("samples stay apart")
        patch.verify(*call)
        patch.remove()
        assert torch.equal(model(*call), plain)
        assert "forward" not in vars(model)

    together(*(lambda c=c, f=f: work(c, f) for c in (Host, Early, Nested) for f in ("gated", "lmam")))


@pytest.mark.filterwarnings("ignore:there is another fusion at")
def test_threads_patch_one_model(batch, shake):
    model, patches = make(), []
    plain = model(*batch)

    def work():
        patches.append(fusionzoo.patch(model, "gated", inputs=batch, layout="(B, T, d)"))

    together(*[work] * 4)
    assert len({p.name for p in patches}) == 4
    assert torch.equal(model(*batch), plain)
    for patch in patches:
        shake(patch)
    before = [p.calls for p in patches]
    assert not torch.allclose(model(*batch), plain)
    assert [p.calls for p in patches] == [n + 1 for n in before]
    together(*(p.remove for p in patches))
    assert torch.equal(model(*batch), plain)
    assert "forward" not in vars(model)


def test_threads_leave_compiled_code_compiled(batch):
    """torch's stance on compiled code is the process's: two threads that each put it back must not leave the other's."""
    together(*[lambda: fusionzoo.find_sites(make(), *batch)] * 4)
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    torch.compile(nn.Linear(6, 2), backend=backend)(batch[0])
    assert calls


class Attend(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = None

    def forward(self, query, keys):
        if self.inside is not None:
            self.inside(query)
        return torch.softmax(query @ keys.transpose(-1, -2), -1) @ keys


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.t, self.a, self.attend, self.head = nn.Linear(6, 4), nn.Linear(5, 4), Attend(), nn.Linear(4, 2)

    def forward(self, text, audio, umask):
        return self.head(self.attend(self.t(text), self.a(audio)))


def test_what_another_thread_runs_meanwhile_is_not_traced(batch):
    model = make(Attending)
    expected = fusionzoo.find_sites(model, *batch)[0].to_dict()

    def meanwhile(query):
        model.attend.inside = None
        together(lambda: model.attend(query[:2], query[:2]))
        model.attend.inside = meanwhile

    model.attend.inside = meanwhile
    found = fusionzoo.find_sites(model, *batch)[0]
    assert found.kind == "cross-attention"
    assert found.to_dict() == expected
