"""From the run folders of a comparison to its tables, plot and page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._csv import csv_text
from fusionzoo._files import write_bytes, write_json, write_text
from fusionzoo._text import unmathematical, visible
from fusionzoo.reporting import plots
from fusionzoo.reporting.pages import TEST_SELECTED, code, image, page, paragraph, warning
from fusionzoo.reporting.table import Strong, Table
from fusionzoo.runs.config import WITHOUT_FUSION, model_title
from fusionzoo.runs.folder import read_predictions, read_result
from fusionzoo.runs.options import NO_FUSION
from fusionzoo.scoring import statistics
from fusionzoo.scoring.ceiling import best_reachable
from fusionzoo.scoring.metrics import MAIN, METRICS, Metric

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ResultFile
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.runs.config import RunConfig

#: Mean, sample deviation and interval of a score; None where undefined.
Spread = Mapping[str, float | None]
#: Seed -> dialogue -> confusion matrix.
Confusions = Mapping[int, Mapping[str, np.ndarray]]


@dataclass
class Row:
    """One host with one fusion over its seeds.

    Parameters
    ----------
    host, fusion : their labels.
    n : finished runs.
    dev, test : score -> `{"mean", "sd", "low", "high"}`, the interval being that of the mean over seeds (95 %, t).
    per_seed : seed -> test score, of the main metric.
    selection : the split on which epochs were chosen.
    parameters : that are trained.
    flops : per utterance, forward.
    seconds : of training, mean over seeds.
    difference : mean test score minus the baseline's on the same seeds, None for the baseline itself.
    p, p_holm : paired t-test over seeds, and after Holm's correction over the whole comparison.
    bootstrap : 95 % interval of the difference when the test dialogues are drawn anew.
    """

    host: str
    fusion: str
    n: int
    dev: dict[str, dict[str, float | None]]
    test: dict[str, dict[str, float | None]]
    per_seed: dict[int, float]
    selection: str
    parameters: int | None
    flops: float | None
    seconds: float | None
    difference: float | None = None
    p: float | None = None
    p_holm: float | None = None
    bootstrap: tuple[float, float] | None = None

    @property
    def clear(self) -> bool:
        """Whether the difference from the baseline holds over seeds (corrected) and over dialogues."""
        low_high = self.bootstrap
        return (
            self.p_holm is not None
            and self.p_holm < 0.05
            and low_high is not None
            and (low_high[0] > 0 or low_high[1] < 0)
        )


# -- the numbers ------------------------------------------------------------------------------------------------------


def summarise(groups: Mapping[tuple[str, str], Sequence[Path]]) -> list[Row]:
    """Rows of a comparison from `(host, fusion) -> run folders`; the first fusion of each host is its baseline."""
    rows: list[Row] = []
    confusions: dict[tuple[str, str], Confusions] = {}
    for (host, fusion), folders in groups.items():
        results = {r["seed"]: (f, r) for f in folders if (r := read_result(f)) is not None}
        rows.append(_row(host, fusion, [r for _, r in results.values()]))
        confusions[host, fusion] = {seed: _test_confusions(f, r) for seed, (f, r) in results.items() if r["test"]}
    baselines: dict[str, Row] = {}
    for row in rows:
        baseline = baselines.setdefault(row.host, row)
        if row is not baseline:
            _compare(row, baseline, confusions)
    for row, p in zip(rows, statistics.holm([r.p for r in rows]), strict=True):
        row.p_holm = p
    return rows


def _row(host: str, fusion: str, results: Sequence[ResultFile]) -> Row:
    """What one model's runs say by themselves."""
    scores: dict[str, list[Any]] = {s: [r[s] for r in results if r[s]] for s in ("dev", "test")}
    dev, test = ({k: statistics.mean_interval([x[k] for x in of]) for k in METRICS} for of in scores.values())
    tested = sorted((r["seed"], r["test"]) for r in results if r["test"])
    return Row(
        host=host,
        fusion=fusion,
        n=len(results),
        dev=dev,
        test=test,
        per_seed={seed: score[MAIN] for seed, score in tested},
        selection=results[0]["selection"] if results else "",
        parameters=results[0]["parameters"] if results else None,
        flops=results[0]["flops_per_utterance"] if results else None,
        seconds=float(np.mean([r["seconds"] for r in results])) if results else None,
    )


def _compare(row: Row, baseline: Row, confusions: Mapping[tuple[str, str], Confusions]) -> None:
    """The row beside its host's baseline, on the seeds that both have."""
    seeds = sorted(row.per_seed.keys() & baseline.per_seed.keys())
    if not seeds:
        return
    mine, theirs = ([r.per_seed[s] for s in seeds] for r in (row, baseline))
    row.difference = float(np.mean(mine) - np.mean(theirs))
    row.p = statistics.paired_p(mine, theirs)
    a, b = ([confusions[r.host, r.fusion][s] for s in seeds] for r in (row, baseline))
    row.bootstrap = statistics.bootstrap_difference(a, b)


def _test_confusions(folder: Path, result: ResultFile) -> dict[str, np.ndarray]:
    assert result["test"] is not None  # asked by the caller
    return statistics.dialogue_confusions(read_predictions(folder, result), "test", list(result["test"]["per_class"]))


# -- the tables -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """One column of the table; `narrow` says that it fits a terminal too."""

    name: str
    cell: Callable[[Row], str]
    narrow: bool = True


def _columns() -> list[_Column]:
    main, others = METRICS[MAIN], [k for k in METRICS if k != MAIN]
    return [
        _Column("host", lambda r: r.host),
        _Column("fusion", lambda r: r.fusion),
        _Column("n", lambda r: str(r.n)),
        _Column(f"dev {main.short}", lambda r: _spread(r.dev[MAIN], main), narrow=False),
        _Column(f"test {main.short} [95 % CI]", lambda r: _spread(r.test[MAIN], main, interval=True)),
        *(
            _Column(f"test {METRICS[k].short}", lambda r, k=k: _spread(r.test[k], METRICS[k]), narrow=k == others[0])
            for k in others
        ),
        _Column("parameters", lambda r: "" if r.parameters is None else f"{r.parameters:,}"),
        _Column("MFLOPs/utterance", lambda r: "" if r.flops is None else f"{r.flops / 1e6:.2f}", narrow=False),
        _Column("seconds", lambda r: "" if r.seconds is None else f"{r.seconds:.1f}"),
        _Column("vs first fusion [bootstrap]", _difference),
        _Column("p (Holm)", lambda r: "" if r.p_holm is None else f"{r.p_holm:.3f}"),
    ]


def _spread(value: Spread, metric: Metric, interval: bool = False) -> str:
    if value["mean"] is None:
        return ""
    text = metric.show(value["mean"]) + ("" if value["sd"] is None else f" ± {metric.show(value['sd'])}")
    known = interval and value["low"] is not None
    return text + (f" [{metric.show(value['low'])}, {metric.show(value['high'])}]" if known else "")


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    low_high = "" if row.bootstrap is None else f" [{row.bootstrap[0]:+.4f}, {row.bootstrap[1]:+.4f}]"
    text = f"{row.difference:+.4f}{low_high}"
    return Strong(text) if row.clear else text


def table_of(rows: Sequence[Row], failed: Mapping[str, str], ceiling: float | None, *, narrow: bool = False) -> Table:
    """The table of a comparison, with what to know about it below.

    Parameters
    ----------
    rows : of `summarise`.
    failed : a run's name -> why it failed.
    ceiling : the best score that these data let anybody reach, where that is known.
    narrow : only the columns that fit a terminal.
    """
    columns = [c for c in _columns() if c.narrow or not narrow]
    cells = [[c.cell(row) for c in columns] for row in rows]
    return Table([c.name for c in columns], cells, _remarks(rows, failed, ceiling))


def _remarks(rows: Sequence[Row], failed: Mapping[str, str], ceiling: float | None) -> list[str]:
    remarks = []
    if any(r.selection == "test" for r in rows):
        remarks.append(TEST_SELECTED)
    if ceiling is not None:
        main = METRICS[MAIN]
        remarks.append(f"Best reachable test {main.short} of these data: {main.show(ceiling)}.")
    if any(r.fusion == NO_FUSION for r in rows):
        remarks.append(f"{WITHOUT_FUSION.capitalize()}, so that the rows are hosts alone.")
    if any(r.n == 1 for r in rows):
        remarks.append("One seed says nothing about the spread between seeds; use --seeds 5.")
    remarks += [f"FAILED {name}: {visible(message)}" for name, message in failed.items()]
    return remarks


# -- the files --------------------------------------------------------------------------------------------------------


def configuration(runs: Sequence[tuple[str, str, RunConfig]]) -> dict[str, Any]:
    """What was compared, every option with its value: the sections that all runs share, the hosts, and the fusions in each.

    Parameters
    ----------
    runs : label of the host, label of the fusion, and configuration of each.
    """
    shared = runs[0][2].to_dict()
    del shared["host"], shared["fusion"]
    shared["training"] = {k: v for k, v in shared["training"].items() if k != "seed"}
    hosts: dict[str, Any] = {}
    fusions: dict[str, dict[str, Any]] = {}
    for host, fusion, config in runs:
        hosts.setdefault(host, config.host.to_dict())
        fusions.setdefault(fusion, {}).setdefault(host, config.fusion.to_dict())
    return {
        **shared,
        "seeds": list(dict.fromkeys(config.training.seed for *_, config in runs)),
        "hosts": hosts,
        "fusions": {fusion: _same(by_host) for fusion, by_host in fusions.items()},
    }


def _same(by_host: Mapping[str, Any]) -> Any:
    """A host may give its fusion other defaults; where none does, the fusion is the same in all of them."""
    first, *others = by_host.values()
    return first if all(o == first for o in others) else {f"in {host}": x for host, x in by_host.items()}


def write_summary(
    folder: Path,
    rows: Sequence[Row],
    failed: Mapping[str, str],
    base: RunConfig,
    corpus: Corpus,
    compared: Mapping[str, Any],
) -> None:
    """`summary.json`, `.csv`, `.md` and `.tex`, `comparison.png` and `report.html` of a comparison.

    Parameters
    ----------
    folder : of the comparison.
    rows : of `summarise`.
    failed : a run's name -> why it failed.
    base : what all runs share.
    corpus : what they were trained on.
    compared : see `configuration`.
    """
    from fusionzoo._yaml import dump_yaml

    ceiling = best_reachable(corpus.info, corpus.modalities, "test")
    table, options = table_of(rows, failed, ceiling), dump_yaml(dict(compared))
    write_text(folder / "config.yaml", base.to_yaml())
    write_json(
        folder / "summary.json",
        {
            "format": 1,
            "data": {"name": corpus.name, "info": corpus.info},
            "seeds": compared["seeds"],
            "selection": base.training.selection,
            "ceiling": ceiling,
            "configuration": compared,
            "rows": [asdict(r) | {"clear": r.clear} for r in rows],
            "failed": dict(failed),
        },
    )
    write_text(folder / "summary.csv", csv_text(*_flat(rows)))
    shown = ["## What was compared", "", "```yaml", options.rstrip(), "```", ""]
    write_text(folder / "summary.md", "\n".join([table.markdown(), "", *shown]))
    write_text(folder / "summary.tex", table.latex() + "\n")
    plot = _plot(rows, ceiling) if plots.have_plots() and any(r.n for r in rows) else None
    if plot is not None:
        write_bytes(folder / "comparison.png", plot)
    about = f"Data {corpus.name}; seeds {', '.join(map(str, compared['seeds']))}; epoch chosen on {base.training.selection}."
    parts = [
        paragraph(about),
        *_page_parts(table, corpus.said("leaks"), ceiling, plot),
        code("What was compared", options),
    ]
    write_text(folder / "report.html", page("Comparison", parts))


def _page_parts(table: Table, leaks: Sequence[str], ceiling: float | None, plot: bytes | None) -> list[str]:
    red = [n for n in table.notes if n is TEST_SELECTED or n.startswith("FAILED")]
    parts = [warning(n) if n in red else paragraph(n) for n in table.notes]
    parts += [warning(leak) for leak in leaks]
    rows = list(table.rows)
    if ceiling is not None:
        here = 4  # below the main metric on the test split
        rows.append(
            ["optimal reader", *[""] * (here - 1), METRICS[MAIN].show(ceiling), *[""] * (len(table.header) - here - 1)]
        )
    parts.append(Table(table.header, rows).html())
    parts.append(
        paragraph(
            "Mean ± sample deviation over seeds; the interval is the t interval of the mean. The last columns compare "
            "with the host's first fusion on the same seeds: the difference with a bootstrap interval over test "
            "dialogues, and the paired t-test over seeds with Holm's correction over the whole table. A difference is "
            "clear only if both agree.",
            "note",
        )
    )
    return [*parts, *([] if plot is None else [image(plot, f"test {METRICS[MAIN].short} of every host and fusion")])]


def _flat(rows: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    header = ["host", "fusion", "n", "selection", "parameters", "flops_per_utterance", "seconds"]
    header += [f"{s}_{k}_{v}" for s in ("dev", "test") for k in METRICS for v in ("mean", "sd", "low", "high")]
    header += ["difference", "bootstrap_low", "bootstrap_high", "p", "p_holm"]
    lines = []
    for r in rows:
        line: list[Any] = [r.host, r.fusion, r.n, r.selection, r.parameters, r.flops, r.seconds]
        line += [s[k][v] for s in (r.dev, r.test) for k in METRICS for v in ("mean", "sd", "low", "high")]
        line += [r.difference, *(r.bootstrap or (None, None)), r.p, r.p_holm]
        lines.append(["" if v is None else v for v in line])
    return header, lines


def _plot(rows: Sequence[Row], ceiling: float | None) -> bytes:
    shown = [r for r in rows if r.per_seed]
    fig, axis = plots.figure(8.0, 1.2 + 0.38 * max(len(shown), 1))
    for y, row in enumerate(reversed(shown)):
        score = row.test[MAIN]
        axis.plot(list(row.per_seed.values()), [y] * len(row.per_seed), "o", color="0.7", markersize=4)
        if score["mean"] is not None:
            half = 0.0 if score["high"] is None else score["high"] - score["mean"]
            axis.errorbar([score["mean"]], [y], xerr=[[half], [half]], fmt="o", color="tab:blue", capsize=3)
    if ceiling is not None:
        axis.axvline(ceiling, color="tab:green", linestyle="--", label="best reachable")
        axis.legend(frameon=False)
    axis.set_yticks(range(len(shown)), [unmathematical(model_title(r.host, r.fusion)) for r in reversed(shown)])
    axis.set_ylim(-0.6, len(shown) - 0.4)
    low, high = axis.get_xlim()
    axis.set_xlim(max(low, -0.02), min(high, 1.02))  # an interval from two seeds may be wider than any score
    axis.set_xlabel(f"test {METRICS[MAIN].short}: seeds, mean, 95 % interval of the mean")
    axis.spines[["top", "right"]].set_visible(False)
    return plots.png(fig)
