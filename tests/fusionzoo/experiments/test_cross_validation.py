"""Cross-validation: that it learns, goes on, and what it reports."""

from __future__ import annotations

import json

import numpy as np
import pytest
from speaking import PAIRS, corpus_of

from fusionzoo.errors import OptionError
from fusionzoo.experiments.cross_validation import cross_validate
from fusionzoo.runs.config import RunConfig


def small(**training) -> RunConfig:
    return RunConfig.from_sources(
        {
            "host": {"name": "text-cnn", "hidden": 8, "head_width": 8, "dropout": 0.0},
            "data": {"dev_fraction": 0.3},
            "training": {"epochs": 12, "batch_size": 2, "lr": 0.02, "device": "cpu", "keep": 1, **training},
        }
    )


def test_cross_validation_learns_reports_and_goes_on(tmp_path):
    corpus = corpus_of(PAIRS)
    facts = {"name": "mine", "protocol": "honest", "variant": None, "published": {"scores": {"ua": 80.1}}}
    done = cross_validate(small(), tmp_path, "speaker", corpus=corpus, quiet=True, recipe=facts)
    assert [r["fold"] for r in done.rows] == ["F1+M1", "F2+M2", "F3+M3"]
    assert sum(r["utterances"] for r in done.rows) == len(corpus)
    ua = [r["ua"] for r in done.rows]
    assert done.mean["ua"]["mean"] == pytest.approx(np.mean(ua))
    assert done.mean["ua"]["sd"] == pytest.approx(np.std(ua, ddof=1))
    assert done.pooled["wa"] == pytest.approx(np.mean([r["wa"] for r in done.rows]))  # folds of one size
    assert done.mean["ua"]["mean"] > 0.6
    for words in ("published 80.10", "mean ± sd over folds", "F2+M2"):
        assert words in str(done)
        assert words in (tmp_path / "summary.md").read_text()
    assert (
        "Published" in (tmp_path / "report.html").read_text() or "published" in (tmp_path / "report.html").read_text()
    )
    assert json.loads((tmp_path / "summary.json").read_text())["folds"]["by"] == "speaker"

    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/result.json")}
    (tmp_path / "runs" / "F2+M2__seed0" / "result.json").unlink()  # as if killed before the end of the second fold
    again = cross_validate(small(), tmp_path, "speaker", corpus=corpus, quiet=True, recipe=facts)
    assert again.rows == done.rows
    same = [p.parent.name for p, t in stamps.items() if p.stat().st_mtime_ns == t]
    assert sorted(same) == ["F1+M1__seed0", "F3+M3__seed0"]
    changed = cross_validate(small(seed=0, lr=0.01), tmp_path, "speaker", corpus=corpus, quiet=True)
    assert changed.rows != done.rows  # another configuration is run again


@pytest.mark.slow
def test_folds_side_by_side_give_the_same_numbers(tmp_path):
    corpus = corpus_of(PAIRS)
    one = cross_validate(small(epochs=2), tmp_path / "one", "speaker", seeds=2, corpus=corpus, quiet=True)
    two = cross_validate(small(epochs=2), tmp_path / "two", "speaker", seeds=2, jobs=2, corpus=corpus, quiet=True)
    assert len(one.rows) == 6
    assert two.rows == one.rows
    assert two.failed == {}


def test_a_fold_that_fails_is_a_note_and_the_others_count(tmp_path, monkeypatch):
    from fusionzoo.experiments import runner

    train = runner.train

    def failing(config, folder, **more):
        if folder.name.startswith("F2"):
            raise RuntimeError("the disk is on fire")
        return train(config, folder, **more)

    monkeypatch.setattr(runner, "train", failing)
    done = cross_validate(small(epochs=1), tmp_path, "speaker", corpus=corpus_of(PAIRS), quiet=True)
    assert list(done.failed) == ["F2+M2__seed0"]
    assert "disk is on fire" in str(done)
    assert [r["fold"] for r in done.rows] == ["F1+M1", "F3+M3"]
    assert "Traceback" in (tmp_path / "runs" / "F2+M2__seed0" / "failure.txt").read_text()


def test_a_fold_chosen_on_its_test_split_says_so(tmp_path):
    config = small(selection="test", epochs=1)
    config.data.dev_fraction = 0.0
    done = cross_validate(config, tmp_path, "speaker", corpus=corpus_of(PAIRS), quiet=True)
    assert "Selected on the test split" in str(done)
    assert 'class="warning"' in (tmp_path / "report.html").read_text()
    assert "Selected on the test split" in (tmp_path / "summary.md").read_text()
    with pytest.raises(OptionError, match="exclude each other"):
        cross_validate(RunConfig.from_sources(split="x.json"), tmp_path, 3, corpus=corpus_of(PAIRS))
