"""Patch files from a stranger: nothing that they name is run, nothing that they claim is believed."""

from __future__ import annotations

import json
import struct
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo.errors import CheckpointError, FusionZooError, HostChangedError


def helper(text, audio):
    return torch.cat([text, audio], -1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 2)

    @property
    def trap(self):
        raise SystemExit("a property was looked up")

    def __getattr__(self, name):
        if name == "conjured":
            raise SystemExit("an attribute was conjured up")
        return super().__getattr__(name)

    def forward(self, text, audio):
        return self.head(helper(text, audio))


@pytest.fixture
def saved(tmp_path) -> Path:
    model, batch = Net(), (torch.randn(2, 4), torch.randn(2, 2))
    return fusionzoo.patch(model, "gated", inputs=batch).save(tmp_path / "p.safetensors")


def rewrite(path: Path, change) -> Path:
    """Change the metadata in a patch file, weights and all else as they are."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    meta = json.loads(header["__metadata__"]["fusionzoo_patch"])
    changed = change(meta)
    header["__metadata__"]["fusionzoo_patch"] = json.dumps(changed if isinstance(changed, list) else meta)
    data = json.dumps(header).encode()
    data += b" " * (-len(data) % 8)
    path.write_bytes(struct.pack("<Q", len(data)) + data + raw[8 + length :])
    return path


def test_the_file_as_it_was_written_loads(saved):
    patch = fusionzoo.load_patch(Net(), rewrite(saved, lambda meta: None))
    assert [s.qualname for s in patch.site.steps] == ["Net.forward", "helper"]


@pytest.mark.parametrize("name", ["strangers.part", "strangers", "strangers.part.deep"])
def test_a_module_that_the_file_names_is_not_imported(saved, tmp_path, monkeypatch, name):
    (tmp_path / "strangers").mkdir()
    (tmp_path / "strangers" / "__init__.py").write_text(
        "import pathlib; pathlib.Path(__file__).with_name('ran').touch()"
    )
    (tmp_path / "strangers" / "part.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))

    def change(meta):
        for step in meta["site"]["steps"]:
            step.update(module=name, qualname="no_function_has_this_name", file=str(tmp_path / "strangers" / "part.py"))

    with pytest.raises(HostChangedError, match="is no function that this Net is made of"):
        fusionzoo.load_patch(Net(), rewrite(saved, change))
    assert not (tmp_path / "strangers" / "ran").exists()
    assert name not in sys.modules


def test_a_loaded_module_of_others_is_not_looked_into(saved, monkeypatch):
    class Lazy(types.ModuleType):
        def __getattr__(self, name):
            raise SystemExit(f"{name} was looked up")

    monkeypatch.setitem(sys.modules, "lazy_stranger", Lazy("lazy_stranger"))

    def change(meta):
        for step in meta["site"]["steps"]:
            step.update(module="lazy_stranger", qualname="Net.nothing")

    with pytest.raises(HostChangedError):
        fusionzoo.load_patch(Net(), rewrite(saved, change))


@pytest.mark.parametrize("kind", ["input", "nothing", ""])
def test_a_kind_of_join_that_there_is_not_is_refused(saved, kind):
    with pytest.raises(CheckpointError, match=r"site\.kind: expected one of cat, rows"):
        fusionzoo.load_patch(Net(), rewrite(saved, lambda meta: meta["site"].update(kind=kind)))


@pytest.mark.parametrize("path", ["trap", "conjured", "head.weight", "__class__", "head.__init__"])
def test_an_attribute_that_the_file_names_is_not_looked_up(saved, path):
    with pytest.raises(HostChangedError, match="has none"):
        fusionzoo.load_patch(Net(), rewrite(saved, lambda meta: meta["site"].update(path=path)))


def test_a_file_that_the_file_names_is_not_read(saved, monkeypatch):
    import linecache

    asked: list[str] = []
    lines = linecache.getlines
    monkeypatch.setattr(linecache, "getlines", lambda name, *rest: asked.append(name) or lines(name, *rest))

    def change(meta):
        for step in meta["site"]["steps"]:
            step["file"] = "/dev/zero"
        meta["site"]["file"] = "/dev/zero"

    fusionzoo.load_patch(Net(), rewrite(saved, change))  # the function is known by its text, wherever the file lay
    assert asked
    assert "/dev/zero" not in asked


def test_functions_that_the_model_reaches_by_its_modules_are_found(tmp_path, monkeypatch):
    (tmp_path / "reached_helpers.py").write_text("import torch\ndef join(a, b):\n    return torch.cat([a, b], -1)\n")
    (tmp_path / "reached_host.py").write_text(
        "import reached_helpers as h\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.head = nn.Linear(6, 2)\n"
        "    def forward(self, text, audio):\n        return self.head(h.join(text, audio))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import reached_host  # pyright: ignore[reportMissingImports]

    try:
        batch = (torch.randn(2, 4), torch.randn(2, 2))
        path = fusionzoo.patch(reached_host.Net(), "gated", inputs=batch).save(tmp_path / "p.safetensors")
        assert fusionzoo.load_patch(reached_host.Net(), path).site.steps[-1].qualname == "join"
    finally:
        for name in ("reached_host", "reached_helpers"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(mode="other"), "mode: expected 'residual' or 'replace'"),
        (lambda m: m.update(digests=[]), "digests: expected 2"),
        (lambda m: m.update(digests=[1, 2]), r"digests\.0: expected a text"),
        (lambda m: m.update(context={"path": "x", "form": "evil"}), "form: expected 'lengths'"),
        (lambda m: m.update(context=[1]), "context: expected"),
        (lambda m: m.update(site=[]), "site: expected a mapping"),
        (lambda m: m["site"].update(dtype="load"), "site: dtype: expected 'float32'"),
        (lambda m: m["site"].update(device="cuda" * 100), "site: device: expected a text of length"),
        (lambda m: m["site"].update(layout="(d)"), "site: layout: expected"),
        (lambda m: m["site"].update(groups={"text": [7]}), r"site\.groups: 7 points at nothing"),
        (lambda m: m["site"].update(groups={"text": []}), r"site\.groups: 'text' points at nothing"),
        (lambda m: m["site"].update(feature_axis=9), r"site\.feature_axis: 9 points at nothing"),
        (lambda m: m["site"]["steps"].clear(), "steps: expected a list of length from 1 to 100"),
        (lambda m: m["site"].update(steps=m["site"]["steps"] * 1000), "steps: expected a list of length"),
        (lambda m: m["site"]["steps"][0].update(line=10**12), r"steps\.0\.line: expected a whole number"),
        (lambda m: m["site"]["operands"][0].update(shape=[10**12]), r"operands\.0\.shape\.0: expected"),
        (lambda m: m["site"].update(score=float("nan")), "NaN, which is no number"),
        (lambda m: m["fusion"]["arguments"]["dims"].update(text=10**12), r"fusion\.arguments\.dims\.text: expected"),
        (lambda m: m["fusion"]["arguments"].update(nonesuch=1), "has no option 'nonesuch'"),
        (lambda m: m["fusion"].update(name=["gated"]), "fusion.name: expected a text"),
        (lambda m: m.update(format=2), "reads format 1"),
        (lambda m: [m], "expected a mapping"),
    ],
)
def test_odd_values_are_refused_in_words(saved, change, message):
    with pytest.raises(CheckpointError, match=message):
        fusionzoo.load_patch(Net(), rewrite(saved, change))


def test_a_fusion_of_another_distribution_is_neither_imported_nor_taken(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "stranger_dist", None)

    def change(meta):
        meta["fusion"].update(distribution="stranger-dist", module="stranger_dist", target="stranger_dist:run")

    with pytest.raises(CheckpointError, match="needs the fusion 'gated' from stranger-dist"):
        fusionzoo.load_patch(Net(), rewrite(saved, change))


def test_a_fusion_much_larger_than_its_weights_is_not_built(saved):
    def change(meta):
        meta["fusion"]["arguments"]["dims"] = {"text": 10**6, "audio": 10**6}
        meta["fusion"]["arguments"]["out_dim"] = 10**6  # a million times a million numbers are 4 TB

    with pytest.raises(CheckpointError, match=r"far larger than the weights|cannot be built"):
        fusionzoo.load_patch(Net(), rewrite(saved, change))


def test_a_header_that_lies_about_its_size_is_refused(saved, tmp_path):
    for length in (0, 2**40, 2**63):
        (tmp_path / "lies").write_bytes(struct.pack("<Q", length) + b"{}" * 100)
        with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
            fusionzoo.load_patch(Net(), tmp_path / "lies")
    with pytest.raises(CheckpointError, match="is a folder"):
        fusionzoo.load_patch(Net(), tmp_path)


def test_a_refused_file_leaves_the_model_as_it_was(saved):
    model = Net()
    names = [n for n, _ in model.named_modules()]
    with pytest.raises(FusionZooError):
        fusionzoo.load_patch(model, rewrite(saved, lambda meta: meta["site"].update(dtype="x")))
    assert [n for n, _ in model.named_modules()] == names
    assert "forward" not in vars(model)
