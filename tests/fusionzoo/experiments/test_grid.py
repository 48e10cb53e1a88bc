from __future__ import annotations

import csv
import json

import pytest

import fusionzoo
from fusionzoo.errors import OptionError
from fusionzoo.experiments.grid import compare


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
