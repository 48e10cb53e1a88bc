"""From run folders to rows, and from rows to sentences."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from made_comparison import made_run
from scipy import stats

from fusionzoo.reporting.rows import Contestant, ranks_of, summarise
from fusionzoo.reporting.verdicts import headline, sentences, verdict
from fusionzoo.runs.folder import read_predictions, read_result
from fusionzoo.scoring.metrics import METRICS, Metric, evaluate_predictions


def test_a_row_is_compared_on_seeds_and_dialogues(compared):
    concat, lmam = compared({"concat": 0.5, "lmam": 0.7})
    assert concat.baseline is None
    assert (lmam.baseline, lmam.pairs, lmam.dialogues) == ("concat", 5, 20)
    mine, theirs = list(lmam.per_seed.values()), list(concat.per_seed.values())
    assert lmam.difference == pytest.approx(np.mean(mine) - np.mean(theirs))
    assert lmam.p == pytest.approx(stats.ttest_rel(mine, theirs).pvalue)
    assert lmam.p_permutation == pytest.approx(2 / 32)
    assert lmam.order == 0
    assert lmam.clear
    assert lmam.bootstrap is not None
    assert lmam.bootstrap[0] < lmam.difference < lmam.bootstrap[1]


def test_the_baseline_may_be_named(compared):
    rows = compared({"concat": 0.5, "lmam": 0.7, "sum": 0.5}, seeds=2, baseline="lmam")
    assert [r.baseline for r in rows] == ["lmam", None, "lmam"]


def test_the_smallest_difference_is_that_of_the_strictest_step(compared):
    _, alone = compared({"concat": 0.5, "lmam": 0.55})
    _, one, _, _ = compared({"concat": 0.5, "lmam": 0.55, "sum": 0.5, "gated": 0.5})
    assert alone.per_seed == one.per_seed
    assert (one.smallest_seeds or 0) > 1.2 * (alone.smallest_seeds or 0)
    assert one.smallest_dialogues == alone.smallest_dialogues


def test_folds_of_a_seed_are_one_set_of_predictions(tmp_path):
    who = Contestant("bc-lstm", "concat", (("protocol", "session"),))
    folds = [made_run(tmp_path / f"fold{i}", who, 0, 0.6, dialogues=9, first=9 * i) for i in range(2)]
    (row,) = summarise({who: {0: folds}})
    rows = [x for f in folds for x in read_predictions(f, read_result(f))]  # type: ignore[arg-type]
    names = sorted({x["true"] for x in rows})
    true, given = ([names.index(x[k]) for x in rows] for k in ("true", "predicted"))
    assert row.per_seed[0] == pytest.approx(evaluate_predictions(true, given, names)["weighted_f1"])
    assert row.n == 1
    shutil.rmtree(folds[1])
    (row,) = summarise({who: {0: folds}})
    assert (row.n, row.per_seed) == (0, {})


def test_a_sentence_for_every_row(compared):
    _, better, worse, same = compared({"concat": 0.5, "lmam": 0.7, "sum": 0.3, "gated": 0.5})
    assert verdict(better).startswith("Better than concat by .1")
    assert "over five seeds (p " in verdict(better)
    assert "over 20 test dialogues (+0." in verdict(better)
    assert verdict(worse).startswith("Worse than concat by .")
    limit = max(same.smallest_seeds or 0, same.smallest_dialogues or 0)
    assert (
        verdict(same)
        == f"No difference can be shown: five seeds could not have shown less than {limit:.3f}".replace("0.", ".") + "."
    )


def test_where_dialogues_tell_less_than_seeds_they_are_named(compared):
    _, same = compared({"concat": 0.5, "lmam": 0.5}, dialogues=9)
    same.smallest_seeds, same.smallest_dialogues, same.p_holm = 0.01, 0.034, 0.5
    assert verdict(same) == "No difference can be shown: nine test dialogues could not have shown less than .034."
    same.p_holm, same.difference, same.bootstrap = 0.001, -0.02, (-0.04, 0.001)
    assert verdict(same) == (
        "Worse by .020 on these test dialogues; on others no difference can be shown: "
        "nine test dialogues could not have shown less than .034."
    )


@pytest.mark.parametrize(("seeds", "words"), [(1, "One seed shows no difference"), (2, "Two seeds show no difference")])
def test_few_seeds_say_so_and_give_no_interval(compared, seeds, words):
    rows = compared({"concat": 0.3, "lmam": 0.9}, seeds=seeds)
    assert verdict(rows[1]).startswith(words)
    assert "ask for --seeds 5" in headline(rows)
    assert (rows[1].p, rows[1].p_holm, rows[1].order, rows[1].smallest_seeds) == (None,) * 4
    assert not rows[1].clear
    assert {r.test["weighted_f1"]["low"] for r in rows} == {None}


def test_few_dialogues_give_no_interval(compared):
    _, row = compared({"concat": 0.3, "lmam": 0.9}, dialogues=5)
    assert (row.bootstrap, row.clear) == (None, False)
    assert verdict(row).endswith("five test dialogues are too few to say whether on others too.")


def test_a_metric_of_which_less_is_better_turns_every_word(compared, monkeypatch):
    errors = Metric("errors", METRICS["weighted_f1"].of, higher_is_better=False)
    monkeypatch.setitem(METRICS, "weighted_f1", errors)
    rows = compared({"concat": 0.5, "lmam": 0.7})
    assert verdict(rows[1]).startswith("Worse than concat by .")
    assert rows[1].order == 1
    assert sentences(rows)[0].startswith("dialogue-gcn + concat has the best mean test errors: .")
    assert "Clearly worse than concat: lmam" in sentences(rows)[0]


def test_the_headline_names_who_differs_and_what_stays_open(compared):
    rows = compared({"concat": 0.5, "lmam": 0.75, "sum": 0.25, "gated": 0.5})
    first, left_open = sentences(rows)
    assert first.startswith("dialogue-gcn + lmam has the best mean test W-F1: .")
    assert "Clearly better than concat: lmam (by ." in first
    assert "Clearly worse than concat: sum (by ." in first
    assert left_open.startswith("A difference from concat cannot be shown for the other 1: ")


def test_nothing_finished_is_said():
    rows = summarise({Contestant("bc-lstm", "concat"): {0: []}})
    assert "nothing can be compared" in headline(rows)
    assert verdict(rows[0]) == "No run has finished."


def test_fusions_are_ranked_over_hosts(compared):
    fusions = {"concat": 0.4, "gated": 0.6, "lmam": 0.8}
    rows = compared({Contestant(h, f): p for h in ("a", "b", "c", "d") for f, p in fusions.items()}, seeds=2)
    ranks = ranks_of(rows)
    assert ranks is not None
    assert (ranks.names, ranks.mean, ranks.blocks) == (("lmam", "gated", "concat"), (1.0, 2.0, 3.0), 4)
    assert "Over four hosts the fusions' ranks differ" in headline(rows)
    assert "lmam ranks first, clearly before concat" in headline(rows)
    assert ranks_of([r for r in rows if r.host in "ab"]) is None
    assert ranks_of([r for r in rows if r.fusion != "gated"]) is None
