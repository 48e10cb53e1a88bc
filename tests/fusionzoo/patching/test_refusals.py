"""What `find_sites`, `patch`, `load_patch` and `InputSite` refuse, in words, whatever odd thing they are given."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from zoo.wrapped import MASK, Early, Host, call_of, make, patched

import fusionzoo
from fusionzoo.errors import CheckpointError, FusionZooError, OptionError, PatchError


class Bare(nn.Module):
    """Joins two arguments, whatever they are."""

    def forward(self, text, audio):
        return torch.cat([text, audio], -1)


ARGUMENTS = {
    "site of another model": {"site": lambda s: replace(s, path="x.y")},
    "site by a truth value": {"site": lambda s: True},
    "site by half a line": {"site": lambda s: f"{s.line % 10}"},
    "site by nothing": {"site": lambda s: ""},
    "sites": {"site": lambda s: [s]},
    "mode": {"mode": 3},
    "layout": {"layout": ("B", "T", "d")},
    "context": {"context": {"mask": MASK}},
    "context that raises": {"fusion": "lmam", "context": lambda *_: 1 / 0},
    "context of two arguments": {"fusion": "lmam", "context": lambda model, args: {}},
    "context of another shape": {"fusion": "lmam", "context": lambda *_: {"mask": MASK.T}},
    "modalities, a number": {"modalities": 3},
    "modalities, one text": {"modalities": "text"},
    "modalities in no order": {"modalities": {"text", "audio"}},
    "modalities, numbers": {"modalities": [1, 2]},
    "modalities, nameless": {"modalities": ["", "audio"]},
    "modalities, methods": {"modalities": ["keys", "audio"]},
    "modalities, a path": {"modalities": ["te.xt", "audio"]},
    "modalities, twice": {"modalities": ["text", "text"]},
    "modalities of numbered arguments": {"modalities": {0: "text", 1: "audio"}},
    "modalities as numbers": {"modalities": {"text": 1, "audio": 2}},
    "widths that are no numbers": {"modalities": {"text": {"a": "x"}}},
    "widths below one": {"modalities": {"text": {"a": -1, "b": 7}}},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_of_patch_is_refused(batch, name):
    model = make()
    plain, known = model(*batch), set(vars(model))
    given = {"fusion": "gated", "inputs": batch, **ARGUMENTS[name]}
    if "site" in given:
        given["site"] = given["site"](fusionzoo.find_sites(model, *batch)[0])
    with pytest.raises(PatchError) as refused:
        fusionzoo.patch(model, **given)
    assert len(str(refused.value)) > 30
    assert torch.equal(model(*batch), plain)
    assert set(vars(model)) == known


@pytest.mark.parametrize(
    "options",
    [
        {"arg": 1.5},
        {"arg": ""},
        {"arg": "joined["},
        {"arg": "joined.x"},
        {"arg": "umask", "widths": {"t": 2, "a": 3}},
        {"widths": [6, 5]},
        {"widths": {"t": 6.0, "a": 5}},
        {"widths": {0: 6, 1: 5}},
        {"widths": {"t": 6, "a": 6}},
        {"widths": {"all": 11}},
        {"layout": 3},
        {"path": 3},
        {"dtype": "nope"},
        {"device": "nope"},
        {"context": "umask"},
        {"context": ("umask", "masked")},
        {"context": ("umask[", "mask")},
        {"context": ("nope", "mask")},
        {"context": (0, "mask")},
    ],
    ids=str,
)
def test_a_site_of_the_input_is_refused(batch, options):
    model, call = make(Early), call_of(Early, batch)

    def put():
        site = fusionzoo.InputSite(**{"arg": "joined", "widths": {"t": 6, "a": 5}, "layout": "(B, T, d)", **options})
        fusionzoo.patch(model, "lmam", site, inputs=call)

    with pytest.raises(PatchError):
        put()
    assert set(vars(model)) == set(vars(make(Early)))


def test_what_an_input_site_says_of_its_context_is_kept(batch):
    class Steps(Early):
        def forward(self, joined, steps):
            return super().forward(joined, steps)

    site = fusionzoo.InputSite("joined", {"t": 6, "a": 5}, context=("steps", "mask"), dtype=torch.float32)
    patch = fusionzoo.patch(make(Steps), "lmam", site, inputs=call_of(Early, batch), layout="(B, T, d)")
    assert "mask from the argument steps" in patch.summary()
    assert patch.proof.holds("padding stays unseen")


@pytest.mark.parametrize(
    "tensors",
    [
        lambda x: (x.to_sparse(), x.to_sparse()),
        lambda x: (x.to("meta"), x.to("meta")),
        lambda x: (x.to(torch.float8_e4m3fn), x.to(torch.float8_e4m3fn)),
        lambda x: (x.to(torch.complex64), x.to(torch.complex64)),
        lambda x: (x[:0], x[:0]),
        lambda x: (x[0, 0], x[1, 1]),
        lambda x: (x.long(), x.long()),
        lambda x: (torch.nested.nested_tensor([x, x[:2]], layout=torch.jagged),) * 2,
        lambda x: (None, None),
        lambda x: (x.numpy(), x.numpy()),
    ],
    ids=["sparse", "meta", "eight bits", "complex", "empty", "numbers", "integers", "nested", "none", "numpy"],
)
def test_tensors_that_no_fusion_can_take_are_refused(tensors):
    with pytest.raises(PatchError):
        fusionzoo.patch(Bare(), "gated", inputs=tensors(torch.randn(3, 4)))


def test_a_sparse_argument_is_no_stream(batch):
    class Graph(Host):
        def forward(self, text, audio, umask, g):
            return super().forward(text, audio, umask) + torch.sparse.mm(g, text.new_ones(3, 3)).sum()

    graph = torch.eye(3).to_sparse()
    assert fusionzoo.find_sites(make(Graph), *batch, graph)[0].modalities == ("text", "audio")


@pytest.mark.parametrize("fusion", [None, ("lmam",), ("lmam", 3), {"nam": "lmam"}, nn.Linear(2, 2), object()])
def test_what_is_no_fusion_is_refused_as_it_is_elsewhere(batch, fusion):
    with pytest.raises(OptionError, match="a mapping"):
        fusionzoo.patch(make(), fusion, inputs=batch)


def test_files_that_are_none(batch, shake, tmp_path):
    _, patch = patched(Host, batch, shake)
    path = patch.save(tmp_path / "p.safetensors")
    for wrong in (3, None, b"p"):
        with pytest.raises(PatchError, match="give its path"):
            fusionzoo.load_patch(make(), wrong)
    with pytest.raises(PatchError, match="give its path"):
        patch.save(3)
    with pytest.raises(PatchError, match="context= is a function"):
        fusionzoo.load_patch(make(), path, context=MASK)
    for wrong in (3, dict.fromkeys(patch.state_dict(), "x")):
        with pytest.raises(CheckpointError, match="mapping of names to tensors"):
            patch.load_state_dict(wrong)
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(FusionZooError):
            fusionzoo.load_patch(make(), wrong)


def test_what_the_model_itself_raises_is_said_to_be_its_own(batch):
    text, audio, mask = batch
    for call in (lambda: fusionzoo.find_sites(make(), audio, text, mask),
                 lambda: fusionzoo.patch(make(), "gated", inputs=(audio, text, mask))):  # fmt: skip
        with pytest.raises(RuntimeError, match="cannot be multiplied") as raised:
            call()
        assert raised.value.__notes__[0].startswith("raised while Host was run with (tensor [3, 5, 5]")


@pytest.mark.parametrize("kind", ["cat", "stack", "rows"])
def test_arguments_named_as_a_modules_own_methods(kind):
    class Net(nn.Module):
        def forward(self, keys, values):
            if kind == "stack":
                return torch.stack([keys, values])
            return torch.cat([keys, values], -1) if kind == "cat" else torch.cat([keys[:, None], values[:, None]], 1)

    model, call = Net(), (torch.randn(3, 4), torch.randn(3, 4))
    plain = model(*call)
    patch = fusionzoo.patch(model, "gated", inputs=call)
    assert patch.site.kind == kind
    assert patch.site.modalities == ("keys_stream", "values_stream")
    assert torch.equal(model(*call), plain)


class Keys(dict):
    """Attributes are keys, and a missing one is a KeyError."""

    __getattr__ = dict.__getitem__


def test_what_a_model_holds_may_raise_when_it_is_asked():
    class Configured(nn.Module):
        def __init__(self):
            super().__init__()
            self.options = Keys(classes=2)
            self.t, self.a, self.head = nn.Linear(6, 8), nn.Linear(5, 8), nn.Linear(16, self.options.classes)

        def joined(self, t, a):
            return torch.cat([self.t(t), self.a(a)], -1)

        def forward(self, text, audio):
            return self.head(self.joined(text, audio))

    torch.manual_seed(0)
    model, batch = Configured(), (torch.randn(4, 6), torch.randn(4, 5))
    expected = model(*batch)
    patch = fusionzoo.patch(model, "lmam", inputs=batch)
    assert torch.equal(model(*batch), expected)
    patch.remove()
    assert torch.equal(model(*batch), expected)
