"""With one modality no fusion is built, and none is reported: one that came by default is `none`, one that was named is refused."""

from __future__ import annotations

import json

import pytest
import torch

import fusionzoo
from fusionzoo.cli import main
from fusionzoo.data.npz import save_npz
from fusionzoo.errors import ConfigError
from fusionzoo.experiments.cost import bench_hosts
from fusionzoo.experiments.cross_validation import cross_validate
from fusionzoo.experiments.grid import compare
from fusionzoo.experiments.reproduction import read_card, reproduce_card
from fusionzoo.experiments.saved_runs import evaluate, predict
from fusionzoo.experiments.single_run import train
from fusionzoo.runs.config import FusionConfig, RunConfig
from fusionzoo.runs.models import check_fusion_built

FEW = {"data": {"source": "demo", "dialogues": [12, 3, 3], "length": [2, 5], "modalities": ["text"]}}
SMALL = {**FEW, "host": {"name": "bc-lstm", "hidden": 4, "head_width": 8}, "training": {"epochs": 1, "keep": 0}}
REFUSED = r"one modality \(text\).*'{}' would not be built.*--fusion none"


def config(**sections) -> RunConfig:
    return RunConfig.from_sources({**SMALL, **sections}, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one modality whose fusion came by default."""
    return train(config(), tmp_path_factory.mktemp("runs") / "text", quiet=True)


def every_word(folder) -> str:
    return "\n".join(p.read_text("utf-8") for p in folder.rglob("*") if p.suffix in (".json", ".yaml", ".html", ".md"))


def test_a_default_fusion_is_none_in_everything_that_a_run_leaves(finished):
    folder = finished.folder
    assert "bc-lstm, no fusion: one modality, seed 0" in str(finished)
    assert finished.result["fusion"] == "none"
    model = json.loads((folder / "model.json").read_text("utf-8"))
    assert (model["fusion"], "fusion" in model["providers"]) == ("none", False)
    assert RunConfig.load(folder / "config.yaml").fusion.name == "none"
    assert read_card(folder)["config"]["fusion"] == {"name": "none"}
    assert "no fusion: one modality" in (folder / "report.html").read_text("utf-8")
    assert "concat" not in every_word(folder)


@pytest.mark.parametrize("fusion", [{"name": "gated"}, {"name": "concat"}, {"missing": "learned"}])
def test_a_fusion_that_was_asked_for_is_refused_before_anything_is_written(fusion, tmp_path):
    asked = config(fusion=fusion)
    words = REFUSED.format(fusion.get("name", "concat"))
    for door in (
        lambda: train(asked, tmp_path / "run", quiet=True),
        lambda: cross_validate(asked, tmp_path / "folds", 2, quiet=True),
        lambda: compare(asked, tmp_path / "compare", seeds=1, quiet=True),
        lambda: bench_hosts([asked], fusionzoo.data.load(**{**FEW["data"], "source": "demo"}), repeats=1),
    ):
        with pytest.raises(ConfigError, match=words):
            door()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=REFUSED.format("gated")):
        train(RunConfig(config().data, config().host, FusionConfig("gated")), tmp_path / "python", quiet=True)


def test_none_is_a_choice_where_nothing_can_be_fused_and_nowhere_else(tmp_path):
    assert train(config(fusion={"name": "none"}), tmp_path / "run", quiet=True).result["fusion"] == "none"
    with pytest.raises(ConfigError, match=r"takes no such key|unknown configuration key 'fusion.rank'"):
        RunConfig.from_sources({**SMALL, "fusion": {"name": "none", "rank": 3}})
    two = {**SMALL, "data": {**FEW["data"], "modalities": ["text", "audio"]}, "fusion": {"name": "none"}}
    with pytest.raises(ConfigError, match=r"fuses text, audio and was given no fusion"):
        train(RunConfig.from_sources(two), tmp_path / "two", quiet=True)


def test_a_comparison_names_hosts_alone_and_refuses_fusions(tmp_path):
    done = compare(config(), tmp_path / "hosts", hosts=["bc-lstm", "text-cnn"], seeds=1, quiet=True)
    assert not done.failed
    assert {(r.host, r.fusion) for r in done.rows} == {("bc-lstm", "none"), ("text-cnn", "none")}
    assert "No fusion: one modality" in str(done)
    assert "concat" not in every_word(tmp_path / "hosts")
    with pytest.raises(ConfigError, match=REFUSED.format("concat")):
        compare(config(), tmp_path / "fusions", fusions=["concat", "lmam"], seeds=1, quiet=True)
    assert not (tmp_path / "fusions").exists()


def test_it_goes_on_is_scored_and_done_again(finished, tmp_path):
    assert train(config(), finished.folder, resume=True, quiet=True).result == finished.result
    assert evaluate(finished.folder)["weighted_f1"] == finished.test["weighted_f1"]
    assert predict(finished.folder, out=tmp_path / "p.csv").exists()
    again = reproduce_card(read_card(finished.folder), tmp_path / "again", quiet=True)
    assert not any(again.differences.values())
    folds = cross_validate(config(), tmp_path / "folds", 2, quiet=True)
    assert not folds.failed
    assert "concat" not in every_word(tmp_path / "folds")
    host = fusionzoo.Host.from_pretrained(finished.folder)
    assert host.built_fusion is None
    host.save_pretrained(tmp_path / "model", run=finished.folder)
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert "| its fusion | none: there is one modality |" in card
    assert "concat" not in card + (tmp_path / "model" / "config.json").read_text("utf-8")
    assert fusionzoo.Host.from_pretrained(tmp_path / "model").built_fusion is None


def test_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_npz(fusionzoo.data.load("demo", dialogues=[12, 3, 3], length=[2, 5], modalities=["text"]), "words.npz")
    small = ["--set", "host.hidden=4", "--set", "training.epochs=1"]

    def run(*words):
        with pytest.raises(SystemExit) as leaving:
            main([*words, *(small if words[0] != "bench" else [])])
        return leaving.value.code, "".join(capsys.readouterr())

    assert run("train", "--data", "words.npz", "--quiet")[0] == 0
    assert [p.name for p in (tmp_path / "fusionzoo-runs").iterdir()] == ["bc-lstm__none__seed0"]
    code, said = run("train", "--data", "words.npz", "--fusion", "gated")
    assert (code, "'gated' would not be built" in said) == (2, True)
    assert run("train", "--data", "words.npz", "--fusion", "none", "--out", "explicit", "--quiet")[0] == 0
    assert run("compare", "--data", "words.npz", "--seeds", "2", "--out", "seeds", "--quiet", "--jobs", "1")[0] == 0
    assert (
        run("cross-validate", "--data", "words.npz", "--folds", "2", "--out", "folds", "--quiet", "--jobs", "1")[0] == 0
    )
    code, said = run("compare", "--data", "words.npz", "--hosts", "bc-lstm", "--fusions", "concat,lmam", "--seeds", "1")
    assert (code, "'concat' would not be built" in said) == (2, True)
    code, said = run("bench", "--data", "words.npz", "--hosts", "bc-lstm", "--repeats", "1", "--batch", "2")
    assert (code, "no fusion: one modality" in said, "concat" in said) == (0, True, False)
    assert run("bench", "--data", "words.npz", "--hosts", "bc-lstm", "--fusions", "gated")[0] == 2


@pytest.mark.parametrize("name", fusionzoo.names("host"))
def test_no_host_builds_a_fusion_of_one_modality_and_every_host_builds_one_of_two(name):
    host = fusionzoo.get(name, kind="host")
    alone = host({"text": 8}, 3, 2, fusion="lmam")
    assert alone.built_fusion is None
    assert "no fusion: text alone" in repr(alone)
    for placement in host.placements:
        both = host({"text": 8, "audio": 6}, 3, 2, fusion="gated", placement=placement)
        assert type(both.built_fusion) is fusionzoo.get("gated")
        assert "no fusion" not in repr(both)


class Deaf(fusionzoo.Host):
    """A host that builds no fusion at all."""

    def __init__(self, dims, num_classes, num_speakers, fusion="concat", placement=None):
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        self.head = torch.nn.Linear(sum(self.dims.values()), num_classes)

    def encode(self, features, mask, batch):
        return fusionzoo.HostOutput(self.head(torch.cat(list(features.values()), -1)))


def test_a_host_that_leaves_the_fusion_out_is_found_out():
    two = Deaf({"text": 8, "audio": 6}, 3, 2)
    with pytest.raises(ConfigError, match=r"built no fusion for text, audio, so that 'concat' would be reported"):
        check_fusion_built(two, RunConfig())
    check_fusion_built(two, RunConfig(fusion=FusionConfig("none")))
