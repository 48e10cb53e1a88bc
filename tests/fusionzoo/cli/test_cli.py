"""The command line from outside: what it does, and that a refusal is one sentence and an exit status, never a traceback."""

from __future__ import annotations

import json
import os
import pickle
import shlex
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest
import typer

from fusionzoo.cli import main
from fusionzoo.cli.options import ModelOptions, expanded

TINY = [
    "--set", "data.dialogues=[6,3,3]", "--set", "data.length=[3,6]", "--set", "host.hidden=4", "--set", "host.head_width=4",
    "--set", "training.epochs=2", "--device", "cpu",
]  # fmt: skip


def call(capfd, *arguments) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    out, err = capfd.readouterr()
    return int(exit_.value.code or 0), out, err


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "first"
    with pytest.raises(SystemExit) as exit_:
        main(
            [
                "train",
                "--data",
                "demo",
                "--host",
                "bc-lstm",
                "--fusion",
                "gated",
                "--out",
                str(folder),
                "--quiet",
                *TINY,
            ]
        )
    assert not exit_.value.code
    return folder


def test_train_leaves_a_run_folder(run_folder):
    for name in ("config.yaml", "metrics.csv", "result.json", "predictions.csv", "confusion.csv", "report.html",
                 "model.safetensors", "model.json", "environment.json"):  # fmt: skip
        assert (run_folder / name).stat().st_size > 0, name
    assert json.loads((run_folder / "result.json").read_text())["epochs"] == 2


def test_the_effective_configuration_is_enough_to_run_again(run_folder, tmp_path, capfd):
    status, out, _ = call(capfd, "train", "--config", run_folder / "config.yaml", "--out", tmp_path / "again")
    assert status == 0
    assert "bc-lstm + gated" in out
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (run_folder / "predictions.csv").read_bytes()


def test_evaluate_repeats_the_score_and_writes_json(run_folder, tmp_path, capfd):
    status, out, _ = call(capfd, "evaluate", run_folder, "--json", "--out", tmp_path / "scores.json")
    assert status == 0
    expected = json.loads((run_folder / "result.json").read_text())["test"]["weighted_f1"]
    assert json.loads(out)["weighted_f1"] == pytest.approx(expected)
    assert json.loads((tmp_path / "scores.json").read_text()) == json.loads(out)
    status, out, _ = call(capfd, "evaluate", run_folder, "--split", "dev")
    assert "W-F1" in out
    assert "frustrated" in out


def test_predict_writes_every_utterance(run_folder, tmp_path, capfd):
    status, out, _ = call(capfd, "predict", run_folder, "--out", tmp_path / "p.csv", "--split", "test")
    assert status == 0
    assert str(tmp_path / "p.csv") in out
    rows = (tmp_path / "p.csv").read_text().splitlines()
    whole = (run_folder / "predictions.csv").read_text().splitlines()
    assert rows[0].startswith("split,")
    assert len(rows) - 1 == sum(line.startswith("test,") for line in whole)


def test_compare_is_resumable_and_prints_the_table(tmp_path, capfd):
    command = ["compare", "--data", "demo", "--hosts", "bc-lstm", "--fusions", "concat,lmam", "--out", tmp_path, *TINY]
    command += ["--jobs", "1"]
    status, out, err = call(capfd, *command, "--seeds", "1")
    assert status == 0, err
    for words in ("bc-lstm", "concat", "lmam", "parameters", "seconds", "Best reachable test W-F1"):
        assert words in out
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/result.json")}
    assert len(stamps) == 2
    status, out, _ = call(capfd, *command, "--seeds", "2")
    assert status == 0
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 4
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items())


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (["--seeds", "2"], "fusionzoo compare"),
        (["--folds", "2"], "fusionzoo cross-validate"),
        (["--folds", "2", "--seeds", "2"], "fusionzoo cross-validate"),
    ],
)
def test_train_names_the_command_that_makes_several_runs(asked, named, tmp_path, capfd):
    options = ["--host", "bc-lstm", "--fusion", "sum", "--out", tmp_path / "of two", *TINY]
    status, out, err = call(capfd, "train", *options, *asked)
    assert status == 2
    assert named in err
    line = shlex.split(err.splitlines()[-1])
    assert line[0] == "fusionzoo"
    status, out, err = call(capfd, *line[1:], "--quiet", "--jobs", "1")
    assert status == 0, err
    assert "±" in out
    assert len(list(tmp_path.glob("of two/runs/*/result.json"))) == (4 if len(asked) == 4 else 2)


def test_compare_says_that_it_always_resumes(tmp_path, capfd):
    command = ["compare", "--hosts", "bc-lstm", "--seeds", "1", "--out", tmp_path, "--quiet", *TINY]
    assert call(capfd, *command)[0] == 0
    status, _, err = call(capfd, *command, "--resume")
    assert status == 0
    assert "compare always resumes" in err


@dataclass
class More(ModelOptions):
    batch_size: Annotated[int | None, typer.Option(help="Dialogues per step.")] = None


def test_an_option_is_added_in_one_place():
    """A field of the group is an option of every command that takes the group, and reaches the configuration."""

    app, seen = typer.Typer(), []

    @app.command()
    @expanded
    def command(asked: More) -> None:
        seen.append(asked.configuration())

    app(["--batch-size", "3", "--fusion", "sum"], standalone_mode=False)
    assert (seen[0].training.batch_size, seen[0].fusion.name) == (3, "sum")


def test_plugins_and_info(capfd):
    status, out, _ = call(capfd, "plugins", "--json")
    assert status == 0
    assert {r["name"] for r in json.loads(out)} >= {"lmam", "dialogue-gcn", "demo", "cross-entropy"}
    status, out, _ = call(capfd, "plugins", "--kind", "fusion", "--long")
    assert "low-rank matching attention" in out
    status, out, _ = call(capfd, "info", "DialogueGCN".replace("GCN", "_gcn"))
    assert status == 0
    assert "dialogue-gcn (host)" in out
    status, out, _ = call(capfd, "info", "lmam", "--json")
    assert json.loads(out)["paper"].startswith("Shou et al.")


def test_check_runs_the_suite(capfd):
    status, out, _ = call(capfd, "check", "concat", "--only", "padding_poison,batch_order")
    assert status == 0
    assert "padding_poison" in out
    assert "2 passed" in out


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_refusals_are_one_sentence(run_folder, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps([Evil()]))
    np.savez(tmp_path / "whole.npz", text=np.zeros((50, 9)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:300])
    (tmp_path / "bad.yaml").write_text("training: {epohcs: 3}")
    cases = {
        ("train", "--fusion", "lmma"): "did you mean 'lmam'",
        ("train", "--host", "dialoguegcn"): "did you mean 'dialogue-gcn'",
        ("train", "--set", "training.epohcs=3"): "'training.epohcs'; did you mean 'epochs'",
        ("train", "--config", "bad.yaml"): "did you mean 'epochs'",
        ("train", "--set", "host.hiden=3"): "did you mean 'hidden'",
        ("train", "--set", "fusion.rnak=3", "--fusion", "lmam"): "did you mean 'rank'",
        ("train", "--set", "training.epochs=many"): "training.epochs",
        ("train", "--set", "epochs"): "section.key=value",
        ("train", "--data", "nowhere.npz"): "nowhere.npz",
        ("train", "--data", "evil.pkl"): "system",
        ("train", "--data", "cut.npz"): "cut.npz",
        ("train", "--placement", "middle"): "placement",
        ("train", "--device", "cuda:99"): "cuda",
        ("train", "some-recipe"): "recipe",
        ("evaluate", "nowhere"): "nowhere",
        ("evaluate", run_folder, "--split", "tset"): "test",
        ("info", "nonesuch"): "Installed",
        ("plugins", "--kind", "fusoin"): "did you mean 'fusion'",
        ("data", "convert", "evil.pkl", "out.npz"): "system",
        ("train", "--out", run_folder): str(run_folder),
        ("train", "--out", run_folder, "--resume", "--host", "dialogue-gcn", *TINY[4:6]): "host.name",
    }
    for arguments, words in cases.items():
        status, out, err = call(capfd, *arguments)
        assert status in (1, 2), arguments
        assert words in err, (arguments, err)
        assert "Traceback" not in err + out, arguments
    status, out, _ = call(capfd, "data", "inspect", "evil.pkl")
    assert status == 1
    assert "system" in out
    assert not (tmp_path / "executed").exists()


def test_debug_shows_the_traceback(monkeypatch):
    from fusionzoo.errors import UnknownNameError

    with pytest.raises(UnknownNameError):
        main(["train", "--fusion", "lmma", "--debug"])
