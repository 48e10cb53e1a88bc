"""benchmarks/repositories, which runs the patcher on public models: that its own checks can fail."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo.patching import Call

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not part of this copy of the tests")
LENGTHS = [6, 4, 3, 2]
BUILDER: Any = SimpleNamespace(LENGTHS=LENGTHS, STREAMS={0: 1, 1: 1})


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("batches", "checks", "page", "table")
    return SimpleNamespace(**{name: importlib.import_module(f"repositories.{name}") for name in names})


class Dialogues(nn.Module):
    """Features are (T, B, d); every utterance is classified."""

    def __init__(self, broken: bool = False):
        super().__init__()
        self.text, self.audio, self.head = nn.Linear(7, 8), nn.Linear(5, 8), nn.Linear(16, 3)
        self.broken = broken

    def forward(self, text: torch.Tensor, audio: torch.Tensor, umask: torch.Tensor) -> torch.Tensor:
        if self.broken:
            raise ValueError("made for another version of torch")
        return self.head(torch.cat([self.text(text), self.audio(audio)], -1))


def a_call(runner: Any) -> Call:
    return Call(*runner.batches.features(LENGTHS, 7, 5), runner.batches.lengths_mask(LENGTHS).float())


def test_a_model_that_is_right(runner: Any) -> None:
    record = runner.checks.examine(BUILDER, lambda: (Dialogues(), a_call(runner), {}), "lmam", True)
    assert (record["state"], record["proved"]) == ("right", True), record
    assert set(record["checks"].values()) == {True}
    assert {p["state"] for p in record["proof"]} == {"proved"}, record["proof"]


def test_a_model_that_does_not_run_and_one_that_is_refused(runner: Any) -> None:
    record = runner.checks.examine(BUILDER, lambda: (Dialogues(broken=True), a_call(runner), {}), "lmam", True)
    assert (record["state"], record["error"]) == ("does not run", "ValueError: made for another version of torch")

    record = runner.checks.examine(BUILDER, lambda: (nn.Linear(7, 3), Call(torch.randn(4, 7)), {}), "lmam", True)
    assert record["state"] == "refused"
    assert "Error: " in record["error"]


@pytest.mark.parametrize(("layout", "apart"), [("(T, B, d)", True), ("(B, T, d)", False)])
def test_leaks_are_seen_without_the_library(runner: Any, layout: str, apart: bool) -> None:
    """What the builder says of its batch is enough to see a layout that was read wrongly."""
    torch.manual_seed(0)
    model, call = Dialogues(), a_call(runner)
    host = runner.checks.Model(model, call)
    patch = fusionzoo.patch(model, "lmam", inputs=call, layout=layout, context=lambda *_: {}, prove=False)
    seen = runner.checks.independent(BUILDER, host, patch)
    assert (seen["apart"], seen["felt"]) == (apart, True)


def test_a_changed_call_has_the_containers_that_it_had(runner: Any) -> None:
    x = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    held = SimpleNamespace(x=x.clone())
    call = Call((x, [2, 1]), [x], held, batch={"a": (x,)})
    streams = {(0, 0): 0, (1, 0): 0, (2, "x"): 0, ("batch", "a", 0): 0}
    made = runner.batches.changed(call, [1], streams, None)
    (pair, listed, other), batch = made.args, made.kwargs["batch"]
    assert (type(pair), type(listed), type(batch["a"]), pair[1]) == (tuple, list, tuple, [2, 1])
    for y in (pair[0], listed[0], other.x, batch["a"][0]):
        assert (y != x).tolist() == [[False] * 3, [True] * 3]
    assert torch.equal(call.args[0][0], torch.arange(1.0, 7).view(2, 3))


def test_padding_is_seen_without_the_library(runner: Any) -> None:
    torch.manual_seed(0)
    model, call = Dialogues(), a_call(runner)
    host = runner.checks.Model(model, call)
    patch = fusionzoo.patch(model, "lmam", inputs=call, layout="(T, B, d)", context=lambda *_: {}, prove=False)
    assert runner.checks.independent(BUILDER, host, patch)["padding"] is False


def test_records_of_other_runs_stay_and_become_the_page(runner: Any, tmp_path: Path) -> None:
    site = {"kind": "cat", "where": "a/model.py:3", "layout": "(B, d)", "widths": {"text": 1, "audio": 1}}
    proof = [{"words": words, "state": "proved", "why": ""} for words in runner.page.PROMISES]
    checks = dict.fromkeys(("step 0", "step", "remove", "saved", "samples apart", "padding unseen", "felt"), True)
    record = {"fusion": "lmam", "alone": False, "state": "right", "proved": True, "given": [], "adapter": False}
    record |= {"site": site, "proof": proof, "checks": checks, "repository": "a/b", "commit": "0123456789"}
    record |= {"conditions": "here", "patcher": "new"}
    failed = {"name": "two", "fusion": "lmam", "alone": False, "state": "does not run", "error": "no clone"}
    file = tmp_path / "records.json"
    runner.table.keep(file, [{**record, "name": "one"}, failed])
    four = {**record, "name": "four", "given": ["modalities"], "without": "ModalityError: no names", "patcher": "old"}
    runner.table.keep(file, [{**record, "name": "three"}, {**record, "name": "one", "proved": False}, four])
    records = json.loads(file.read_text())
    assert [(r["name"], r.get("proved")) for r in records] == [
        ("four", True),
        ("one", False),
        ("three", True),
        ("two", None),
    ]

    text = "words\n" + "".join(f"<!-- {name} -->\nof before\n<!-- /{name} -->\n" for name in runner.page.parts(records))
    page = tmp_path / "page.md"
    page.write_text(text)
    runner.page.rewrite(page, records)
    text = page.read_text()
    assert "of before" not in text
    assert (
        "| [b](https://github.com/a/b/tree/0123456789), `three` | cat, `model.py:3`, `(B, d)` | ✓ | ✓ ✓ ✓ ✓ ✓ ✓ | ✓ ✓ ✓ | ✓ |"
        in text
    )
    assert "Conditions: here; the rows are by one state of the patcher; by other states of it: `four`." in text
    assert "| further | 3 of 4 | 1 (33%) | 1 (33%) | 2 (67%) | 1 |" in text
    assert "- `two`: does not run: no clone" in text
    assert "- `four`: `modalities=`, for without: ModalityError: no names" in text
    runner.page.rewrite(page, records)
    assert page.read_text() == text

    page.write_text("no marks")
    with pytest.raises(SystemExit, match="has 0 pairs of marks <!-- conditions -->"):
        runner.page.rewrite(page, records)


def test_the_page_agrees_with_itself(runner: Any) -> None:
    """Every builder has a row; what the rows say adds up to the sums."""
    text = runner.table.PAGE.read_text(encoding="utf-8")

    def rows(name: str) -> list[list[str]]:
        part = text.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
        return [[c.strip() for c in line.strip("|").split(" | ")] for line in part.strip().splitlines()[2:]]

    known, further = rows("known"), rows("further")
    builders = {p.stem for p in (BENCHMARKS / "repositories" / "builders").glob("[!_]*.py")}
    assert {r[0].split("`")[1] for r in known + further} == builders
    both = [r[-1].split(" · ") for r in known]
    columns = [[b[0] for b in both], [b[1] for b in both if b[1:]], [r[-1] for r in further]]
    marks = runner.page.PLAIN, runner.page.NAMED
    for sums, said in zip(rows("sums"), columns, strict=True):
        assert int(sums[1].split(" of ")[1]) == len(said), sums
        assert [int(n.split(" ")[0]) for n in sums[2:4]] == [said.count(m) for m in marks], sums


def test_where_padding_reaches_everything_the_builder_can_tell_nothing_of_it(runner: Any) -> None:
    class Pooled(Dialogues):
        def forward(self, text: torch.Tensor, audio: torch.Tensor, umask: torch.Tensor) -> torch.Tensor:
            return super().forward(text, audio, umask).mean(0)

    torch.manual_seed(0)
    model, call = Pooled(), a_call(runner)
    host = runner.checks.Model(model, call)
    patch = fusionzoo.patch(model, "lmam", inputs=call, layout="(T, B, d)", context=lambda *_: {}, prove=False)
    assert runner.checks.independent(BUILDER, host, patch)["padding"] is None
