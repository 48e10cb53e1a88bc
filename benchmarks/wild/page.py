"""The tables of docs/wild.md, from the records of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusionzoo.scoring.statistics import holm, mean_interval, paired_p
from wild.one_process import failed
from wild.table import CONDITIONS, Script

Record = dict[str, Any]
BEGIN, END = "<!-- study -->", "<!-- end of the study -->"
#: (selection, script, condition) -> seed -> weighted F1.
Scores = Mapping[int, float]
SELECTIONS = {"by_rule": "the script's own choice of the epoch", "honest": "the epoch chosen without the test"}
#: Differences between conditions that the study asks about.
QUESTIONS = [(c, "none") for c in CONDITIONS if c != "none"] + [
    (c, "control") for c in ("lmam", "cross-attention", "gated")
]
#: With fewer seeds a script has no interval of its own.
SEEDS_FOR_INTERVAL = 3


def tables(study: Mapping[str, Any], scripts: Sequence[Script]) -> str:
    """All of them, in Markdown."""
    records = [r for r in study["records"] if not failed(r)]
    there = [s for s in scripts if any(r["script"] == s.name for r in records)]
    lines = [f"Measured on {study['machine']}.", "", *_conditions(records, there)]
    for selection, words in SELECTIONS.items():
        lines += [
            "",
            f"**Weighted F1 of the test, {words}** (mean over seeds)",
            "",
            *_scores(records, there, selection),
        ]
    lines += ["", "**Differences**", "", *_differences(records, there)]
    lines += ["", "**Over scripts**", "", *_over_scripts(records, there)]
    lines += ["", *_checks(study["records"])]
    return "\n".join(lines)


def put_into(file: Path, text: str) -> None:
    """Put the tables between the two comments of a page that say where."""
    before, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{file} has no place for the tables: a line {BEGIN} and a line {END}")
    file.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def scores_of(records: Sequence[Record], script: str, condition: str, selection: str) -> dict[int, float]:
    """Seed -> weighted F1 in percent."""
    mine = (r for r in records if (r["script"], r["condition"]) == (script, condition))
    return {r["seed"]: r[selection]["f1"] for r in mine}


def pairs(records: Sequence[Record], script: str, one: str, other: str, selection: str) -> list[float]:
    """Differences of the seeds that both conditions have."""
    a, b = (scores_of(records, script, c, selection) for c in (one, other))
    return [a[s] - b[s] for s in sorted(a.keys() & b.keys())]


def _conditions(records: Sequence[Record], scripts: Sequence[Script]) -> list[str]:
    """What ran: epochs, seeds, sizes, and how much of the joined tensor the fusion came to be."""
    names = [c for c in CONDITIONS if c != "none"]
    head = ["script", "epochs", "seeds", "its own parameters", *(f"{c}'s" for c in names), "share in the end"]
    lines = [_row(head), _row(["---"] * len(head))]
    for s in scripts:
        mine = [r for r in records if r["script"] == s.name]
        by = {c: [r for r in mine if r["condition"] == c] for c in CONDITIONS}
        size = {c: f"{by[c][0]['parameters'] + by[c][0]['projection']:,}" if by[c] else "" for c in names}
        shares = [r["share"] for c in names for r in by[c] if r["share"] is not None]
        hosts = [f"{r['host']:,}" for r in mine if "host" in r]
        seeds = {len({r["seed"] for r in by[c]}) for c in CONDITIONS}
        lines.append(
            _row([
                f"`{s.name}`", str(max(r["epochs"] for r in mine)), " to ".join(map(str, sorted({min(seeds), max(seeds)}))),
                hosts[0] if hosts else "", *size.values(), f"{min(shares):.2f} to {max(shares):.2f}" if shares else "",
            ])
        )  # fmt: skip
    return lines


def _scores(records: Sequence[Record], scripts: Sequence[Script], selection: str) -> list[str]:
    lines = [_row(["script", "chosen by", *CONDITIONS]), _row(["---"] * (2 + len(CONDITIONS)))]
    for s in scripts:
        validated = any(r["validation"] for r in records if r["script"] == s.name)
        how = s.rule if selection == "by_rule" else "validation f1" if validated else "last epoch"
        lines.append(_row([f"`{s.name}`", how, *(_mean(scores_of(records, s.name, c, selection)) for c in CONDITIONS)]))
    return lines


def _mean(scores: Scores) -> str:
    return f"{mean_interval(list(scores.values()))['mean']:.2f}" if scores else ""


def _differences(records: Sequence[Record], scripts: Sequence[Script]) -> list[str]:
    """Per script, with the t interval over seeds where there are enough of them."""
    head = ["script", "selection", *(f"{a} − {b}" for a, b in QUESTIONS)]
    lines = [_row(head), _row(["---"] * len(head))]
    for s in scripts:
        for selection in SELECTIONS:
            cells = [_interval(pairs(records, s.name, a, b, selection)) for a, b in QUESTIONS]
            lines.append(_row([f"`{s.name}`", "its own" if selection == "by_rule" else "honest", *cells]))
    return lines


def _interval(differences: Sequence[float]) -> str:
    if not differences:
        return ""
    i = mean_interval(differences)
    if len(differences) < SEEDS_FOR_INTERVAL:
        return f"{i['mean']:+.2f}"
    return f"{i['mean']:+.2f} [{i['low']:+.2f}, {i['high']:+.2f}]"


def _over_scripts(records: Sequence[Record], scripts: Sequence[Script]) -> list[str]:
    """Each script counts once, by the mean of its seeds; p of the paired t-test over scripts, corrected for the questions (Holm)."""
    head = ["question", "selection", "scripts", "mean difference", "p", "p (Holm)", "better on"]
    lines = [_row(head), _row(["---"] * len(head))]
    for selection in SELECTIONS:
        found = [over_scripts(records, [s.name for s in scripts], a, b, selection) for a, b in QUESTIONS]
        corrected = holm([paired_p(d, [0.0] * len(d)) for d in found])
        for (a, b), d, p in zip(QUESTIONS, found, corrected, strict=True):
            better = f"{sum(x > 0 for x in d)} of {len(d)}"
            raw = paired_p(d, [0.0] * len(d))
            lines.append(_row([
                f"{a} − {b}", "its own" if selection == "by_rule" else "honest", str(len(d)),
                _interval(d), _p(raw), _p(p), better,
            ]))  # fmt: skip
    return lines


def over_scripts(
    records: Sequence[Record], scripts: Sequence[str], one: str, other: str, selection: str
) -> list[float]:
    """The mean difference of every script that has both conditions."""
    each = [pairs(records, s, one, other, selection) for s in scripts]
    return [math.fsum(d) / len(d) for d in each if d]


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _checks(records: Sequence[Record]) -> list[str]:
    """Whether scripts print the score that was read; and what came to none."""
    printed = [r for r in records if not failed(r) and r["printed"] is not None]
    off = [r for r in printed if abs(r["printed"] - r["by_rule"]["f1"]) > 0.011]  # which they round to two places
    lines = [
        f"The score that a script prints is the one that was read in {len(printed) - len(off)} of {len(printed)} runs."
    ]
    lines += [f"- `{r['script']}`, {r['condition']}, seed {r['seed']} prints {r['printed']}" for r in off]
    lines += [f"- `{r['script']}`, {r['condition']}, seed {r['seed']}: {r['error']}" for r in records if failed(r)]
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
