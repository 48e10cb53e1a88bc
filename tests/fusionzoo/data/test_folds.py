"""Folds: who is held out together, and that nothing leaks."""

from __future__ import annotations

import pytest
from speaking import PAIRS, corpus_of

from fusionzoo.data.folds import FoldPlan, fold_split, groups_of, make_folds
from fusionzoo.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("given", "plan"),
    [
        ("session", FoldPlan("session")),
        ("5", FoldPlan("dialogue", 5)),
        (5, FoldPlan("dialogue", 5)),
        ("speaker:5", FoldPlan("speaker", 5)),
        ({"by": "actor", "k": 6, "seed": 2, "dev": "fold"}, FoldPlan("actor", 6, 2, "fold")),
        ("none", None),
        (None, None),
    ],
)
def test_plans_are_read(given, plan):
    assert FoldPlan.read(given) == plan


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"bye": 1}, "did you mean 'by'"),
        ("dialogue", "need a number"),
        (1, "2 or more"),
        ({"by": "x", "dev": "y"}, "dev"),
    ],
)
def test_plans_that_make_no_sense(given, words):
    with pytest.raises(ConfigError, match=words):
        FoldPlan.read(given)


def test_speakers_who_meet_stay_together():
    assert groups_of(corpus_of(PAIRS), "speaker") == {
        "F1+M1": ["d0", "d1"], "F2+M2": ["d2", "d3"], "F3+M3": ["d4", "d5"],
    }  # fmt: skip
    with pytest.raises(DataError, match="linked by the speakers"):
        groups_of(corpus_of([["a", "b"], ["b", "c"]]), "actor")


def test_sessions_come_from_a_column_or_from_iemocaps_ids():
    ids = [f"Ses0{i // 2 + 1}F_impro0{i}" for i in range(6)]
    assert list(groups_of(corpus_of(PAIRS, ids), "session")) == ["Session1", "Session2", "Session3"]
    by_column = corpus_of(PAIRS, fold=list("xxyyzz"))
    assert groups_of(by_column, "session") == {"x": ["d0", "d1"], "y": ["d2", "d3"], "z": ["d4", "d5"]}
    with pytest.raises(DataError, match="did you mean 'speaker'"):
        groups_of(by_column, "speker")


def test_every_dialogue_is_held_out_once_and_nothing_leaks():
    corpus = corpus_of([[f"s{i // 3}"] * 4 for i in range(24)])
    for plan in (
        FoldPlan("dialogue", 5),
        FoldPlan("speaker", 4),
        FoldPlan("speaker"),
        FoldPlan("speaker", 4, dev="fold"),
    ):
        folds = make_folds(corpus, plan)
        assert sorted(d for ids in folds.values() for d in ids) == sorted(d.id for d in corpus.dialogues())
        for name in folds:
            split = fold_split(folds, name, plan, 0.2, 0)
            assert {d for d, s in split.items() if s == "test"} == set(folds[name])
            assert {"train", "dev", "test"} == set(split.values())
            if plan.by == "speaker":
                speakers = {s: {corpus.speaker[d.start] for d in corpus.dialogues() if split[d.id] == s}
                            for s in ("train", "dev", "test")}  # fmt: skip
                assert not speakers["test"] & (speakers["train"] | speakers["dev"])
                if plan.dev == "fold":
                    assert not speakers["dev"] & speakers["train"]
    with pytest.raises(DataError, match="do not make 9"):
        make_folds(corpus, FoldPlan("speaker", 9))
