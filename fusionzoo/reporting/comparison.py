"""From the run folders of a comparison to its tables, plot and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._csv import csv_text
from fusionzoo._text import Marked, markdown, markdown_table, markup, unmathematical, visible
from fusionzoo.reporting import run as report
from fusionzoo.runs.config import WITHOUT_FUSION, model_title
from fusionzoo.runs.files import write_bytes, write_json, write_text
from fusionzoo.runs.folder import read_predictions, read_result
from fusionzoo.runs.options import NO_FUSION
from fusionzoo.scoring import statistics
from fusionzoo.scoring.metrics import SCORES, SHORT_NAMES

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.experiments.grid import Cell
    from fusionzoo.runs.config import RunConfig


@dataclass
class Row:
    """One host with one fusion over its seeds.

    n : finished runs. dev, test : score -> `{"mean", "sd", "low", "high"}`, the interval being that of the mean over
    seeds (95 %, t). per_seed : seed -> test W-F1. flops : per utterance, forward.
    difference : mean test W-F1 minus the baseline's on the same seeds, `None` for the baseline itself.
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


def summarise(groups: Mapping[tuple[str, str], Sequence[Path]]) -> list[Row]:
    """Rows of a comparison from `(host, fusion) -> run folders`; the first fusion of each host is its baseline."""
    rows: list[Row] = []
    confusions: dict[tuple[str, str], dict[int, dict[str, np.ndarray]]] = {}
    for (host, fusion), folders in groups.items():
        results = {r["seed"]: (f, r) for f in folders if (r := read_result(f)) is not None}
        dev, test = (
            {k: statistics.mean_interval([r[s][k] for _, r in results.values() if r[s]]) for k in SCORES}
            for s in ("dev", "test")
        )
        some = [r for _, r in results.values()]
        rows.append(
            Row(
                host=host,
                fusion=fusion,
                n=len(results),
                dev=dev,
                test=test,
                per_seed={seed: r["test"]["weighted_f1"] for seed, (_, r) in sorted(results.items()) if r["test"]},
                selection=some[0]["selection"] if some else "",
                parameters=some[0]["parameters"] if some else None,
                flops=some[0]["flops_per_utterance"] if some else None,
                seconds=float(np.mean([r["seconds"] for r in some])) if some else None,
            )
        )
        confusions[host, fusion] = {seed: _test_confusions(f, r) for seed, (f, r) in results.items() if r["test"]}
    baselines: dict[str, Row] = {}
    for row in rows:
        baseline = baselines.setdefault(row.host, row)
        seeds = sorted(row.per_seed.keys() & baseline.per_seed.keys())
        if row is baseline or not seeds:
            continue
        mine, theirs = ([r.per_seed[s] for s in seeds] for r in (row, baseline))
        row.difference = float(np.mean(mine) - np.mean(theirs))
        row.p = statistics.paired_p(mine, theirs)
        a, b = ([confusions[r.host, r.fusion][s] for s in seeds] for r in (row, baseline))
        row.bootstrap = statistics.bootstrap_difference(a, b)
    for row, p in zip(rows, statistics.holm([r.p for r in rows]), strict=True):
        row.p_holm = p
    return rows


def _test_confusions(folder: Path, result: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return statistics.dialogue_confusions(read_predictions(folder, result), "test", list(result["test"]["per_class"]))


HEADER = (
    "host",
    "fusion",
    "n",
    "dev W-F1",
    "test W-F1 [95 % CI]",
    *(f"test {SHORT_NAMES[k]}" for k in SCORES[1:]),
    "parameters",
    "MFLOPs/utterance",
    "seconds",
    "vs first fusion [bootstrap]",
    "p (Holm)",
)


#: Columns that fit a terminal: all but dev, FLOPs and the scores besides W-F1 and macro F1.
_NARROW = (0, 1, 2, 4, 5, 8, 10, 11, 12)


def cells_of(row: Row) -> list[str]:
    """A row of the table, as text."""
    return [
        row.host,
        row.fusion,
        str(row.n),
        _spread(row.dev["weighted_f1"]),
        _spread(row.test["weighted_f1"], interval=True),
        *(_spread(row.test[k]) for k in SCORES[1:]),
        "" if row.parameters is None else f"{row.parameters:,}",
        "" if row.flops is None else f"{row.flops / 1e6:.2f}",
        "" if row.seconds is None else f"{row.seconds:.1f}",
        _difference(row),
        "" if row.p_holm is None else f"{row.p_holm:.3f}",
    ]


def _spread(value: Mapping[str, float | None], interval: bool = False) -> str:
    if value["mean"] is None:
        return ""
    text = f"{value['mean']:.4f}" + ("" if value["sd"] is None else f" ± {value['sd']:.4f}")
    return text + f" [{value['low']:.4f}, {value['high']:.4f}]" if interval and value["low"] is not None else text


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    text = f"{row.difference:+.4f}"
    return text if row.bootstrap is None else text + f" [{row.bootstrap[0]:+.4f}, {row.bootstrap[1]:+.4f}]"


def rows_to_text(rows: Sequence[Row], failed: Mapping[str, str], ceiling: float | None) -> str:
    """The table for a terminal, with what to know about it below."""
    lines = [[visible(line[i]) for i in _NARROW] for line in (HEADER, *map(cells_of, rows))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, *_remarks(rows, failed, ceiling)])


def _remarks(rows: Sequence[Row], failed: Mapping[str, str], ceiling: float | None) -> list[str]:
    remarks = []
    if any(r.selection == "test" for r in rows):
        remarks.append(report.TEST_SELECTED)
    if ceiling is not None:
        remarks.append(f"Best reachable test W-F1 of these data: {ceiling:.4f}.")
    if any(r.fusion == NO_FUSION for r in rows):
        remarks.append(f"{WITHOUT_FUSION.capitalize()}, so that the rows are hosts alone.")
    if any(r.n == 1 for r in rows):
        remarks.append("One seed says nothing about the spread between seeds; use --seeds 5.")
    remarks += [f"FAILED {name}: {visible(message)}" for name, message in failed.items()]
    return remarks


def configuration(cells: Sequence[Cell]) -> dict[str, Any]:
    """What was compared, every option with its value: the sections that all runs share, the hosts, and the fusions in each."""
    shared = cells[0].config.to_dict()
    del shared["host"], shared["fusion"]
    shared["training"] = {k: v for k, v in shared["training"].items() if k != "seed"}
    hosts, fusions = ({} for _ in range(2))
    for cell in cells:
        hosts.setdefault(cell.host, cell.config.host.to_dict())
        fusions.setdefault(cell.fusion, {}).setdefault(cell.host, cell.config.fusion.to_dict())
    # A host may give its fusion other defaults; where none does, the fusion is the same in all of them.
    same = {
        f: next(iter(v.values())) for f, v in fusions.items() if all(x == next(iter(v.values())) for x in v.values())
    }
    return {
        **shared,
        "seeds": list(dict.fromkeys(c.seed for c in cells)),
        "hosts": hosts,
        "fusions": {f: same.get(f, {f"in {host}": x for host, x in v.items()}) for f, v in fusions.items()},
    }


def write_summary(
    folder: Path,
    rows: Sequence[Row],
    failed: Mapping[str, str],
    base: RunConfig,
    corpus: Corpus,
    cells: Sequence[Cell],
) -> None:
    """`summary.json`, `summary.csv`, `summary.md`, `comparison.png` and `report.html` of a comparison."""
    from fusionzoo._yaml import dump_yaml

    ceiling = report.best_reachable(corpus.info, corpus.modalities, "test")
    compared = configuration(cells)
    seeds = compared["seeds"]
    write_text(folder / "config.yaml", base.to_yaml())
    write_json(
        folder / "summary.json",
        {
            "format": 1,
            "data": {"name": corpus.name, "info": corpus.info},
            "seeds": list(seeds),
            "selection": base.training.selection,
            "ceiling": ceiling,
            "configuration": compared,
            "rows": [asdict(r) | {"clear": r.clear} for r in rows],
            "failed": dict(failed),
        },
    )
    write_text(folder / "summary.csv", csv_text(*_flat(rows)))
    table = [cells_of(r) for r in rows]
    remarks = _remarks(rows, failed, ceiling)
    bold = [
        [Marked(f"**{markdown(c)}**") if r.clear and i == 11 else c for i, c in enumerate(t)]
        for r, t in zip(rows, table, strict=True)
    ]
    shown = ["## What was compared", "", "```yaml", dump_yaml(compared).rstrip(), "```", ""]
    write_text(folder / "summary.md", "\n".join([*markdown_table(HEADER, bold), "", *remarks, "", *shown]))
    parts = [
        report.paragraph(r, "warning" if r is report.TEST_SELECTED or r.startswith("FAILED") else "") for r in remarks
    ]
    parts.insert(
        0,
        report.paragraph(
            f"Data {corpus.name}; seeds {', '.join(map(str, seeds))}; epoch chosen on {base.training.selection}."
        ),
    )
    parts += [report.paragraph(leak, "warning") for leak in corpus.said("leaks")]
    if ceiling is not None:
        table.append(["optimal reader", "", "", "", f"{ceiling:.4f}", *[""] * (len(HEADER) - 5)])
    parts.append(report.table(HEADER, table))
    parts.append(
        report.paragraph(
            "Mean ± sample deviation over seeds; the interval is the t interval of the mean. The last columns compare "
            "with the host's first fusion on the same seeds: the difference with a bootstrap interval over test "
            "dialogues, and the paired t-test over seeds with Holm's correction over the whole table. A difference is "
            "clear only if both agree.",
            "note",
        )
    )
    if report.have_plots() and any(r.n for r in rows):
        data = _plot(rows, ceiling)
        write_bytes(folder / "comparison.png", data)
        parts.append(report.image(data, "test W-F1 of every host and fusion"))
    parts.append(f"<h2>What was compared</h2><pre>{markup(dump_yaml(compared))}</pre>")
    write_text(folder / "report.html", report.page("Comparison", parts))


def _flat(rows: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    header = ["host", "fusion", "n", "selection", "parameters", "flops_per_utterance", "seconds"]
    header += [f"{s}_{k}_{v}" for s in ("dev", "test") for k in SCORES for v in ("mean", "sd", "low", "high")]
    header += ["difference", "bootstrap_low", "bootstrap_high", "p", "p_holm"]
    lines = []
    for r in rows:
        line: list[Any] = [r.host, r.fusion, r.n, r.selection, r.parameters, r.flops, r.seconds]
        line += [s[k][v] for s in (r.dev, r.test) for k in SCORES for v in ("mean", "sd", "low", "high")]
        line += [r.difference, *(r.bootstrap or (None, None)), r.p, r.p_holm]
        lines.append(["" if v is None else v for v in line])
    return header, lines


def _plot(rows: Sequence[Row], ceiling: float | None) -> bytes:
    shown = [r for r in rows if r.per_seed]
    fig, axis = report.figure(8.0, 1.2 + 0.38 * max(len(shown), 1))
    for y, row in enumerate(reversed(shown)):
        score = row.test["weighted_f1"]
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
    axis.set_xlabel("test W-F1: seeds, mean, 95 % interval of the mean")
    axis.spines[["top", "right"]].set_visible(False)
    return report.png(fig)
