"""The tables and sums of docs/public_models.md, from the records of runs with adapters and alone.

The page's words are written by hand. What comes of the records stands in it between `<!-- NAME -->` and `<!-- /NAME -->`, one
pair of marks for each of `parts`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusionzoo.patching.promises import APART, COMPLETE, FELT, FITS, LEARNS, PADDING

Record = dict[str, Any]
PROMISES = (APART, PADDING, FITS, FELT, COMPLETE, LEARNS)
CHECKS = ("step 0", "step", "remove", "saved")
SIGNS = {True: "✓", False: "✗", None: "–", "proved": "✓", "broken": "✗", "not tried": "–"}
KNOWN_HEAD = (
    "model", "with its adapter", "alone, the first found", "holds", "proof, with and alone", "by the builder", "one line, with and alone"
)  # fmt: skip
FURTHER_HEAD = ("model", "the first found", "holds", "proof", "by the builder", "one line")
SUMS_HEAD = (
    "models", "run at all", "one line", "one line with `modalities=`", "both", "not one line, or not proved"
)  # fmt: skip
#: What stands under "one line": by one line without options; with what nothing in the model says; not.
PLAIN, NAMED, NOT = "✓", "`modalities=`", "✗"
#: Why a promise was not tried, in short; the letter stands in the table.
REASONS = {
    "the model itself mixes": "m",
    "in the model itself, padding": "m",
    "holds one sample": "1",
    "no step of this batch is padding": "p",
    "which steps are padding": "p",
    "none is padding to it": "p",
    "no axis of time": "p",
    "come in one argument": "i",
    "which axis of the streams": "a",
    "no axis of one size": "a",
    "which rows are one dialogue": "a",
    "of another size": "s",
}


Model = Sequence[Record]  # one for each fusion


def rewrite(file: Path, records: Sequence[Record]) -> None:
    """Write what the records say between the marks of the page."""
    text = file.read_text(encoding="utf-8")
    for name, part in parts(records).items():
        found = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, count = found.subn(lambda m, part=part: f"{m[1]}\n{part}\n\n{m[2]}", text)
        if count != 1:
            raise SystemExit(f"{file} has {count} pairs of marks <!-- {name} --> and <!-- /{name} -->, not one")
    file.write_text(text, encoding="utf-8")


def parts(records: Sequence[Record]) -> dict[str, str]:
    """Every part of the page that comes of the records, by the name of its marks."""
    by_name: dict[str, dict[bool, list[Record]]] = {}
    for r in records:
        by_name.setdefault(r["name"], {}).setdefault(r["alone"], []).append(r)
    known = {n: ways for n, ways in by_name.items() if any(r.get("adapter") for r in ways.get(False, ()))}
    further = {n: next(iter(ways.values())) for n, ways in by_name.items() if n not in known}
    groups: dict[str, list[Model]] = {
        "known, with their adapters": [w[False] for w in known.values() if False in w],
        "known, alone": [w[True] for w in known.values() if True in w],
        "further": list(further.values()),
    }
    wrong = [f"`{r['name']}`, {k}" for r in records for k in wrongly_proved(r)]
    rows = [_known_row(ways.get(False, []), ways.get(True, [])) for _, ways in sorted(known.items(), key=_title)]
    more = [_further_row(rs) for _, rs in sorted(further.items(), key=_title)]
    said = {
        f"{name} not proved": _reasons(models)
        for name, models in zip(("with", "alone", "further"), groups.values(), strict=True)
    }
    return {
        "conditions": _conditions(records),
        "sums": _table(SUMS_HEAD, [_sums(name, models) for name, models in groups.items()]),
        "known": _table(KNOWN_HEAD, rows),
        "further": _table(FURTHER_HEAD, more),
        **said,
        "wrong": f"Proved by the library and not so by the builder: {'; '.join(wrong) or 'none'}.",
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _conditions(records: Sequence[Record]) -> str:
    """What was measured on what, and which rows are not by the state of the patcher that most are by."""
    found = dict.fromkeys(r["conditions"] for r in records if "conditions" in r)
    states = Counter(r["patcher"] for r in records if "patcher" in r)
    most = max(states, key=states.__getitem__, default="")
    others = sorted({r["name"] for r in records if r.get("patcher", most) != most})
    rest = f"; by other states of it: {', '.join(f'`{n}`' for n in others)}" if others else ""
    return f"Conditions: {'; '.join(found)}; the rows are by one state of the patcher{rest}."


def wrongly_proved(r: Record) -> list[str]:
    """Promises that the library calls proved where the builder's own check fails."""
    own = ("samples apart", "padding unseen", "felt")
    return [
        k for k, p in zip(own, r.get("proof", ()), strict=False) if p["state"] == "proved" and r["checks"][k] is False
    ]


def _title(item: tuple[str, object]) -> str:
    return item[0].lower()


def _known_row(with_adapter: Model, alone: Model) -> list[str]:
    both = [*with_adapter, *alone]
    cells = [_link(both[0]), _place(with_adapter), _place(alone), _holds(both)]
    both_ways = [way for way in (with_adapter, alone) if way]
    return [*cells, *(" · ".join(map(say, both_ways)) for say in (_proof, _own, verdict))]


def _further_row(model: Model) -> list[str]:
    return [_link(model[0]), _place(model), _holds(model), _proof(model), _own(model), verdict(model)]


def _link(r: Record) -> str:
    if "repository" not in r:  # its process ended before it could say
        return f"`{r['name']}`"
    repository = r["repository"].rpartition("/")[2]
    return f"[{repository}](https://github.com/{r['repository']}/tree/{r['commit'][:10]}), `{r['name']}`"


def _place(records: Sequence[Record]) -> str:
    if not records or "checks" not in records[0]:
        return records[0]["state"] if records else ""
    r = records[0]
    site = r["site"]
    where = "input" if site["kind"] == "input" else site["kind"]
    place = site["where"].removeprefix("argument ").rpartition("/")[2]
    return f"{where}, `{place}`, `{site['layout']}`"


def _holds(records: Sequence[Record]) -> str:
    """One sign where all four hold; else those that do not."""
    tried = [r["checks"] for r in records if "checks" in r]
    if not tried:
        return ""
    wrong = [k for k in CHECKS if any(c[k] is False for c in tried)]
    return "not: " + ", ".join(wrong) if wrong else "✓"


def _proof(records: Sequence[Record]) -> str:
    tried = [r["proof"] for r in records if "proof" in r]
    said = [{p["words"]: p for p in promises} for promises in tried]
    return " ".join(_worst([one[words] for one in said if words in one]) for words in PROMISES) if tried else ""


def _worst(promises: Sequence[Record]) -> str:
    if not promises:
        return "–"
    worst = max(promises, key=lambda p: ("proved", "not tried", "broken").index(p["state"]))
    if worst["state"] != "not tried":
        return SIGNS[worst["state"]]
    return next((letter for words, letter in REASONS.items() if words in worst["why"]), "–")


def _own(records: Sequence[Record]) -> str:
    keys = ("samples apart", "padding unseen", "felt")
    tried = [r["checks"] for r in records if "checks" in r]
    if not tried:
        return ""
    return " ".join(SIGNS[False if any(c[k] is False for c in tried) else tried[0][k]] for k in keys)


def verdict(model: Model) -> str:
    """Whether a model is one line, right and proved, with every fusion: without options, or with what nothing in it says."""
    if not all(r["state"] == "right" and r["proved"] for r in model):
        return NOT
    return NAMED if any(r["given"] for r in model) else PLAIN


def _sums(name: str, models: Sequence[Model]) -> list[str]:
    run = [m for m in models if any(r["state"] != "does not run" for r in m)]
    said = [verdict(m) for m in run]
    counts = [said.count(PLAIN), said.count(NAMED), said.count(PLAIN) + said.count(NAMED)]
    shares = [f"{n} ({n / len(run):.0%})" if run else "0" for n in counts]
    return [name, f"{len(run)} of {len(models)}", *shares, str(said.count(NOT))]


def _reasons(models: Sequence[Model]) -> str:
    """Why a model is not proved by one line, or what had to be said and why."""
    rest = [m for m in sorted(models, key=lambda m: m[0]["name"]) if verdict(m) != PLAIN]
    return "\n".join(f"- `{m[0]['name']}`: {_why(m)}" for m in rest) or "None."


def _why(model: Model) -> str:
    r = next((r for r in model if verdict([r]) == NOT), None) or next(r for r in model if verdict([r]) != PLAIN)
    if "checks" not in r:
        return f"{r['state']}: {_shortened(r.get('error', ''))}"
    unproved = [p for p in r["proof"] if p["state"] != "proved"] if not r["proved"] else []
    said = [f"{p['words']}: {p['state']}, {p['why']}" for p in unproved]
    wrong = [f"{k} does not hold" for k, v in r["checks"].items() if v is False]
    given = (
        [f"{', '.join(f'`{g}=`' for g in r['given'])}, for without: {_shortened(r['without'])}"] if r["given"] else []
    )
    return "; ".join([*given, *wrong, *said])


def _shortened(error: str) -> str:
    """The first line of an error, without a path of the machine that it was raised on."""
    line = re.sub(r" \(/[^)]*\)", "", error.partition("\n")[0])
    return f"{line[:200]}{'...' if len(line) > 200 else ''}"
