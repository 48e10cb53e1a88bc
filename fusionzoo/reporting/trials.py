"""The trials of tuning, on a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fusionzoo.reporting.pages import details, heading, paragraph
from fusionzoo.reporting.table import Column, StrongNumber, Table
from fusionzoo.scoring.metrics import short_name


def trials_part(tuned: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was chosen, in words, and every trial behind it.

    Parameters
    ----------
    tuned : of a row, one entry per study.
    """
    parts = [heading("Tuning, on dev", 3)] if tuned else []
    for study in tuned:
        fold = f"Fold {study['fold']}: " if study["fold"] else ""
        said = paragraph(f"{fold}{_chosen(study)}")
        parts += [said, details(f"{len(study['trials'])} trials", [_trials(study).html(sortable=True)])]
    return parts


def _chosen(study: Mapping[str, Any]) -> str:
    """Which values, what they reached, and what the defaults did."""
    states = Counter(t["state"] for t in study["trials"])
    counted = ", ".join(f"{n} {state}" for state, n in states.items())
    if study["chosen"] is None:
        return f"no trial was completed ({counted})."
    values = ", ".join(f"{_last(k)} {_value(v)}" for k, v in study["chosen"].items())
    default = next(
        (t["score"] for t in study["trials"] if t["values"] == study["default"] and t["score"] is not None), None
    )
    beside = "" if default is None else f", beside {default:.3f} with the values it has anyway"
    return f"{values} ({short_name(study['metric'])} {study['score']:.3f}{beside}; {counted})."


def _trials(study: Mapping[str, Any]) -> Table:
    options = list(dict.fromkeys(k for t in study["trials"] for k in t["values"]))
    header = ["trial", "state", Column(short_name(study["metric"]), ".4f"), "epochs", Column("seconds", ".1f")]
    rows = []
    for t in study["trials"]:
        best = t["values"] == study["chosen"] and t["score"] == study["score"]
        score = StrongNumber(t["score"]) if best else t["score"]
        line = [t["number"], t["state"], score, t["epochs"], float(t["seconds"])]
        rows.append([*line, *(_value(t["values"].get(k)) for k in options)])
    return Table(
        [*header, *map(_last, options)],
        rows,
        [f"Trial {t['number']}: {t['why']}" for t in study["trials"] if "why" in t],
    )


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _value(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
