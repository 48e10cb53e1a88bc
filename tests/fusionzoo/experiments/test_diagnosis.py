"""Faults that were planted in data and models are exposed by name, and nothing is said of sound ones."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from made_comparison import made_groups
from torch import nn

import fusionzoo
from fusionzoo.cli import main
from fusionzoo.errors import CheckpointError, MissingDependency, OptionError
from fusionzoo.experiments.diagnosis import PARTS
from fusionzoo.experiments.pictures import FORMATS, KINDS, plot
from fusionzoo.fusion import Fused, Fusion
from fusionzoo.reporting.rows import Contestant

MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF-"}


class Blind(Fusion):
    """Adds up all modalities but the visual one."""

    def __init__(self, dims, out_dim=None, *, missing="zero"):
        super().__init__(dims, out_dim, missing=missing)
        self.maps = nn.ModuleList(nn.Linear(d, self.out_dim) for d in list(self.dims.values())[:-1])
        self.set_width(self.out_dim)

    def combine(self, streams):
        maps = zip(self.maps, streams.x, strict=False)
        return Fused(sum((m(x) for m, x in maps)))


@pytest.fixture(scope="module")
def blind():
    name = fusionzoo.register(fusionzoo.plugin(Blind, name="blind", summary="blind"))
    return name[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory, corpus, make_config):
    folder = tmp_path_factory.mktemp("runs") / "run"
    fusionzoo.train(make_config(epochs=1), folder, quiet=True, corpus=corpus)
    return folder


def command(*arguments, status=0):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == status


def words(found):
    return [f.words for f in found.grave]


# -- quick ------------------------------------------------------------------------------------------------------------


def test_planted_leaks_are_named(run, corpus, tmp_path):
    features = corpus.features | {"audio": corpus.features["audio"].copy()}
    features["audio"][:, 3] = corpus.label
    first = corpus.dialogues("train")[0]
    moved = {d.id: "test" if d.id == first.id else str(corpus.split[d.start]) for d in corpus.dialogues()}
    twice = _with_copy(replace(corpus, features=features), first, moved)
    found = fusionzoo.diagnose(run, twice, parts=["leaks"], out=tmp_path, quiet=True)
    assert any(w.startswith("leak: column 3 of audio is made from the labels") for w in words(found))
    assert any("whole dialogue(s) among them" in w and w.startswith("leak:") for w in words(found))
    assert {p.name for p in tmp_path.iterdir()} == {"diagnosis.html", "diagnosis.json", "diagnosis"}
    assert "leak: column 3" in (tmp_path / "diagnosis.html").read_text()
    written = json.loads((tmp_path / "diagnosis.json").read_text())
    assert written["findings"][0] == {"part": "leaks", "words": found.findings[0].words, "grave": True}
    assert (tmp_path / "diagnosis" / "leaks.csv").read_text().startswith("modality,")
    honest = fusionzoo.diagnose(run, corpus, parts=["leaks"], out=tmp_path / "honest", quiet=True)
    assert words(honest) == []


def _with_copy(corpus, dialogue, split):
    """The corpus with a train dialogue once more in its test split, under another name."""
    rows = np.arange(dialogue.start, dialogue.stop)
    order = np.concatenate([np.arange(len(corpus)), rows])
    ids = np.concatenate([corpus.dialogue_id, np.full(len(rows), "again")])
    splits = np.concatenate([corpus.split, np.full(len(rows), "test")])
    return replace(
        corpus,
        features={m: x[order] for m, x in corpus.features.items()},
        present={m: x[order] for m, x in corpus.present.items()},
        dialogue_id=ids,
        utterance_index=corpus.utterance_index[order],
        utterance_id=None,
        speaker=corpus.speaker[order],
        label=corpus.label[order],
        split=splits,
        info={"source": "twice"},
    )


def test_what_cannot_be_looked_at_is_said(run, corpus, tmp_path):
    with pytest.raises(OptionError, match="there is no part 'calibrations'; did you mean 'calibration'"):
        fusionzoo.diagnose(run, parts=["calibrations"])
    with pytest.raises(OptionError, match="repeats must be 1 or more"):
        fusionzoo.diagnose(run, repeats=0)
    with pytest.raises(CheckpointError, match="holds no finished run"):
        fusionzoo.diagnose(tmp_path)
    plain = replace(corpus, info={})
    found = fusionzoo.diagnose(run, plain, parts=["evidence"], out=tmp_path, quiet=True)
    assert found.left_out == {"evidence": "only of data that `demo` generated is it known what evidence they hold"}
    assert "left out: evidence" in str(found)


def test_pictures_that_cannot_be_drawn_say_why(run, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="there is no picture 'paretto'; did you mean 'pareto'"):
        plot("paretto", run)
    with pytest.raises(OptionError, match=r"a picture is written as \.png, \.svg, \.pdf"):
        plot("curves", run, out=tmp_path / "a.jpeg")
    with pytest.raises(OptionError, match="no scores of the split 'train'"):
        plot("confusion", run, split="train")
    with pytest.raises(OptionError, match="name the folder"):
        plot("curves")
    monkeypatch.setattr("fusionzoo.reporting.plots.have_plots", lambda: False)
    with pytest.raises(MissingDependency, match=r'pip install "fusionzoo\[report\]"'):
        plot("curves", run)


def test_the_commands_are_there_and_refuse_in_one_sentence(run, tmp_path, capsys):
    command("diagnose", run, "--parts", "calibration", "--out", tmp_path, "--quiet", "--json")
    assert json.loads(capsys.readouterr().out)["parts"]["calibration"]["ece"] >= 0
    for arguments in (["plot", "nothing", run], ["board", tmp_path / "none"], ["diagnose", tmp_path / "none"]):
        command(*arguments, status=2)
        error = capsys.readouterr().err
        assert error.startswith("fusionzoo: ")
        assert "Traceback" not in error


# -- slow -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_whole_diagnosis_with_its_page(run, capsys):
    command("diagnose", run)
    out, err = capsys.readouterr()
    assert out.startswith("Diagnosis of bc-lstm + concat\n")
    assert [line for line in err.splitlines() if line.startswith("run: ")] == [f"run: {part}" for part in PARTS]
    page = (run / "diagnosis.html").read_text()
    parts = json.loads((run / "diagnosis.json").read_text())["parts"]
    assert list(parts) == [p for p in PARTS if p != "attention"]  # concat has none, and that is said
    assert "Left out: attention, the model reports no attention maps" in page
    for picture in ("ablation", "robustness", "reliability", "per-class", "embedding"):
        assert (run / "diagnosis" / f"{picture}.png").read_bytes().startswith(MAGIC["png"])
    for table in ("modalities", "robustness", "calibration", "classes", "shifts", "lengths", "evidence", "leaks"):
        assert len((run / "diagnosis" / f"{table}.csv").read_text().splitlines()) > 1
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing from elsewhere


@pytest.mark.slow
def test_a_fusion_that_ignores_a_modality_is_named_beside_one_that_does_not(tmp_path, corpus, make_config, blind):
    config = make_config("training.lr=0.01", epochs=6)
    done = fusionzoo.compare(config, tmp_path, fusions=["concat", blind], seeds=1, quiet=True, corpus=corpus)
    found = fusionzoo.diagnose(done, corpus, quiet=True)
    sentence = "ignores visual: permuting it changes nothing, no output moves"
    assert f"bc-lstm + blind: {sentence}" in words(found)
    assert f"bc-lstm + concat: {sentence}" not in words(found)
    assert [r[0] for r in found.section("models").tables["models"].rows] == ["bc-lstm + blind", "bc-lstm + concat"]
    assert set(found.section("pareto").values) == {"parameters", "MFLOPs per utterance"}
    page = (tmp_path / "diagnosis.html").read_text()
    assert 'href="runs/bc-lstm__blind__seed0/diagnosis.html"' in page
    assert (tmp_path / "runs" / "bc-lstm__blind__seed0" / "diagnosis.html").exists()


@pytest.mark.slow
def test_data_that_have_changed_since_are_named(tmp_path, corpus, make_config):
    from fusionzoo.data import save_npz

    save_npz(corpus, tmp_path / "data.npz")
    config = make_config(epochs=1).to_dict()
    config["data"] = {"source": str(tmp_path / "data.npz")}
    fusionzoo.train(config, tmp_path / "run", quiet=True)
    save_npz(replace(corpus, label=np.roll(corpus.label, 1)), tmp_path / "data.npz")
    found = fusionzoo.diagnose(tmp_path / "run", parts=["calibration"], quiet=True)
    assert any(w.startswith("the data have changed since this run was trained") for w in words(found))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS])
def test_every_picture_in_every_format(kind, run, corpus, make_config, tmp_path):
    one = run
    if kind == "critical-difference":
        with pytest.raises(OptionError, match="ranks three fusions or more"):
            plot(kind, run)
        one = tmp_path / "made"
        hosts, fusions = ("bc-lstm", "mmgcn", "text-cnn"), ("concat", "lmam", "gated")
        made_groups(one, {Contestant(h, f): 0.3 + 0.2 * i for h in hosts for i, f in enumerate(fusions)}, seeds=1)
    if kind == "attention":
        one = tmp_path / "gated"
        fusionzoo.train(make_config(epochs=1, fusion="gated"), one, quiet=True, corpus=corpus)
    for ending in FORMATS:
        path = tmp_path / f"{kind}.{ending}"
        plot(kind, one, out=path)
        assert path.read_bytes().startswith(MAGIC[ending])
