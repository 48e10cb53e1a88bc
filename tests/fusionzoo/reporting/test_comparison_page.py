"""What a comparison writes."""

from __future__ import annotations

import json
import re

import pandas
import pytest

from fusionzoo._text import markup
from fusionzoo.reporting.comparison import Contestant, numbers_of
from fusionzoo.reporting.plots import critical_difference, draw_curves, svg
from fusionzoo.reporting.rows import ranks_of


def test_every_file_says_the_same(compared, written):
    rows = compared({"concat": 0.5, "lmam": 0.7, "<b>|$x_y": 0.5})
    folder = written(rows, {"dialogue-gcn__tfn__seed0": "OptionError: <i>no</i>"})
    facts = json.loads((folder / "summary.json").read_text())
    assert facts["format"] == 1
    assert facts["rows"][1]["runs"]["0"] == ["runs/dialogue-gcn__lmam__seed0"]
    assert facts["rows"][1]["verdict"] in (folder / "summary.md").read_text()
    page = (folder / "report.html").read_text()
    assert markup(facts["rows"][1]["verdict"]) in page
    assert facts["headline"].split(". ")[0] in page
    assert f"{rows[1].test['weighted_f1']['mean']:.4f}" in (folder / "summary.tex").read_text()
    assert '<p class="warning">FAILED dialogue-gcn__tfn__seed0: OptionError: &lt;i&gt;no&lt;/i&gt;</p>' in page
    assert "<b>|$x_y" not in page
    frame = pandas.read_csv(folder / "summary.csv")
    assert frame["test_weighted_f1_mean"].tolist() == [r.test["weighted_f1"]["mean"] for r in rows]


def test_one_number_a_cell(compared, written):
    page = (written(compared({"concat": 0.5, "lmam": 0.7})) / "report.html").read_text()
    table = page[page.index('<table class="sortable">') : page.index("</table>")]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", table)
    assert len(cells) == 2 * len(re.findall("<th[ >]", table))
    numbers = [re.findall(r"[\d.,]+", re.sub(r"<[^>]*>", "", c)) for c in cells]
    assert max(map(len, numbers)) == 1


def test_the_page_links_to_runs_that_are_there_and_loads_nothing(compared, written):
    folder = written(compared({"concat": 0.5, "lmam": 0.7}, seeds=2))
    page = (folder / "report.html").read_text()
    links = re.findall(r'href="(runs/[^"]*)/report.html"', page)
    assert len(links) == 4
    assert all((folder / link / "result.json").exists() for link in links)
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert not re.search(r"@import|url\((?!#)", page)


def test_where_it_comes_from(compared, written):
    page = (written(compared({"concat": 0.5}, seeds=1)) / "report.html").read_text()
    assert f"data made: SHA-256 {'0' * 64}" in page
    assert re.search(r"^torch \d", page, re.MULTILINE)
    assert "batch_size" in page
    assert r"\begin{tabular}" in page


def test_trials_stand_behind_their_row(compared, written):
    rows = compared({"concat": 0.5}, seeds=1)
    trials = [
        {
            "number": 0,
            "state": "complete",
            "score": 0.61,
            "epochs": 8,
            "seconds": 3.25,
            "values": {"training.lr": 1e-3},
        },
        {"number": 1, "state": "pruned", "score": 0.2, "epochs": 2, "seconds": 1.0, "values": {"training.lr": 0.5}},
        {"number": 2, "state": "complete", "score": 0.66, "epochs": 8, "seconds": 3.5, "values": {"training.lr": 2e-3}},
    ]
    study = {"fold": None, "metric": "weighted_f1", "default": {"training.lr": 1e-3}, "chosen": {"training.lr": 2e-3}}
    rows[0].tuned = [study | {"score": 0.66, "trials": trials}]
    page = (written(rows) / "report.html").read_text()
    assert "every row tuned by 3 trials on dev" in page
    assert "lr 0.002 (W-F1 0.660, beside 0.610 with the values it has anyway; 2 complete, 1 pruned)." in page
    assert "<strong>0.6600</strong>" in page


def test_as_a_data_frame(compared):
    rows = compared({"concat": 0.5, Contestant("dialogue-gcn", "lmam", ()): 0.7}, seeds=3)
    frame = numbers_of(rows).to_pandas()
    assert frame.loc[1, "difference"] == rows[1].difference
    assert frame["fusion"].tolist() == ["concat", "lmam"]
    assert pandas.isna(frame.loc[0, "p"])
    assert frame.loc[1, "verdict"]


def test_without_matplotlib_the_page_has_its_strips_and_ranks(compared, written, monkeypatch):
    from fusionzoo.reporting import plots

    monkeypatch.setattr(plots, "have_plots", lambda: False)
    right = {Contestant(h, f): 0.5 for h in "abc" for f in ("concat", "lmam", "sum")}
    folder = written(compared(right, seeds=1))
    page = (folder / "report.html").read_text()
    assert not (folder / "comparison.png").exists()
    assert "<svg" in page, "curves need no matplotlib"
    assert "mean rank" in page
    assert 'class="strips"' in page


def test_pictures_take_the_colours_of_the_page(compared):
    rows = compared({Contestant(h, f): 0.5 for h in "abc" for f in ("concat", "lmam", "$um")}, seeds=1)
    ranks = ranks_of(rows)
    assert ranks is not None
    drawn = svg(critical_difference(ranks))
    assert drawn.startswith("<svg ")
    assert "currentColor" in drawn
    assert "#000000" not in drawn
    assert "$um" in drawn
    names, used = (set(re.findall(p, drawn)) for p in (r' id="([^"]*)"', r'(?:href="#|url\(#)([^")]*)'))
    assert used <= names
    assert drawn == svg(critical_difference(ranks))


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 40])
def test_ticks_of_epochs_are_whole(epochs):
    history = [
        {"epoch": e, "train_loss": 1.0, "dev_log_loss": 1.0, "train_weighted_f1": 0.5, "dev_weighted_f1": 0.5}
        for e in range(1, epochs + 1)
    ]
    figure = draw_curves(history, {"selection": "dev", "epoch": epochs})  # type: ignore[typeddict-item]
    for axis in figure.axes:
        ticks = [t for t in axis.get_xticks() if axis.get_xlim()[0] <= t <= axis.get_xlim()[1]]
        assert ticks
        assert all(float(t).is_integer() for t in ticks)
