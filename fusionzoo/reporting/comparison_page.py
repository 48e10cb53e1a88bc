"""The page of a comparison: a sentence, a table, the seeds, and everything else behind what opens."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._csv import read_csv
from fusionzoo._text import markup
from fusionzoo.reporting import charts, plots
from fusionzoo.reporting.curves import training_curves
from fusionzoo.reporting.origin import origin_text, versions_text
from fusionzoo.reporting.pages import (
    TEST_SELECTED,
    WITHOUT_PICTURES,
    code,
    columns,
    details,
    heading,
    links,
    page,
    paragraph,
    picture,
    warning,
)
from fusionzoo.reporting.rows import Row, ranks_of
from fusionzoo.reporting.table import SCREEN, Link, Table
from fusionzoo.reporting.trials import trials_part
from fusionzoo.reporting.verdicts import sentences, verdict
from fusionzoo.runs.folder import read_result
from fusionzoo.scoring.metrics import MAIN, METRICS
from fusionzoo.scoring.regression import SHORT

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ResultFile
    from fusionzoo.data.corpus import Corpus

#: How the remark begins that the page has no need of: its first sentence says so, and its picture shows it.
REACHABLE = "Best reachable test"

_HOW_TO_READ = (
    "Means are over seeds. The difference is that of the means on the seeds which a row shares with its baseline. p is of the "
    "paired t-test over these seeds, with Holm's correction over the whole table; the interval of the difference comes from "
    "drawing the test dialogues anew (bootstrap). A difference is clear, and bold, only if both tests agree at 5 %.",
    "“Could show” is the smallest true difference that so many seeds, and so many test dialogues, show in four of five cases, at "
    "the strictest step of the correction. Where no difference can be shown, one smaller than this may well be there.",
    "In “almost stochastic order”, 0 means better than the baseline in every quantile over seeds, 1 worse in every one; below 0.2 "
    "chance is a poor explanation. It and the permutation test assume no distribution; with five seeds the latter never "
    "comes below .062.",
)


def comparison_page(
    folder: Path,
    rows: Sequence[Row],
    table: Table,
    facts: Mapping[str, Any],
    options: str,
    corpora: Mapping[str, Corpus],
) -> str:
    """`report.html` of a comparison.

    Parameters
    ----------
    folder : of the comparison, from which links lead to the runs.
    rows : of `summarise`.
    table : of `table_of`.
    facts : the contents of `summary.json`.
    options : what was compared, as YAML.
    corpora : label -> the data that the runs were trained on.
    """
    names = ", ".join(c.name for c in corpora.values())
    seeds = ", ".join(map(str, facts["seeds"]))
    leaks = [leak for corpus in corpora.values() for leak in corpus.said("leaks")]
    notes = table.notes[1:]  # the first one is all sentences together
    first, *others = sentences(rows)
    parts = [paragraph(first, "lede"), *map(paragraph, others)]
    trials = max((len(study["trials"]) for r in rows for study in r.tuned), default=0)
    tuned = f"; every row tuned by {trials} trials on dev" if trials else ""
    parts.append(paragraph(f"Data {names}; seeds {seeds}; epoch chosen on {facts['selection']}{tuned}.", "note"))
    red = [n for n in notes if n == TEST_SELECTED or n.startswith("FAILED")]
    parts += [warning(n) for n in (*red, *leaks)]
    parts += [paragraph(n) for n in notes if n not in red and not n.startswith(REACHABLE)]
    shown = table.fitting(SCREEN).filled()
    linked = [[Link(str(row[0]), f"#row-{i}"), *row[1:]] for i, row in enumerate(shown.rows)]
    parts.append(Table(shown.header, linked).html(sortable=True))
    parts += [*_seeds(rows), *_ranks(rows), heading("Row by row")]
    runs = [[(f, r) for of in row.runs.values() for f in of if (r := read_result(f)) is not None] for row in rows]
    parts += [*_row_details(folder, rows, runs), _beyond(folder), heading("How this was made")]
    parts += _origin([r for of in runs for _, r in of], facts, options, table)
    return page(_title(rows, names), parts)


def _beyond(folder: Path) -> str:
    """The way to what models do beyond their scores."""
    if (folder / "diagnosis.html").exists():
        return links([("What the models do beyond their scores: diagnosis", "diagnosis.html")])
    return paragraph(f"What the models do beyond their scores: fusionzoo diagnose {shlex.quote(str(folder))}", "note")


def _title(rows: Sequence[Row], data: str) -> str:
    fusions, hosts = (list(dict.fromkeys(getattr(r, k) for r in rows)) for k in ("fusion", "host"))
    what = f"{len(fusions)} fusions" if len(fusions) > 1 else fusions[0]
    where = f"{len(hosts)} hosts" if len(hosts) > 2 else " and ".join(hosts)
    return f"Comparison: {what} in {where}, {data}"


def _seeds(rows: Sequence[Row]) -> list[str]:
    """Every seed as a dot, contests one after the other."""
    shown = [r for r in rows if r.per_seed]
    if not shown:
        return []
    against = {r.contestant.contest: r.test[MAIN]["mean"] for r in shown if r.baseline is None}
    groups: dict[str, list[charts.Strip]] = {}
    for r in shown:
        score = r.test[MAIN]
        low, high = score["low"], score["high"]
        strip = charts.Strip(
            name=r.fusion,
            values=list(r.per_seed.values()),
            mean=score["mean"],
            interval=None if low is None or high is None else (low, high),
            against=against.get(r.contestant.contest) if r.baseline else None,
            ceiling=r.ceiling,
        )
        groups.setdefault(", ".join([r.host, *r.axes.values()]), []).append(strip)
    words = f"Test {METRICS[MAIN].short} of every seed"
    return [heading(words), charts.strips(groups, "a seed", "mean of the baseline")]


def _ranks(rows: Sequence[Row]) -> list[str]:
    """Fusions over hosts and data sets, where there are enough of both."""
    ranks = ranks_of(rows)
    if ranks is None:
        return []
    words = (
        f"Mean ranks over {ranks.blocks} hosts, data sets and protocols; 1 is the best. Fusions that a bar joins are not told apart "
        "(Nemenyi, 5 %). Hosts that share data are not independent of each other, so that this is the lenient reading."
    )
    cells = [[n, r] for n, r in zip(ranks.names, ranks.mean, strict=True)]
    table = Table(
        ["fusion", "mean rank"], cells, [f"Critical difference {ranks.critical:.2f}; Friedman p {ranks.p:.3f}."]
    )
    if not plots.have_plots():
        return [heading("Ranks"), paragraph(words, "note"), table.html(), paragraph(WITHOUT_PICTURES, "note")]
    drawn = f'<div class="scroll"><div class="drawing">{picture(plots.critical_difference(ranks), words)}</div></div>'
    return [heading("Ranks"), paragraph(words, "note"), drawn]


# -- row by row -------------------------------------------------------------------------------------------------------


def _row_details(folder: Path, rows: Sequence[Row], runs: Sequence[Sequence[tuple[Path, ResultFile]]]) -> Iterator[str]:
    classes = [_f1_of_classes(of) for of in runs]
    for i, row in enumerate(rows):
        base = next((j for j, b in enumerate(rows) if b.baseline is None and _same_contest(b, row)), i)
        against = classes[base] if row.baseline else None
        place = ", ".join([row.host, *row.axes.values()])
        summary = f'<b>{markup(row.fusion)}</b> <span class="place">in {markup(place)}</span>: {markup(verdict(row))}'
        yield details(summary, _one_row(folder, row, runs[i], classes[i], against), f"row-{i}")


def _same_contest(a: Row, b: Row) -> bool:
    return a.contestant.contest == b.contestant.contest


def _one_row(
    folder: Path,
    row: Row,
    runs: Sequence[tuple[Path, ResultFile]],
    classes: Mapping[str, float],
    against: Mapping[str, float] | None,
) -> list[str]:
    """Numbers, classes, confusion, curves and the way to every run."""
    parts = [warning(f"FAILED {name}: {why}") for name, why in row.failed.items()]
    numbers = [_scores(row).html()]
    if row.difference is not None:
        numbers.append(_beside_baseline(row).html())
    parts += [columns(numbers), paragraph(_cost(row), "note")]
    parts += [paragraph(said) for said in _sentiment([r for _, r in runs])]
    tested = [r["test"] for _, r in runs if r["test"]]
    if tested:
        counts = np.sum([np.asarray(s["confusion"]) for s in tested], axis=0)
        mark = f", and that of {row.baseline} (dotted)" if against else ""
        drawn = [
            heading(f"F1 of every class{mark}", 3) + charts.bars(classes, against),
            heading("Confusion, all seeds together", 3) + charts.confusion(counts, list(tested[0]["per_class"])),
        ]
        parts.append(columns(drawn))
    histories = [(read_csv(f / "metrics.csv"), r) for f, r in runs if (f / "metrics.csv").exists()]
    if histories:
        parts.append(training_curves(histories))
    parts += trials_part(row.tuned)
    where = [(_run_name(f, r), Path(os.path.relpath(f, folder)).as_posix() + "/report.html") for f, r in runs]
    return [*parts, heading("Runs", 3), links(where)]


def _run_name(folder: Path, result: ResultFile) -> str:
    score = "" if not result["test"] else f": {METRICS[MAIN].show(result['test'][MAIN])}"
    return f"{folder.name}{score}"


def _f1_of_classes(runs: Sequence[tuple[Path, ResultFile]]) -> dict[str, float]:
    """Class -> its test F1, mean over runs."""
    tested = [r["test"]["per_class"] for _, r in runs if r["test"]]
    return {name: float(np.mean([t[name]["f1"] for t in tested])) for name in (tested[0] if tested else {})}


def _scores(row: Row) -> Table:
    header = ["score", "dev", "test", "± seeds", "from", "to"]
    cells = []
    for key, metric in METRICS.items():
        test = row.test[key]
        values = (row.dev[key]["mean"], *(test[k] for k in ("mean", "sd", "low", "high")))
        cells.append([metric.short, *(metric.show(v) or "–" for v in values)])
    return Table(header, cells)


def _cost(row: Row) -> str:
    cost = [] if row.parameters is None else [f"{row.parameters:,} parameters"]
    cost += [] if row.flops is None else [f"{row.flops / 1e6:.2f} MFLOPs per utterance"]
    cost += [] if row.seconds is None else [f"{row.seconds:.1f} s of training"]
    said = f"{', '.join(cost)}. " if cost else ""
    return f"{said}From and to are the ends of the mean's 95 % interval over seeds; – where there are too few."


def _sentiment(results: Sequence[ResultFile]) -> list[str]:
    """Scores of sentiment, where the data have such."""
    found = [r for result in results if result["test"] and (r := result["test"].get("regression"))]
    if not found:
        return []
    shown = []
    for key, name in SHORT.items():
        values = [v for r in found if (v := r.get(key)) is not None]
        shown += [f"{name} {np.mean(values):.4f}"] if values else []
    return [f"Of predicted scores on test, mean over seeds: {', '.join(shown)}."]


def _beside_baseline(row: Row) -> Table:
    low, high = row.bootstrap or (None, None)
    lines = [
        ["difference", row.difference, "+.4f"],
        ["with other test dialogues, from", low, "+.4f"],
        ["with other test dialogues, to", high, "+.4f"],
        ["p, t-test over seeds", row.p, ".4f"],
        ["the same, corrected (Holm)", row.p_holm, ".4f"],
        ["p, permutations over seeds", row.p_permutation, ".4f"],
        ["almost stochastic order", row.order, ".2f"],
        [f"could be shown by {row.pairs} seeds", row.smallest_seeds, ".4f"],
        [f"could be shown by {row.dialogues} dialogues", row.smallest_dialogues, ".4f"],
    ]
    cells = [[name, "–" if value is None else format(value, form)] for name, value, form in lines]
    return Table([f"beside {row.baseline}", f"test {METRICS[MAIN].short}"], cells)


# -- where it comes from ----------------------------------------------------------------------------------------------


def _origin(results: Sequence[ResultFile], facts: Mapping[str, Any], options: str, table: Table) -> Iterator[str]:
    yield details("<b>How to read it</b>", [paragraph(p) for p in _HOW_TO_READ])
    yield code("What was compared", options)
    yield code("Command and data", origin_text(facts["command"], results))
    yield code("Versions", versions_text(facts["packages"]))
    copies = {
        "Markdown": "summary.md",
        "CSV, every number": "summary.csv",
        "JSON": "summary.json",
        "LaTeX": "summary.tex",
    }
    yield details("<b>The table for a paper</b>", [links(list(copies.items())), f"<pre>{markup(table.latex())}</pre>"])
