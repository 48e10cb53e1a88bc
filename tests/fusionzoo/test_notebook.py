"""Results show themselves in a notebook as small tables, with names as text and never as markup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import nn

import fusionzoo
from fusionzoo._notebook import html_list, html_table
from fusionzoo.experiments.grid import Comparison
from fusionzoo.experiments.single_run import SELECTED_ON_TEST, RunResult
from fusionzoo.reporting.diagnosis import Diagnosis
from fusionzoo.scoring.diagnostics.predicted import Finding


def shown(thing) -> str:
    """The text of what a notebook shows, which must be well-formed."""
    return " | ".join(
        t.strip() for t in ElementTree.fromstring(f"<x>{thing._repr_html_()}</x>").itertext() if t.strip()
    )


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(12, 2)

    def forward(self, text, audio):
        return self.out(torch.cat([text, audio], -1))


def test_names_are_text():
    html = html_table("<a>", ["<b>"], [["<c>"]]) + html_list("<d>", ["<e>"], ["<f>"])
    assert not any(f"<{c}>" in html for c in "acef")
    assert "&lt;b&gt;" in html
    assert "and 3 more" in html_table("", [], [["x"]] * 43)


def test_fused_results():
    torch.manual_seed(0)
    fusion = fusionzoo.get("gated")({"text": 4, "audio": 3})
    text = shown(fusion.fuse({"text": torch.zeros(2, 5, 4), "audio": torch.zeros(2, 5, 3)}))
    assert text.startswith("Fused | fused | (2, 5, 4) float32 cpu")
    assert "attention['gate'] | (2, 5, 4, 2) float32 cpu" in text


def test_a_corpus(corpus):
    text = shown(replace(corpus, info={"leaks": ["row <7> is there twice"]}))
    assert text.startswith(f"demo: {len(corpus)} utterances, 24 dialogues | text | 32 wide")
    assert "split train" in text
    assert "leak | row <7> is there twice" in text


def test_sites_and_a_patch():
    torch.manual_seed(0)
    model, batch = Joined().eval(), (torch.randn(3, 8), torch.randn(3, 4))
    sites = fusionzoo.find_sites(model, *batch, modalities=["text", "audio"])
    assert shown(sites).startswith("1 sites | kind | where")
    patch = fusionzoo.patch(model, "concat", site=sites[0], inputs=batch)
    assert "proof" in shown(patch)
    assert repr(patch).startswith("Patch(")


def result_of(**more):
    scores = {**dict.fromkeys(("weighted_f1", "macro_f1", "ua", "wa"), 0.5)}
    values = {
        "host": "bc-lstm",
        "fusion": "<lmam>",
        "seed": 3,
        "epoch": 2,
        "epochs": 9,
        "parameters": 1234,
        "selection": "dev",
    }
    return RunResult(Path("runs/x"), {**values, "dev": None, "test": scores, **more})  # type: ignore[typeddict-item]


def test_a_run_shows_its_scores_and_not_all_its_numbers():
    run = result_of()
    assert repr(run) == "RunResult(bc-lstm + <lmam>, seed 3, test W-F1 0.5000, 'runs/x')"
    assert shown(run).startswith("bc-lstm + <lmam>, seed 3 | split | W-F1")
    assert SELECTED_ON_TEST not in shown(run)
    assert SELECTED_ON_TEST in shown(result_of(selection="test"))
    assert repr(result_of(test=None)) == "RunResult(bc-lstm + <lmam>, seed 3, 'runs/x')"


def test_a_comparison_and_a_diagnosis(tmp_path):
    done = Comparison(tmp_path, [], {"a__b__seed0": "broke"})
    assert repr(done) == f"Comparison(0 rows, 1 failed, {str(tmp_path)!r})"
    assert "FAILED a__b__seed0: broke" in shown(done)
    found = Diagnosis("Diagnosis of x", [], [Finding("a", "fine"), Finding("b", "<bad>", grave=True)], [], {}, tmp_path)
    assert repr(found) == "Diagnosis('Diagnosis of x': 2 findings, 1 grave)"
    assert shown(found) == "Diagnosis of x | <bad> | fine"
