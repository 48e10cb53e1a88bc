"""Saved models: what is written, that it comes back the same, and that a file can neither run nor import anything."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import sys
import types

import pytest
import torch

import fusionzoo
from fusionzoo import Batch, Fusion, Host
from fusionzoo.errors import CheckpointError
from fusionzoo.fusion import Fused
from fusionzoo.specs import Spec

DIMS = {"text": 8, "audio": 5, "visual": 3}
FILES = {"model.safetensors", "config.json", "README.md"}


def streams(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.randn(2, 4, d, generator=generator) for m, d in DIMS.items()}


def batch():
    mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    labels = torch.where(mask, 1, -100)
    return Batch(streams(), mask, torch.zeros(2, 4, dtype=torch.long), labels, ["a", "b"])


def edit(folder, **changes):
    """Change config.json as an attacker, or another version, would."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def saved(tmp_path):
    return fusionzoo.get("gated")(DIMS, 6, width=4).save_pretrained(tmp_path / "saved")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    from fusionzoo.runs.config import RunConfig

    folder = tmp_path_factory.mktemp("run") / "run"
    small = ["training.epochs=1", "data.dialogues=[6,3,3]", "data.length=[3,5]", "host.hidden=6", "host.layers=1"]
    config = RunConfig.from_sources(sets=[*small, "fusion.width=8"], data="demo", host="bc-lstm", fusion="gated")
    fusionzoo.train(config, folder, quiet=True)
    return folder


# -- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fusionzoo.names())
def test_every_fusion_comes_back_the_same(name, tmp_path):
    fusion = fusionzoo.get(name)(DIMS, 6, missing="learned").eval()
    folder = fusion.save_pretrained(tmp_path / "f")
    assert {p.name for p in folder.iterdir()} == FILES
    again = Fusion.from_pretrained(folder)
    assert type(again) is type(fusion)
    assert not again.training
    assert torch.equal(again(streams()), fusion(streams()))
    assert repr(again) == repr(fusion)


@pytest.mark.parametrize("name", fusionzoo.names("host"))
@pytest.mark.parametrize("fusion", ["concat", ("gated", {"width": 4}), "instance"])
def test_every_host_comes_back_the_same(name, fusion, tmp_path):
    placement = "early" if "early" in fusionzoo.card(name, "host").placements else None
    if fusion == "instance" and placement is None:
        fusion = "sum"  # the widths that an instance would need are the host's own business
    if fusion == "instance":
        host = fusionzoo.get(name, "host")(DIMS, 3, 2, fusion="gated", placement=placement)
        width = next(m for m in host.modules() if isinstance(m, Fusion)).out_dim
        fusion = fusionzoo.get("lmam")(DIMS, width, rank=2)
    host = fusionzoo.get(name, "host")(DIMS, 3, 2, fusion=fusion, placement=placement).eval()
    again = Host.from_pretrained(host.save_pretrained(tmp_path / "h"))
    assert torch.equal(again(batch()).logits, host(batch()).logits)
    assert torch.equal(
        Host.from_pretrained(again.save_pretrained(tmp_path / "again"))(batch()).logits, host(batch()).logits
    )


@pytest.mark.parametrize("name", fusionzoo.names("host"))
@pytest.mark.parametrize("prefix", ["", "fusionzoo:"])
def test_every_host_comes_back_the_same_with_the_fusion_that_it_was_published_with(name, prefix, tmp_path):
    cls = fusionzoo.get(name, "host")
    published = inspect.signature(cls).parameters["fusion"].default
    host = cls(DIMS, 3, 2, fusion=prefix + published).eval()
    again = Host.from_pretrained(host.save_pretrained(tmp_path / "h"))
    assert torch.equal(again(batch()).logits, host(batch()).logits)
    shapes = {k: v.shape for k, v in cls(DIMS, 3, 2, fusion=published).state_dict().items()}
    assert {k: v.shape for k, v in again.state_dict().items()} == shapes
    assert repr(again).startswith(f"{cls.__name__}(\n  {DIMS} -> 3 classes, 2 speakers")


def test_a_run_folder_is_loaded_and_published_with_its_scores(run_folder, tmp_path):
    host = Host.from_pretrained(run_folder)
    assert host.label_names == ("happy", "sad", "neutral", "angry", "excited", "frustrated")
    folder = host.save_pretrained(tmp_path / "h", run=run_folder)
    again = Host.from_pretrained(folder)
    assert again.label_names == host.label_names
    for a, b in zip(host.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    result = json.loads((run_folder / "result.json").read_text())
    card = (folder / "README.md").read_text()
    assert f"| test | {result['test']['weighted_f1']:.4f} |" in card
    assert "chosen on the dev split" in card
    assert "too high" not in card


def test_scores_chosen_on_the_test_split_are_called_too_high(run_folder, tmp_path):
    chosen = tmp_path / "run"
    chosen.mkdir()
    for name in ("model.json", "result.json"):
        (chosen / name).write_text((run_folder / name).read_text().replace('"selection": "dev"', '"selection": "test"'))
    folder = Host.from_pretrained(run_folder).save_pretrained(tmp_path / "h", run=chosen)
    assert "**The test scores below are therefore too high**" in (folder / "README.md").read_text()


def test_scores_of_another_model_are_refused(run_folder, tmp_path):
    other = fusionzoo.get("dialogue-gcn", "host")(DIMS, 3, 2)
    with pytest.raises(CheckpointError, match="trained the host 'bc-lstm', not 'dialogue-gcn'"):
        other.save_pretrained(tmp_path / "h", run=run_folder)
    with pytest.raises(CheckpointError, match="not the folder of a finished run"):
        other.save_pretrained(tmp_path / "h", run=tmp_path)


def test_the_order_of_modalities_survives_tools_that_sort_keys(saved):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert Fusion.from_pretrained(saved).names == ("text", "audio", "visual")


def test_defaults_are_written_down_so_that_later_defaults_change_nothing(saved):
    assert json.loads((saved / "config.json").read_text())["arguments"] == {
        "dims": DIMS,
        "out_dim": 6,
        "width": 4,
        "missing": "zero",
    }


def test_the_defaults_of_a_hosts_fusion_are_written_down_too(tmp_path):
    host = fusionzoo.get("bc-lstm", "host")(DIMS, 3, 2, fusion=("gated", {"width": 4}))
    config = json.loads((host.save_pretrained(tmp_path / "h") / "config.json").read_text())
    assert config["arguments"]["fusion"]["options"] == {"width": 4, "missing": "zero"}


def test_copies_and_pickles_can_be_saved_too(tmp_path):
    fusion = fusionzoo.get("sum")(DIMS, 6)
    for again in (copy.deepcopy(fusion), pickle.loads(pickle.dumps(fusion))):
        assert again.save_pretrained(tmp_path / "f").is_dir()
    mutated = [8, 5]
    fusion = fusionzoo.get("sum")(mutated)
    mutated[0] = 99
    assert list(Fusion.from_pretrained(fusion.save_pretrained(tmp_path / "g")).dims.values()) == [8, 5]


# -- the card ---------------------------------------------------------------------------------------------------------


def test_the_card_is_one_that_the_hub_can_read(run_folder, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    folder = Host.from_pretrained(run_folder).save_pretrained(tmp_path / "h", run=run_folder)
    data = huggingface_hub.ModelCard.load(folder / "README.md").data
    assert data.library_name == "fusionzoo"
    assert data.model_name == "bc-lstm with gated"
    assert {r.metric_type for r in data.eval_results} == {"weighted_f1", "macro_f1", "ua", "wa"}


def test_the_card_names_plugin_paper_and_citation(saved):
    card = (saved / "README.md").read_text()
    for text in (
        "`gated` of fusionzoo",
        "Arevalo",
        "text (8), audio (5), visual (3)",
        "fusionzoo.Fusion.from_pretrained",
    ):
        assert text in card


def test_an_edited_card_is_kept_and_an_own_one_is_renewed(saved):
    fusion = Fusion.from_pretrained(saved)
    (saved / "README.md").write_text((saved / "README.md").read_text().replace("# gated", "# stale"))
    fusion.save_pretrained(saved)
    assert "# stale" not in (saved / "README.md").read_text()
    (saved / "README.md").write_text("# my words\n")
    fusion.save_pretrained(saved)
    assert (saved / "README.md").read_text() == "# my words\n"


# -- plugins that are not there ---------------------------------------------------------------------------------------


@pytest.fixture
def notebook(monkeypatch):
    """A fusion that is registered by hand, as in a notebook; forgotten afterwards."""
    from fusionzoo._registry import registry

    class Mine(Fusion):
        def __init__(self, dims, out_dim=None, *, weight=None, missing="zero"):
            super().__init__(dims, out_dim, missing=missing)
            self.set_width(sum(self.dims.values()))

        def combine(self, streams):
            return Fused(torch.cat(streams.x, -1))

    module = types.ModuleType("notebook_mine")
    Mine.__module__, Mine.__qualname__, module.Mine = module.__name__, "Mine", Mine

    @fusionzoo.hookimpl
    def fusionzoo_register(register):
        register(Spec(name="mine", kind="fusion", target="notebook_mine:Mine", summary="mine"))

    module.fusionzoo_register = fusionzoo_register
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def forget():
        registry._local = [p for p in registry._local if p.name != "mine"]
        registry._specs.pop(("fusion", "(local):mine"), None)
        registry._module_specs.pop(module.__name__, None)
        if registry._manager.is_registered(module):
            registry._manager.unregister(module)
        registry.refresh()

    yield Mine, module, forget
    forget()


def test_unregistered_classes_cannot_be_saved(notebook, tmp_path):
    cls, module, _ = notebook
    with pytest.raises(CheckpointError, match="is not registered as a fusion"):
        cls(DIMS).save_pretrained(tmp_path / "f")
    fusionzoo.register(module)
    assert cls(DIMS).save_pretrained(tmp_path / "f")


def test_what_was_registered_by_hand_is_asked_for(notebook, tmp_path):
    cls, module, forget = notebook
    fusionzoo.register(module)
    folder = cls(DIMS).save_pretrained(tmp_path / "f")
    assert type(Fusion.from_pretrained(folder)) is cls
    forget()
    with pytest.raises(CheckpointError, match=r"fusion 'mine' .* fusionzoo.register"):
        Fusion.from_pretrained(folder)


def test_options_that_are_not_plain_values_are_named(notebook, tmp_path):
    cls, module, _ = notebook
    fusionzoo.register(module)
    with pytest.raises(CheckpointError, match="weight of type Tensor"):
        cls(DIMS, weight=torch.ones(2)).save_pretrained(tmp_path / "f")


def test_a_missing_plugin_is_named_with_distribution_and_version_and_not_imported(saved, monkeypatch):
    trap = types.ModuleType("fz_absent")
    monkeypatch.setitem(sys.modules, "fz_absent", trap)
    edit(saved, name="absent", distribution="fz-absent", version="1.2", module="fz_absent", target="os:system")
    before = set(sys.modules)
    with pytest.raises(
        CheckpointError, match=r"needs the fusion 'absent' from fz-absent 1.2, .*pip install fz-absent==1.2"
    ):
        Fusion.from_pretrained(saved)
    assert set(sys.modules) == before


def test_the_same_name_from_another_distribution_is_not_taken_for_it(saved):
    edit(saved, distribution="fz-other", version="3")
    with pytest.raises(
        CheckpointError, match=r"fz-other 3, which is not installed \('gated' of fusionzoo is another plugin\)"
    ):
        Fusion.from_pretrained(saved)


@pytest.mark.parametrize("distribution", ["x; rm -rf ~", "--index-url=evil", "", "a b"])
def test_a_command_is_never_made_of_odd_names(saved, distribution):
    edit(saved, name="absent", distribution=distribution)
    with pytest.raises(CheckpointError, match="do not trust this file") as error:
        Fusion.from_pretrained(saved)
    assert "pip install" not in str(error.value)


@pytest.mark.parametrize("name", ["os:system", "fusionzoo_plugins.gated:Gated", "../gated"])
def test_names_are_looked_up_and_never_imported(saved, name):
    edit(saved, name=name)
    with pytest.raises(CheckpointError, match="which is not installed"):
        Fusion.from_pretrained(saved)


def test_a_hosts_missing_fusion_is_named_too(tmp_path):
    folder = fusionzoo.get("bc-lstm", "host")(DIMS, 3, 2).save_pretrained(tmp_path / "h")
    config = json.loads((folder / "config.json").read_text())
    config["arguments"]["fusion"] |= {"name": "absent", "distribution": "fz-absent", "version": "4"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="needs the fusion 'absent' from fz-absent 4"):
        Host.from_pretrained(folder)


# -- damaged and foreign folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"library": "other"}, "does not hold a fusionzoo model"),
        ({"kind": "objective"}, "does not hold a fusionzoo model"),
        ({"name": 3}, "name: expected a text, got 3"),
        ({"format": 2}, "update fusionzoo"),
        ({"api": 99}, "plugin API 99; update fusionzoo"),
        ({"arguments": {"dims": DIMS, "nonesuch": 1}}, "no option 'nonesuch'"),
        ({"arguments": {}}, "arguments: expected the key 'dims', got nothing"),
        ({"arguments": [1]}, "arguments: expected a mapping"),
        ({"modalities": ["text", "smell"]}, "cannot be built"),
        ({"arguments": {"dims": DIMS, "out_dim": 7}}, "belong to another model"),
    ],
)
def test_configs_that_make_no_sense_are_refused(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        Fusion.from_pretrained(saved)


def test_folders_without_a_model_are_refused(saved, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match=r"neither config.json nor model.json"):
        Fusion.from_pretrained(empty)
    (saved / "model.safetensors").write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        Fusion.from_pretrained(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="there is no model"):
        Fusion.from_pretrained(saved)
    (saved / "config.json").write_text("[1")
    with pytest.raises(CheckpointError, match="is not valid JSON"):
        Fusion.from_pretrained(saved)


def test_pickles_are_never_read(saved):
    """A pickle beside it, under the name that other libraries fall back to, is not even opened."""
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(CheckpointError, match="there is no model"):
        Fusion.from_pretrained(saved)


def test_the_class_has_to_fit(saved, tmp_path):
    with pytest.raises(CheckpointError, match="holds a fusion; load it with"):
        Host.from_pretrained(saved)
    assert type(fusionzoo.get("gated").from_pretrained(saved)).__name__ == "Gated"
    with pytest.raises(CheckpointError, match=r"holds a Gated \(gated\), not a Sum"):
        fusionzoo.get("sum").from_pretrained(saved)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is a file"):
        Fusion.from_pretrained(saved).save_pretrained(tmp_path / "file")


# -- the hub ----------------------------------------------------------------------------------------------------------


def test_push_uploads_what_save_writes(monkeypatch, run_folder):
    hub_mixin = pytest.importorskip("huggingface_hub.hub_mixin")
    calls = {}

    class Api:
        def __init__(self, token=None):
            calls["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            calls["repo"] = (repo_id, private, exist_ok)
            return types.SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id, folder_path, **options):
            calls["files"] = {p.name: p.read_text() for p in folder_path.iterdir() if p.suffix != ".safetensors"}
            calls["names"] = {p.name for p in folder_path.iterdir()}
            calls["revision"] = options["revision"]
            return f"commit of {repo_id}"

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    host = Host.from_pretrained(run_folder)
    address = host.push_to_hub("me/mine", run=run_folder, private=True, token="t", branch="b")
    assert address == "commit of me/mine"
    assert (calls["repo"], calls["token"], calls["revision"]) == (("me/mine", True, True), "t", "b")
    assert calls["names"] == FILES
    assert json.loads(calls["files"]["config.json"])["name"] == "bc-lstm"
    assert "## Scores" in calls["files"]["README.md"]


def test_repositories_are_fetched_file_by_file(monkeypatch, saved, run_folder):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub.errors import EntryNotFoundError

    asked = []
    folder = saved

    def download(repo, name, **options):
        asked.append((repo, name, options["revision"]))
        if not (folder / name).exists():
            raise EntryNotFoundError(f"no {name}")
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert Fusion.from_pretrained("me/mine", revision="v1").width == 4
    assert asked == [("me/mine", "config.json", "v1"), ("me/mine", "model.safetensors", "v1")]
    folder = run_folder
    assert Host.from_pretrained("me/run").label_names
    folder = saved.parent
    with pytest.raises(
        CheckpointError, match=r"'me/none' holds no saved model: there is neither config.json nor model.json"
    ):
        Fusion.from_pretrained("me/none")


def test_what_is_neither_folder_nor_repository_is_said():
    for source in ("nowhere", "a/b/c", "../up", "owner/..", "no such folder"):
        with pytest.raises(CheckpointError, match="neither a folder nor a repository"):
            Fusion.from_pretrained(source)


def test_failed_connections_are_sentences(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def download(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(CheckpointError, match=r"is no folder here, and config.json .* ConnectionError: no route$"):
        Fusion.from_pretrained("me/mine")


def test_layers_do_not_import_the_hub():
    import subprocess

    code = "import sys, fusionzoo; fusionzoo.get('sum'); fusionzoo.get('bc-lstm', 'host'); assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
