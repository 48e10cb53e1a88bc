"""From the run folders of a comparison to its tables, plot and page."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionzoo._files import write_bytes, write_json, write_text
from fusionzoo._text import unmathematical, visible
from fusionzoo.reporting import plots
from fusionzoo.reporting.comparison_page import REACHABLE, comparison_page
from fusionzoo.reporting.pages import TEST_SELECTED
from fusionzoo.reporting.rows import AXES, Contestant, Row, ranks_of, summarise
from fusionzoo.reporting.table import FILE, PHONE, SCREEN, TERMINAL, Column, Strong, StrongNumber, Table
from fusionzoo.reporting.verdicts import headline, verdict
from fusionzoo.runs.config import WITHOUT_FUSION
from fusionzoo.runs.environment import package_versions
from fusionzoo.runs.options import NO_FUSION
from fusionzoo.scoring.metrics import MAIN, METRICS
from fusionzoo.scoring.statistics import FEWEST_SEEDS

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.runs.config import RunConfig

__all__ = [
    "AXES",
    "Contestant",
    "Row",
    "common_ceiling",
    "configuration",
    "numbers_of",
    "summarise",
    "table_of",
    "write_summary",
]

# -- the tables -------------------------------------------------------------------------------------------------------


def table_of(rows: Sequence[Row], failed: Mapping[str, str], ceiling: float | None, *, narrow: bool = False) -> Table:
    """The table of a comparison, one number per cell, with what to know about it below.

    Parameters
    ----------
    rows : of `summarise`.
    failed : a run's name -> why it failed.
    ceiling : the best score that these data let anybody reach, where that is known.
    narrow : only the columns that fit a terminal.
    """
    main, others = METRICS[MAIN], {k: m for k, m in METRICS.items() if k != MAIN}
    axes = _axes(rows)
    baselines = list(dict.fromkeys(r.baseline for r in rows if r.baseline))
    versus = f"vs {baselines[0]}" if len(baselines) == 1 else "vs baseline"
    header = [
        "fusion",
        Column("host", narrowest=PHONE if len({r.host for r in rows}) > 1 else TERMINAL),
        *axes,
        Column("seeds", narrowest=SCREEN, about="runs that have finished"),
        Column(f"test {main.short}", main.format, about="mean over seeds"),
        Column("± seeds", main.format, narrowest=TERMINAL, about="sample deviation over seeds"),
        Column(
            versus, f"+{main.format}", about="difference of the means, on the seeds that both have; bold where clear"
        ),
        Column(
            "p", ".3f", narrowest=TERMINAL, about="paired t-test over seeds, after Holm's correction over this table"
        ),
        Column("could show", main.format, narrowest=SCREEN, about=_COULD),
        *(Column(f"test {m.short}", m.format, narrowest=FILE, about="mean over seeds") for m in others.values()),
        Column("parameters", ",", narrowest=TERMINAL, about="that are trained"),
        Column("seconds", ".1f", narrowest=TERMINAL, about="of training, mean over seeds"),
    ]
    cells = []
    for r in rows:
        limits = [x for x in (r.smallest_seeds, r.smallest_dialogues) if x is not None]
        difference = r.difference if r.difference is None or not r.clear else StrongNumber(r.difference)
        cells.append(
            [
                Strong(r.fusion) if r.clear else r.fusion,
                r.host,
                *(r.axes.get(a, "") for a in axes),
                r.n,
                *(r.test[MAIN][k] for k in ("mean", "sd")),
                difference,
                r.p_holm,
                max(limits) if r.smallest_seeds is not None else None,
                *(r.test[k]["mean"] for k in others),
                r.parameters,
                r.seconds,
            ]
        )
    table = Table(header, cells, _remarks(rows, failed, ceiling))
    return table.fitting(TERMINAL).filled() if narrow else table


_COULD = "the smallest difference that so many seeds and test dialogues show in 80 % of all cases"


def _axes(rows: Sequence[Row]) -> list[str]:
    return [a for a in AXES if any(a in r.axes for r in rows)]


def _remarks(rows: Sequence[Row], failed: Mapping[str, str], ceiling: float | None) -> list[str]:
    remarks = [headline(rows)]
    if any(r.selection == "test" for r in rows):
        remarks.append(TEST_SELECTED)
    if ceiling is not None:
        main = METRICS[MAIN]
        remarks.append(f"{REACHABLE} {main.short} of these data: {main.show(ceiling)}.")
    if any(r.fusion == NO_FUSION for r in rows):
        remarks.append(f"{WITHOUT_FUSION.capitalize()}, so that the rows are hosts alone.")
    fewest = min((r.n for r in rows if r.n), default=FEWEST_SEEDS)
    if fewest < FEWEST_SEEDS:
        says = "One seed says" if fewest == 1 else "Two seeds say next to"
        remarks.append(f"{says} nothing about the spread between seeds: no interval and no test. Use --seeds 5.")
    remarks += [f"FAILED {name}: {visible(message)}" for name, message in failed.items()]
    return remarks


def numbers_of(rows: Sequence[Row]) -> Table:
    """Every number of a comparison, for machines: a row per row, a column per number."""
    axes = _axes(rows)
    header = [*axes, "host", "fusion", "n", "selection", "parameters", "flops_per_utterance", "seconds"]
    header += [f"{s}_{k}_{v}" for s in ("dev", "test") for k in METRICS for v in ("mean", "sd", "low", "high")]
    header += ["difference", "bootstrap_low", "bootstrap_high", "p", "p_holm"]
    header += ["baseline", "pairs", "dialogues", *_TESTS, "clear", "verdict"]
    lines: list[list[Any]] = []
    for r in rows:
        line: list[Any] = [*(r.axes.get(a) for a in axes), r.host, r.fusion, r.n, r.selection]
        line += [r.parameters, r.flops, r.seconds]
        line += [s[k][v] for s in (r.dev, r.test) for k in METRICS for v in ("mean", "sd", "low", "high")]
        line += [r.difference, *(r.bootstrap or (None, None)), r.p, r.p_holm]
        line += [r.baseline, r.pairs, r.dialogues, *(getattr(r, k) for k in _TESTS), r.clear, verdict(r)]
        lines.append(line)
    return Table(header, lines)


_TESTS = ("p_permutation", "order", "smallest_seeds", "smallest_dialogues")


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
    """`summary.json`, `.csv`, `.md` and `.tex`, `comparison.png`, `ranks.png` and `report.html` of a comparison.

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
    facts = {
        "format": 1,
        "data": _data(corpora),
        "seeds": compared["seeds"],
        "selection": base.training.selection,
        "ceiling": ceiling,
        "configuration": compared,
        "headline": headline(rows),
        "rows": [_facts(r, folder) for r in rows],
        "failed": dict(failed),
        "command": sys.argv,
        "packages": package_versions(),
    }
    write_json(folder / "summary.json", facts)
    write_text(folder / "summary.csv", numbers_of(rows).csv())
    said = [f"- {visible(r.contestant.title)}: {verdict(r)}" for r in rows if r.baseline]
    shown = ["## What was compared", "", "```yaml", options.rstrip(), "```", ""]
    write_text(folder / "summary.md", "\n".join([table.markdown(), "", *said, *([""] if said else []), *shown]))
    write_text(folder / "summary.tex", table.latex() + "\n")
    if plots.have_plots() and any(r.per_seed for r in rows):
        write_bytes(folder / "comparison.png", plots.png(_plot(rows, ceiling)))
        if (ranks := ranks_of(rows)) is not None:
            write_bytes(folder / "ranks.png", plots.png(plots.critical_difference(ranks)))
    write_text(folder / "report.html", comparison_page(folder, rows, table, facts, options, corpora))


def _facts(row: Row, folder: Path) -> dict[str, Any]:
    """A row for `summary.json`; its run folders as they lie in that of the comparison."""
    runs = {seed: [Path(os.path.relpath(f, folder)).as_posix() for f in of] for seed, of in row.runs.items()}
    return asdict(row) | {"runs": runs, "clear": row.clear, "verdict": verdict(row)}


def common_ceiling(rows: Sequence[Row]) -> float | None:
    """The ceiling of all rows, None where they have none or different ones."""
    ceilings = {r.ceiling for r in rows}
    return ceilings.pop() if len(ceilings) == 1 else None


def _data(corpora: Mapping[str, Corpus]) -> dict[str, Any]:
    """Name and facts of the data, or of every one of several under its label."""
    facts: dict[str, Any] = {label: {"name": c.name, "info": c.info} for label, c in corpora.items()}
    return next(iter(facts.values())) if len(facts) == 1 else facts


def _plot(rows: Sequence[Row], ceiling: float | None) -> Any:
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
    return fig
