"""Tuning: the same budget, on dev data alone, to the same values however often it is interrupted."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest

from fusionzoo._progress import Bar
from fusionzoo.errors import ConfigError, MissingDependency
from fusionzoo.experiments import tuning
from fusionzoo.experiments.engines import Engine
from fusionzoo.experiments.grid import compare
from fusionzoo.experiments.tuning import Study, studies_of, tune_all
from fusionzoo.runs.models import resolved

SPACE = {
    "training.lr": {"low": 1e-3, "high": 5e-2, "log": True},
    "host.dropout": {"low": 0.0, "high": 0.5, "log": False},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory, make_config, corpus):
    config = resolved(make_config("host.dropout=0.1", "training.lr=0.001", epochs=2, fusion="sum"), corpus)
    return Study(config, tmp_path_factory.mktemp("tune") / "sum", 3, SPACE)


@pytest.fixture(scope="module")
def facts(study, corpus):
    return study.run(corpus)


def timeless(facts):
    return {**facts, "trials": [{k: v for k, v in t.items() if k != "seconds"} for t in facts["trials"]]}


def test_a_study_begins_with_what_is_there_anyway_and_takes_the_best(study, facts):
    assert [t["number"] for t in facts["trials"]] == [0, 1, 2]
    assert facts["trials"][0]["values"] == facts["default"] == {"training.lr": 0.001, "host.dropout": 0.1}
    scores = {t["number"]: t["score"] for t in facts["trials"] if t["state"] == "complete"}
    best = max(scores, key=lambda number: (scores[number], -number))
    assert facts["chosen"] == facts["trials"][best]["values"]
    assert facts["score"] == scores[best]
    assert json.loads((study.folder / "study.json").read_text()) == facts
    assert study.progress() == 1.0
    assert sorted(p.name for p in study.folder.iterdir()) == ["journal.log", "study.json"]  # no checkpoint is left


def test_test_labels_cannot_be_seen(study, facts, corpus, tmp_path):
    label = corpus.label.copy()
    test = corpus.split == "test"
    label[test] = (label[test] + 1) % corpus.num_classes
    other = dataclasses.replace(corpus, label=label)
    again = dataclasses.replace(study, folder=tmp_path / "sum", trials=2).run(other)
    assert timeless(again)["trials"] == timeless(facts)["trials"][:2]
    assert (study.seen(corpus).label[test] < 0).all()
    dev = dataclasses.replace(corpus, label=np.where(corpus.split == "dev", (corpus.label + 1) % 6, corpus.label))
    assert study.fingerprint(dev) != study.fingerprint(corpus)  # what it may see, it is made of


@pytest.mark.parametrize("epoch", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_interrupted_study_ends_as_an_uninterrupted_one(study, facts, corpus, tmp_path, monkeypatch, epoch):
    again = dataclasses.replace(study, folder=tmp_path / "sum")
    seen = []

    def dying(self, row, split, scores):
        seen.append(row["epoch"])
        if len(seen) == 2 + 1 + epoch:  # in the second trial
            raise KeyboardInterrupt
        watch(self, row, split, scores)

    watch = tuning._Watching.epoch
    monkeypatch.setattr(tuning._Watching, "epoch", dying)
    with pytest.raises(KeyboardInterrupt):
        again.run(corpus)
    assert len(again.written()["trials"]) == 1
    monkeypatch.setattr(tuning._Watching, "epoch", watch)
    assert timeless(again.run(corpus)) == timeless(facts)


def test_more_trials_go_on_and_fewer_are_a_part(study, facts, corpus):
    kept = tuning._kept(dataclasses.replace(study, trials=2), corpus, Bar(enabled=False))
    assert kept is not None
    assert kept["trials"] == facts["trials"][:2]
    assert kept["chosen"] in [t["values"] for t in kept["trials"]]
    more = dataclasses.replace(study, trials=4).run(corpus)
    assert more["trials"][:3] == facts["trials"]
    assert len(more["trials"]) == 4


@pytest.mark.slow
def test_what_falls_behind_is_pruned_and_what_cannot_be_is_failed(tmp_path, make_config, corpus):
    config = resolved(make_config(epochs=8, fusion="sum"), corpus)
    space = {"training.lr": [0.02, 1e-9, 1e30]}
    facts = Study(config.replaced(training__lr=0.02, training__clip=0), tmp_path / "s", 9, space).run(corpus)
    by_lr = {}
    for trial in facts["trials"]:
        by_lr.setdefault(trial["values"]["training.lr"], set()).add(trial["state"])
    assert by_lr[0.02] <= {"complete", "pruned"}
    assert facts["chosen"] == {"training.lr": 0.02}
    assert all(t["why"] for t in facts["trials"] if t["state"] == "failed")
    assert {"pruned", "failed"} & set().union(*by_lr.values())


def test_choices_that_cannot_be_built_cost_no_trial(make_config, corpus, tmp_path):
    config = resolved(make_config(fusion="lmam"), corpus)
    lmam = Study(config, tmp_path / "lmam", 3)
    (found,) = studies_of([lmam], None, {"": corpus})
    assert found.space["fusion.rank"] == [4, 8, 16, None]  # 32 is more than the width
    (found,) = studies_of([dataclasses.replace(lmam, fixed=frozenset({"fusion.rank"}))], None, {"": corpus})
    assert "fusion.rank" not in found.space
    on_test = dataclasses.replace(lmam, config=config.replaced(training__selection="test"))
    with pytest.raises(ConfigError, match="chooses on dev data"):
        studies_of([on_test], None, {"": corpus})


def test_a_study_of_another_configuration_is_made_anew_and_says_so(study, facts, corpus, tmp_path, capsys):
    changed = dataclasses.replace(study, trials=1, folder=tmp_path / "sum")
    changed.run(corpus)
    other = dataclasses.replace(changed, config=study.config.replaced(training__batch_size=5))
    done = tune_all([other], {"": corpus}, Engine(), tmp_path, strict=True, quiet=False)
    assert "made with another configuration, search space or data; tuning again" in capsys.readouterr().err
    assert done.facts["sum"]["fingerprint"] != changed.fingerprint(corpus)
    changed.folder.joinpath("study.json").unlink()
    changed.folder.joinpath("journal.log").rename(changed.folder / "notes.txt")
    with pytest.raises(ConfigError, match="is not the folder of a study"):
        tune_all([other], {"": corpus}, Engine(), tmp_path, strict=True, quiet=True)


@pytest.mark.slow
def test_a_comparison_runs_its_seeds_with_what_was_chosen(tmp_path, make_config, corpus):
    config = make_config("training.lr=0.001", epochs=1)
    fusions = ["concat", {"name": "lmam", "label": "broken", "rank": -3}]
    space = {"training.lr": [0.001, 0.03], "host.dropout": None}
    done = compare(config, tmp_path, fusions=fusions, seeds=1, tune=2, space=space, quiet=True, corpus=corpus)
    row, broken = done.rows
    (facts,) = row.tuned
    assert {t["values"]["training.lr"] for t in facts["trials"]} <= {0.001, 0.03}
    assert len(facts["trials"]) == 2
    ran = (tmp_path / "runs" / "bc-lstm__concat__seed0" / "config.yaml").read_text()
    assert f"lr: {facts['chosen']['training.lr']}" in ran
    assert json.loads((tmp_path / "summary.json").read_text())["rows"][0]["tuned"] == [facts]
    assert (broken.n, list(broken.failed)) == (0, ["tune bc-lstm__broken"])
    assert "rank must be a positive integer" in broken.failed["tune bc-lstm__broken"]
    assert not (tmp_path / "runs" / "bc-lstm__broken__seed0").exists()


@pytest.mark.slow
def test_every_fold_is_tuned_by_itself(tmp_path, make_config, corpus):
    done = compare(make_config(epochs=1), tmp_path, protocols=[2], seeds=1, tune=2, quiet=True, corpus=corpus)
    assert [f["fold"] for f in done.rows[0].tuned] == ["fold1", "fold2"]
    assert done.rows[0].n == 1


def test_without_optuna_it_says_what_to_install(tmp_path, make_config, corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependency, match=r'--tune needs the package .optuna.*pip install "fusionzoo\[tune\]"'):
        compare(make_config(), tmp_path, tune=2, corpus=corpus)
    with pytest.raises(ConfigError, match="must be 1 or more"):
        compare(make_config(), tmp_path, tune=0, corpus=corpus)
