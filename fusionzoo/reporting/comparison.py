"""From the run folders of a comparison to its tables, plot and page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from fusionzoo.scoring.metrics import MAIN, METRICS, Metric, scores_from_confusion

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ResultFile
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.runs.config import RunConfig

#: Mean, sample deviation and interval of a score; None where undefined.
Spread = Mapping[str, float | None]
#: Seed -> dialogue -> confusion matrix.
Confusions = Mapping[int, Mapping[str, np.ndarray]]


#: Axes of a comparison besides host, fusion and seed, in the order in which tables name them.
AXES = ("data", "protocol", "objective")


@dataclass(frozen=True)
class Contestant:
    """What a row of a comparison is about.

    Parameters
    ----------
    host, fusion : their labels.
    axes : axis of `AXES` -> label, of those that vary in this comparison.
    """

    host: str
    fusion: str
    axes: tuple[tuple[str, str], ...] = ()

    @property
    def contest(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What it has in common with its baseline: everything but the fusion."""
        return self.host, self.axes

    @property
    def title(self) -> str:
        """In words."""
        return ", ".join([model_title(self.host, self.fusion), *(label for _, label in self.axes)])


@dataclass
class Row:
    """One host with one fusion over its seeds, on one data set, by one protocol, with one objective.

    Parameters
    ----------
    host, fusion : their labels.
    n : finished seeds; where a protocol has folds, those of which every fold has finished.
    dev, test : score -> `{"mean", "sd", "low", "high"}`, the interval being that of the mean over seeds (95 %, t).
    per_seed : seed -> test score, of the main metric.
    selection : the split on which epochs were chosen.
    parameters : that are trained.
    flops : per utterance, forward.
    seconds : of training, mean over seeds.
    difference : mean test score minus the baseline's on the same seeds, None for the baseline itself.
    p, p_holm : paired t-test over seeds, and after Holm's correction over the whole comparison.
    bootstrap : 95 % interval of the difference when the test dialogues are drawn anew.
    axes : axis of `AXES` -> label, of those that vary in this comparison; empty where only hosts and fusions do.
    failed : a run's name -> why it failed, of this row's runs.
    ceiling : the best test score that these data let anybody reach, where that is known.
    tuned : with `tune`, what was tried and chosen: one entry per study (one; with folds one for each), see
        `fusionzoo.experiments.tuning.Study.facts`.
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
    axes: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    ceiling: float | None = None
    tuned: list[dict[str, Any]] = field(default_factory=list)

    @property
    def contestant(self) -> Contestant:
        """Its labels."""
        return Contestant(self.host, self.fusion, tuple(self.axes.items()))

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


def summarise(groups: Mapping[Contestant, Mapping[int, Sequence[Path]]], baseline: str | None = None) -> list[Row]:
    """Rows of a comparison.

    Parameters
    ----------
    groups : contestant -> seed -> its run folders: one, or one per fold.
    baseline : the fusion that the others are tested against in each host, on each data set, by each protocol; None for
        the first one.
    """
    rows: list[Row] = []
    confusions: dict[Contestant, Confusions] = {}
    for who, by_seed in groups.items():
        seeds = {seed: s for seed, folders in by_seed.items() if (s := _seed(folders)) is not None}
        rows.append(_row(who, seeds))
        confusions[who] = {seed: s.confusions for seed, s in seeds.items() if s.test}
    baselines: dict[Any, Row] = {}
    for row in rows:
        if baseline in (None, row.fusion):
            baselines.setdefault(row.contestant.contest, row)
    for row in rows:
        against = baselines.get(row.contestant.contest, row)
        if row is not against:
            _compare(row, against, confusions)
    for row, p in zip(rows, statistics.holm([r.p for r in rows]), strict=True):
        row.p_holm = p
    return rows


@dataclass(frozen=True)
class _Seed:
    """What a contestant's runs with one seed came to: one run, or every fold.

    Over folds, the test score is that of all held-out predictions together: every utterance is tested once, as with a fixed
    split, and an F1 of sums is not biased as a mean of F1s is. Dev is the mean, since dev splits of folds overlap.
    """

    results: list[ResultFile]
    dev: Mapping[str, Any] | None
    test: Mapping[str, Any] | None
    confusions: Mapping[str, np.ndarray]


def _seed(folders: Sequence[Path]) -> _Seed | None:
    """None where a run is missing: a score over some of the folds is no score of the seed."""
    results = [r for f in folders if (r := read_result(f)) is not None]
    if not results or len(results) < len(folders):
        return None
    tested = all(r["test"] for r in results)
    confusions: dict[str, np.ndarray] = {}
    for folder, result in zip(folders, results, strict=True):
        confusions |= _test_confusions(folder, result) if tested else {}
    if len(results) == 1:
        return _Seed(results, results[0]["dev"], results[0]["test"], confusions)
    of: dict[str, list[Any]] = {split: [r[split] for r in results] for split in ("dev", "test")}
    dev = {k: float(np.mean([s[k] for s in of["dev"]])) for k in METRICS} if all(of["dev"]) else None
    pooled = np.sum([np.asarray(s["confusion"]) for s in of["test"]], axis=0) if tested else None
    test = None if pooled is None else {k: float(v) for k, v in scores_from_confusion(pooled).items()}
    return _Seed(results, dev, test, confusions)


def _row(who: Contestant, seeds: Mapping[int, _Seed]) -> Row:
    """What one model's runs say by themselves."""
    scores: dict[str, list[Any]] = {s: [x for r in seeds.values() if (x := getattr(r, s))] for s in ("dev", "test")}
    dev, test = ({k: statistics.mean_interval([x[k] for x in of]) for k in METRICS} for of in scores.values())
    first = next((s.results[0] for s in seeds.values()), None)
    return Row(
        host=who.host,
        fusion=who.fusion,
        n=len(seeds),
        dev=dev,
        test=test,
        per_seed={seed: seeds[seed].test[MAIN] for seed in sorted(seeds) if seeds[seed].test},  # type: ignore[index]
        selection=first["selection"] if first else "",
        parameters=first["parameters"] if first else None,
        flops=first["flops_per_utterance"] if first else None,
        seconds=float(np.mean([sum(r["seconds"] for r in s.results) for s in seeds.values()])) if seeds else None,
        axes=dict(who.axes),
    )


def _compare(row: Row, baseline: Row, confusions: Mapping[Contestant, Confusions]) -> None:
    """The row beside its baseline, on the seeds that both have."""
    seeds = sorted(row.per_seed.keys() & baseline.per_seed.keys())
    if not seeds:
        return
    mine, theirs = ([r.per_seed[s] for s in seeds] for r in (row, baseline))
    row.difference = float(np.mean(mine) - np.mean(theirs))
    row.p = statistics.paired_p(mine, theirs)
    a, b = ([confusions[r.contestant][s] for s in seeds] for r in (row, baseline))
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


def _columns(rows: Sequence[Row]) -> list[_Column]:
    main, others = METRICS[MAIN], [k for k in METRICS if k != MAIN]
    axes = [a for a in AXES if any(a in r.axes for r in rows)]
    return [
        *(_Column(axis, lambda r, axis=axis: r.axes[axis]) for axis in axes),
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
    columns = [c for c in _columns(rows) if c.narrow or not narrow]
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


def configuration(runs: Sequence[tuple[Contestant, RunConfig]]) -> dict[str, Any]:
    """What was compared, every option with its value: the sections that all runs share, the hosts, and the fusions in each.

    Parameters
    ----------
    runs : contestant and configuration of each.
    """
    sections = {who: config.to_dict() for who, config in reversed(runs)}
    sections = {who: sections[who] for who, _ in runs}
    hosts: dict[str, dict[str, Any]] = {}
    fusions: dict[str, dict[str, Any]] = {}
    for who, config in sections.items():
        hosts.setdefault(who.host, {})[who.title] = config["host"]
        where = ", ".join([who.host, *(label for _, label in who.axes)])
        fusions.setdefault(who.fusion, {})[where] = config["fusion"]
    training = {who: {k: v for k, v in c["training"].items() if k != "seed"} for who, c in sections.items()}
    return {
        "data": _by_axis("data", {who: c["data"] for who, c in sections.items()}),
        "objective": _by_axis("objective", {who: c["objective"] for who, c in sections.items()}),
        "training": _shared(training),
        "seeds": list(dict.fromkeys(config.training.seed for _, config in runs)),
        "hosts": {host: _same(by_title) for host, by_title in hosts.items()},
        "fusions": {fusion: _same(by_host) for fusion, by_host in fusions.items()},
    }


def _by_axis(axis: str, sections: Mapping[Contestant, dict[str, Any]]) -> dict[str, Any]:
    """A section that all share, or label of its axis -> section."""
    by_label: dict[str, dict[Contestant, dict[str, Any]]] = {}
    for who, section in sections.items():
        by_label.setdefault(dict(who.axes).get(axis, ""), {})[who] = section
    shared = {label: _shared(of) for label, of in by_label.items()}
    return shared.get("", shared)


def _shared(sections: Mapping[Contestant, dict[str, Any]]) -> dict[str, Any]:
    """What a section has in common, then what each contestant has for itself."""
    first, *others = sections.values()
    common = {k: v for k, v in first.items() if all(k in o and o[k] == v for o in others)}
    own = {who: {k: v for k, v in s.items() if k not in common} for who, s in sections.items()}
    return common | {f"in {who.title}": values for who, values in own.items() if values}


def _same(by_host: Mapping[str, Any]) -> Any:
    """A host may give its fusion other defaults; where none does, the fusion is the same in all of them."""
    first, *others = by_host.values()
    return first if all(o == first for o in others) else {f"in {host}": x for host, x in by_host.items()}


def write_summary(
    folder: Path,
    rows: Sequence[Row],
    failed: Mapping[str, str],
    base: RunConfig,
    corpora: Mapping[str, Corpus],
    compared: Mapping[str, Any],
) -> None:
    """`summary.json`, `.csv`, `.md` and `.tex`, `comparison.png` and `report.html` of a comparison.

    Parameters
    ----------
    folder : of the comparison.
    rows : of `summarise`.
    failed : a run's name -> why it failed.
    base : what all runs share.
    corpora : label -> the data that they were trained on.
    compared : see `configuration`.
    """
    from fusionzoo._yaml import dump_yaml

    ceiling = common_ceiling(rows)
    table, options = table_of(rows, failed, ceiling), dump_yaml(dict(compared))
    write_text(folder / "config.yaml", base.to_yaml())
    write_json(
        folder / "summary.json",
        {
            "format": 1,
            "data": _data(corpora),
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
    names = ", ".join(c.name for c in corpora.values())
    about = f"Data {names}; seeds {', '.join(map(str, compared['seeds']))}; epoch chosen on {base.training.selection}."
    parts = [
        paragraph(about),
        *_page_parts(table, [leak for c in corpora.values() for leak in c.said("leaks")], ceiling, plot),
        code("What was compared", options),
    ]
    write_text(folder / "report.html", page("Comparison", parts))


def common_ceiling(rows: Sequence[Row]) -> float | None:
    """The ceiling of all rows, None where they have none or different ones."""
    ceilings = {r.ceiling for r in rows}
    return ceilings.pop() if len(ceilings) == 1 else None


def _data(corpora: Mapping[str, Corpus]) -> dict[str, Any]:
    """Name and facts of the data, or of every one of several under its label."""
    facts: dict[str, Any] = {label: {"name": c.name, "info": c.info} for label, c in corpora.items()}
    return next(iter(facts.values())) if len(facts) == 1 else facts


def _page_parts(table: Table, leaks: Sequence[str], ceiling: float | None, plot: bytes | None) -> list[str]:
    red = [n for n in table.notes if n is TEST_SELECTED or n.startswith("FAILED")]
    parts = [warning(n) if n in red else paragraph(n) for n in table.notes]
    parts += [warning(leak) for leak in leaks]
    rows = list(table.rows)
    if ceiling is not None:
        here = list(table.header).index(f"test {METRICS[MAIN].short} [95 % CI]")
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
    axes = [a for a in AXES if any(a in r.axes for r in rows)]
    header = [*axes, "host", "fusion", "n", "selection", "parameters", "flops_per_utterance", "seconds"]
    header += [f"{s}_{k}_{v}" for s in ("dev", "test") for k in METRICS for v in ("mean", "sd", "low", "high")]
    header += ["difference", "bootstrap_low", "bootstrap_high", "p", "p_holm"]
    lines = []
    for r in rows:
        line: list[Any] = [
            *(r.axes[a] for a in axes),
            r.host,
            r.fusion,
            r.n,
            r.selection,
            r.parameters,
            r.flops,
            r.seconds,
        ]
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
    axis.set_yticks(range(len(shown)), [unmathematical(r.contestant.title) for r in reversed(shown)])
    axis.set_ylim(-0.6, len(shown) - 0.4)
    low, high = axis.get_xlim()
    axis.set_xlim(max(low, -0.02), min(high, 1.02))  # an interval from two seeds may be wider than any score
    axis.set_xlabel(f"test {METRICS[MAIN].short}: seeds, mean, 95 % interval of the mean")
    axis.spines[["top", "right"]].set_visible(False)
    return plots.png(fig)
