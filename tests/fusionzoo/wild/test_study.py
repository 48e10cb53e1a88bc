"""benchmarks/wild, the study of docs/wild.md: that its table is sound, that it reads what a script scores, and that its sums are right."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fusionzoo
from fusionzoo.cli.run import own_arguments
from fusionzoo.data.export import LAYOUTS

ROOT = Path(__file__).resolve().parents[3]
BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not part of this copy of the tests")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("evaluations", "one_process", "page", "study", "table")
    return SimpleNamespace(**{name: importlib.import_module(f"wild.{name}") for name in names})


def test_every_script_is_one_that_can_run(study: Any) -> None:
    scripts = study.table.scripts()
    known = [fusionzoo.card(name, kind="adapter").code for name in fusionzoo.names("adapter")]
    asked = set(inspect.signature(fusionzoo.wild.run).parameters)
    assert len({s.name for s in scripts}) == len(scripts) >= 8
    assert sum(s.seeds >= study.page.SEEDS_FOR_INTERVAL for s in scripts) >= 4
    for s in scripts:
        assert any(f"github.com/{s.repository}/tree/{s.commit}" in str(code) for code in known), s.name
        assert s.layout in LAYOUTS
        assert s.rule in study.table.RULES
        assert bool(s.join) == (s.input is not None) != bool(s.widths)
        assert s.file.endswith(".py")
        assert "{" not in "".join(s.arguments(7))
        assert [a for a in s.arguments(7) if re.search(r"\b7$", a)] != [
            a for a in s.arguments(8) if re.search(r"\b7$", a)
        ]
        assert s.arguments(None) == s.arguments(s.epochs)
        assert not Path(s.data).is_absolute()
        re.compile(s.printed or "")
    command = ["run", "--fusion", "lmam", scripts[0].file, *scripts[0].arguments(None)]
    assert own_arguments(command) == 3
    assert {"fusion", "input", "widths", "prove", "device", "seed"} <= asked


def test_the_control_has_the_size_of_lmam(study: Any) -> None:
    for dims, out_dim in (({"text": 60, "audio": 30, "nonverbal": 10}, 60), ({"a": 512, "b": 512, "c": 512}, 512)):
        lmam = fusionzoo.get("lmam")(dims, out_dim)
        size = sum(p.numel() for p in lmam.parameters())
        asked = study.table.fusion_of("control", {"dims": dims, "out_dim": out_dim, "parameters": size})
        control = fusionzoo.get(asked.pop("name"))(dims, out_dim, **asked)
        assert sum(p.numel() for p in control.parameters()) == pytest.approx(size, rel=0.06)
    with pytest.raises(ValueError, match="lmam, which has not run"):
        study.table.fusion_of("control", None)
    assert {study.table.fusion_of(c, None) for c in study.table.CONDITIONS if c != "control"} <= {
        None,
        *fusionzoo.names(),
    }


def test_what_a_script_scores_is_read_by_epoch(study: Any) -> None:
    from sklearn import metrics

    kinds = {"training": 30, "validation": 5, "test": 12}
    labels = {k: np.arange(n) % 6 for k, n in kinds.items()}
    right = {"test": [3, 6, 5, 9], "validation": [2, 3, 4, 1]}
    predicted = {
        k: [np.where(np.arange(kinds[k]) < n, labels[k], (labels[k] + 1) % 6) for n in counts]
        for k, counts in right.items()
    }
    before = metrics.f1_score
    with study.evaluations.Evaluations(test=12, training=35) as seen:
        for epoch in range(4):
            for kind in ("training", "validation", "test", "test"):  # the second time with the padding behind it
                given = predicted[kind][epoch] if kind != "training" else labels[kind]
                padded = [np.append(labels[kind], 0), np.append(given, 5)]
                weights = np.append(np.ones(kinds[kind]), 0)
                score = metrics.f1_score(*padded, average="weighted", sample_weight=weights)
        metrics.f1_score(labels["test"], predicted["test"][1], average="weighted")
    assert metrics.f1_score is before
    epochs = seen.epochs(4)
    assert len(epochs) == 4
    assert epochs[3].f1("test") == pytest.approx(100 * score)
    kept = {"best_label": labels["test"], "best_pred": predicted["test"][2], "best_mask": None}
    rules = study.evaluations.by_rule
    assert [rules(rule, epochs, kept) for rule in study.table.RULES] == [3, 2, 2]
    assert study.evaluations.honest(epochs) == 2
    for epoch in epochs:
        del epoch.matrices["validation"]
    assert study.evaluations.honest(epochs) == 3
    assert len(seen.epochs(2)) == 2


def a_record(script: str, condition: str, seed: int, f1: float) -> dict[str, Any]:
    scores = {
        "by_rule": {"epoch": 1, "f1": f1 + 1},
        "honest": {"epoch": 2, "f1": f1},
        "validation": None,
        "test": [f1 + 1, f1],
    }
    sizes = {"parameters": 10, "projection": 5, "host": 100, "share": 0.1} if condition != "none" else {}
    return {"script": script, "condition": condition, "seed": seed, "epochs": 2, "printed": f1 + 1, **scores, **sizes}


def test_the_sums_of_the_page(study: Any) -> None:
    first, second = (s.name for s in study.table.scripts()[:2])
    records = [a_record(first, "none", seed, 50 + seed) for seed in range(3)]
    records += [a_record(first, "lmam", seed, 52 + 2 * seed) for seed in range(3)]
    records += [a_record(second, "none", 0, 40), a_record(second, "lmam", 0, 39), a_record(second, "none", 1, 10)]
    records += [{"script": second, "condition": "gated", "seed": 0, "error": "took more than 600 s"}]
    assert study.page.pairs(records, first, "lmam", "none", "honest") == [2, 3, 4]
    good = [r for r in records if "error" not in r]
    assert study.page.over_scripts(good, [first, second], "lmam", "none", "by_rule") == [3, -1]
    text = study.page.tables({"machine": "a machine", "records": records}, study.table.scripts())
    assert f"| `{first}` | honest | +3.00 [+0.52, +5.48] |" in text
    assert f"| `{second}` | honest | -1.00 |" in text
    assert "is the one that was read in 9 of 9 runs" in text
    assert f"- `{second}`, gated, seed 0: took more than 600 s" in text


def test_runs_are_balanced_and_the_control_waits_for_its_size(study: Any) -> None:
    scripts = study.table.scripts()[:2]
    order = list(study.study.keys(scripts, ["none", "control"], None))
    assert order[:4] == [(s.name, c, 0) for s in scripts for c in ("none", "control")]
    assert len(order) == 2 * sum(s.seeds for s in scripts)
    assert list(study.study.keys(scripts, ["none"], 1)) == [(s.name, "none", 0) for s in scripts]


def test_the_committed_records_are_of_the_table(study: Any) -> None:
    kept = json.loads((BENCHMARKS / "wild" / "results.json").read_text())
    names = {s.name: s for s in study.table.scripts()}
    for r in kept["records"]:
        assert r["condition"] in study.table.CONDITIONS
        assert r["seed"] < names[r["script"]].seeds
        assert "error" in r or r["epochs"] == names[r["script"]].epochs
