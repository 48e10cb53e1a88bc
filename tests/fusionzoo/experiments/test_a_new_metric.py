"""A metric is added in one place, and everything that chooses, shows or compares has it."""

from __future__ import annotations

import csv
import json

import pytest

from fusionzoo.errors import ConfigError
from fusionzoo.experiments.cross_validation import cross_validate
from fusionzoo.experiments.grid import compare
from fusionzoo.experiments.reproduction import reproduce
from fusionzoo.runs.config import RunConfig
from fusionzoo.runs.folder import read_result
from fusionzoo.runs.recipes import Recipe
from fusionzoo.scoring.metrics import METRICS, Metric


@pytest.fixture
def error_rate(monkeypatch):
    """The share of utterances that are wrong: lower is better."""
    metric = Metric(
        "errors", lambda counts: 1 - counts.right.sum(-1) / counts.total, higher_is_better=False, format=".3f"
    )
    monkeypatch.setitem(METRICS, "error_rate", metric)
    return metric


def test_it_is_a_choice_of_configurations_and_recipes(error_rate):
    assert RunConfig.from_sources(metric="error_rate").training.metric == "error_rate"
    Recipe.from_mapping({"published": {"scores": {"error_rate": 30.0}}}, "mine")
    with pytest.raises(ConfigError, match="did you mean 'error_rate'"):
        RunConfig.from_sources(metric="error_rats")


def test_without_it_the_name_is_refused():
    with pytest.raises(ConfigError, match="has no choice 'error_rate'"):
        RunConfig.from_sources(metric="error_rate")


def test_it_chooses_epochs_and_stands_in_every_report(error_rate, tmp_path, corpus, make_config):
    config = make_config(epochs=3, metric="error_rate")
    done = compare(config, tmp_path, seeds=1, quiet=True, corpus=corpus)
    run = next(tmp_path.glob("runs/*"))
    result = read_result(run)
    assert result is not None
    assert result["test"] is not None
    test = dict(result["test"])
    assert test["error_rate"] == pytest.approx(1 - test["wa"])
    with open(run / "metrics.csv", newline="") as file:
        history = [float(row["dev_error_rate"]) for row in csv.DictReader(file)]
    assert history[result["epoch"] - 1] == min(history)
    assert "chosen by errors" in (run / "report.html").read_text()
    assert json.loads((run / "card.json").read_text())["scores"]["test"]["error_rate"] == test["error_rate"]
    assert done.rows[0].test["error_rate"]["mean"] == test["error_rate"]
    for name, words in (
        ("summary.md", "test errors"),
        ("summary.tex", "test errors"),
        ("summary.csv", "test_error_rate_mean"),
    ):
        assert words in (tmp_path / name).read_text(), name
    again = reproduce(run, tmp_path / "again", quiet=True)
    assert again.differences["test error_rate"] == 0.0
    folds = cross_validate(config, tmp_path / "folds", 2, corpus=corpus, quiet=True)
    assert "errors" in folds.table.header
    assert folds.mean["error_rate"]["mean"] == pytest.approx(1 - (folds.mean["wa"]["mean"] or 0))


def test_a_run_that_is_older_than_the_metric_is_read(error_rate, tmp_path, corpus, make_config, monkeypatch):
    with monkeypatch.context() as before:
        before.delitem(METRICS, "error_rate")
        compare(make_config(epochs=1), tmp_path, seeds=1, quiet=True, corpus=corpus)
    result = json.loads(next(tmp_path.glob("runs/*/result.json")).read_text())
    assert "error_rate" not in result["test"]
    rows = compare(make_config(epochs=1), tmp_path, seeds=1, quiet=True, corpus=corpus).rows
    assert rows[0].test["error_rate"]["mean"] == pytest.approx(1 - result["test"]["wa"])
