from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import fusionzoo
from fusionzoo._yaml import dump_yaml
from fusionzoo.errors import ConfigError, OptionError
from fusionzoo.experiments import runner
from fusionzoo.experiments.grid import compare
from fusionzoo.scoring.metrics import scores_from_confusion


@pytest.fixture(scope="module")
def grid(tmp_path_factory, corpus, make_config):
    folder = tmp_path_factory.mktemp("compare")
    config = make_config(epochs=2)
    return compare(config, folder, fusions=["concat", "sum"], seeds=2, quiet=True, corpus=corpus)


def stamps(folder) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in sorted(folder.glob("runs/*/result.json"))}


def test_cells_and_files(grid):
    names = [f"bc-lstm__{f}__seed{s}" for f in ("concat", "sum") for s in (0, 1)]
    assert list(stamps(grid.folder)) == names
    files = {p.name for p in grid.folder.iterdir()} - {"runs"}
    assert files == {
        "config.yaml",
        "summary.json",
        "summary.csv",
        "summary.md",
        "summary.tex",
        "report.html",
        "comparison.png",
    }
    assert grid.failed == {}


def test_the_table_is_made_of_the_runs(grid, corpus):
    results = [
        json.loads((grid.folder / "runs" / f"bc-lstm__sum__seed{s}" / "result.json").read_text()) for s in (0, 1)
    ]
    scores = [r["test"]["weighted_f1"] for r in results]
    row = grid.rows[1]
    assert (row.host, row.fusion, row.n) == ("bc-lstm", "sum", 2)
    assert row.test["weighted_f1"]["mean"] == pytest.approx(sum(scores) / 2)
    assert row.per_seed == dict(enumerate(scores))
    assert row.difference == pytest.approx(sum(scores) / 2 - sum(grid.rows[0].per_seed.values()) / 2)
    assert (row.bootstrap, row.p) == (None, None), "six dialogues and two seeds are too few"
    assert grid.rows[0].difference is None
    assert row.parameters == results[0]["parameters"]
    assert (row.flops or 0) > 1000
    with open(grid.folder / "summary.csv", newline="") as file:
        flat = list(csv.DictReader(file))
    assert float(flat[1]["test_weighted_f1_mean"]) == row.test["weighted_f1"]["mean"]
    ceiling = corpus.info["ceiling"]["test"]["full"]["weighted_f1"]
    assert f"Best reachable test W-F1 of these data: {ceiling:.4f}" in str(grid)
    assert "optimal reader" in (grid.folder / "report.html").read_text()


def test_finished_runs_are_kept_and_others_added(grid, corpus, make_config, capsys):
    before = stamps(grid.folder)
    again = compare(make_config(epochs=2), grid.folder, fusions=["concat", "sum"], seeds=[0, 1, 2], corpus=corpus)
    after = stamps(grid.folder)
    assert {k: after[k] for k in before} == before
    assert sorted(after.keys() - before.keys()) == ["bc-lstm__concat__seed2", "bc-lstm__sum__seed2"]
    assert again.rows[0].n == 3
    assert "4 of 6 runs are finished already" in capsys.readouterr().err


def test_a_changed_configuration_runs_again_and_says_so(tmp_path, corpus, make_config, capsys):
    compare(make_config(epochs=1), tmp_path, seeds=1, quiet=True, corpus=corpus)
    before = stamps(tmp_path)
    compare(make_config("training.lr=0.01", epochs=1), tmp_path, seeds=1, corpus=corpus)
    assert stamps(tmp_path) != before
    assert "made with another configuration or other data; running it again" in capsys.readouterr().err
    other = fusionzoo.get("demo", kind="dataset")(seed=1, dialogues=[14, 4, 6], length=[3, 8])
    compare(make_config("training.lr=0.01", epochs=1), tmp_path, seeds=1, corpus=other)
    assert "other data" in capsys.readouterr().err


def test_a_failing_cell_does_not_stop_the_others(tmp_path, corpus, make_config):
    config = make_config(epochs=1)
    fusions = ["concat", {"name": "lmam", "rank": -3, "label": "lmam-bad"}]
    done = compare(config, tmp_path, fusions=fusions, seeds=1, quiet=True, corpus=corpus)
    assert list(done.failed) == ["bc-lstm__lmam-bad__seed0"]
    assert "rank" in done.failed["bc-lstm__lmam-bad__seed0"]
    assert [r.n for r in done.rows] == [1, 0]
    assert "Traceback" in (tmp_path / "runs" / "bc-lstm__lmam-bad__seed0" / "failure.txt").read_text()
    assert "FAILED bc-lstm__lmam-bad__seed0" in str(done)
    with pytest.raises(OptionError):
        compare(config, tmp_path, fusions=fusions, seeds=1, quiet=True, strict=True, corpus=corpus)


@pytest.mark.slow
def test_processes_side_by_side_give_the_same_numbers(grid, tmp_path, corpus, make_config):
    done = compare(
        make_config(epochs=2), tmp_path, fusions=["concat", "sum"], seeds=2, jobs=2, quiet=True, corpus=corpus
    )
    assert done.failed == {}
    for folder in sorted((tmp_path / "runs").iterdir()):
        other = grid.folder / "runs" / folder.name
        for name in ("predictions.csv", "model.safetensors"):
            assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_selection_on_test_stamps_the_comparison(tmp_path, corpus, make_config):
    done = compare(make_config(epochs=1, selection="test"), tmp_path, seeds=1, quiet=True, corpus=corpus)
    assert "Selected on the test split" in str(done)
    assert "Selected on the test split" in (tmp_path / "summary.md").read_text()
    assert '<p class="warning">Selected on the test split' in (tmp_path / "report.html").read_text()


def test_rows_of_several_protocols_and_a_named_baseline(tmp_path, corpus, make_config, capsys):
    settings = {"protocols": ["split", 2], "fusions": ["concat", "sum"], "baseline": "sum", "seeds": 1}
    done = compare(make_config(epochs=1), tmp_path, corpus=corpus, **settings)
    assert done.failed == {}
    assert [(r.fusion, r.axes["protocol"], r.n) for r in done.rows] == [
        ("concat", "split", 1),
        ("sum", "split", 1),
        ("concat", "2-folds", 1),
        ("sum", "2-folds", 1),
    ]
    assert [r.difference is None for r in done.rows] == [False, True, False, True]
    folds = [tmp_path / "runs" / f"bc-lstm__concat__2-folds__fold{k}__seed0" for k in (1, 2)]
    results = [json.loads((f / "result.json").read_text()) for f in folds]
    pooled = scores_from_confusion(np.sum([r["test"]["confusion"] for r in results], axis=0))
    row = done.rows[2]
    assert row.per_seed == {0: float(pooled["weighted_f1"])}
    assert row.bootstrap is not None  # over the dialogues of both folds
    assert row.seconds == pytest.approx(sum(r["seconds"] for r in results))
    assert sum(np.sum(r["test"]["confusion"]) for r in results) == len(corpus)
    assert (row.ceiling, done.rows[0].ceiling is None) == (None, False)
    said = capsys.readouterr().err
    for words in (
        "data     demo: 133 utterances",
        "classes  happy",
        "bc-lstm + sum: ",
        "device   cpu",
        "6 runs, one at a time",
    ):
        assert words in said
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rows"][2]["axes"] == {"protocol": "2-folds"}
    assert "protocol" in (tmp_path / "summary.csv").read_text().splitlines()[0].split(",")


@pytest.mark.slow
def test_a_seed_whose_fold_failed_does_not_count(tmp_path, corpus, make_config, monkeypatch):
    train = runner.train

    def failing(config, folder, **more):
        if "fold2__seed1" in folder.name:
            raise RuntimeError("the disk is on fire")
        return train(config, folder, **more)

    monkeypatch.setattr(runner, "train", failing)
    done = compare(make_config(epochs=1), tmp_path, protocols=[2], seeds=2, corpus=corpus, quiet=True)
    (row,) = done.rows
    assert (row.n, list(row.per_seed)) == (1, [0])
    assert list(row.failed) == ["bc-lstm__concat__2-folds__fold2__seed1"]


def test_what_a_comparison_refuses_before_it_runs(tmp_path, corpus, make_config):
    with pytest.raises(ConfigError, match="baseline 'lmma' is not in the comparison; did you mean 'lmam'"):
        compare(make_config(), tmp_path, fusions=["sum", "lmam"], baseline="lmma", corpus=corpus)
    with pytest.raises(ConfigError, match="corpus= is one data set"):
        compare(make_config(), tmp_path, data=["demo", {"source": "demo", "seed": 1, "label": "b"}], corpus=corpus)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_file_says_it_all(tmp_path, make_config):
    path = tmp_path / "grid.yaml"
    other = {"source": "demo", "dialogues": [8, 3, 3], "length": [3, 5]}
    config = {
        **make_config("training.lr=0.001", epochs=1).to_dict(),
        "fusions": ["concat", {"name": "sum", "set": {"training": {"lr": 0.01}}}],
    }
    path.write_text(
        dump_yaml({**config, "data": [{**other, "label": "a"}, {**other, "seed": 1, "label": "b"}], "seeds": 1})
    )
    done = compare(path, tmp_path / "out", quiet=True)
    assert [(r.axes["data"], r.fusion) for r in done.rows] == [
        ("a", "concat"),
        ("a", "sum"),
        ("b", "concat"),
        ("b", "sum"),
    ]
    shown = json.loads((tmp_path / "out" / "summary.json").read_text())["configuration"]
    assert {k: v["seed"] for k, v in shown["data"].items()} == {"a": 0, "b": 1}
    assert shown["training"]["in bc-lstm + sum, a"] == {"lr": 0.01}
    assert shown["training"]["in bc-lstm + concat, b"] == {"lr": 0.001}
