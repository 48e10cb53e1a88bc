"""The tables of docs/public_models.md, from the records of runs with adapters and alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fusionzoo.patching.promises import APART, COMPLETE, FELT, FITS, LEARNS, PADDING

Record = dict[str, Any]
PROMISES = (APART, PADDING, FITS, FELT, COMPLETE, LEARNS)
CHECKS = ("step 0", "step", "remove", "saved")
SIGNS = {True: "✓", False: "✗", None: "–", "proved": "✓", "broken": "✗", "not tried": "–"}
KNOWN_HEAD = "| model | with its adapter | alone, the first found | holds | proof, with and alone | by the builder |"
FURTHER_HEAD = "| model | the first found | holds | proof | by the builder |"
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


def tables(records: Sequence[Record]) -> str:
    """Both tables with what they add up to, and the reason of each model that is not proved by one line."""
    by_name: dict[str, dict[bool, list[Record]]] = {}
    for r in records:
        by_name.setdefault(r["name"], {}).setdefault(r["alone"], []).append(r)
    known = {n: ways for n, ways in by_name.items() if any(r.get("adapter") for r in ways.get(False, ()))}
    further = {n: next(iter(ways.values())) for n, ways in by_name.items() if n not in known}
    lines = [KNOWN_HEAD, "|---|---|---|---|---|---|"]
    lines += [_known_row(ways.get(False, []), ways.get(True, [])) for _, ways in sorted(known.items(), key=_title)]
    lines += ["", FURTHER_HEAD, "|---|---|---|---|---|"]
    lines += [_further_row(rs) for _, rs in sorted(further.items(), key=_title) if rs[0]["state"] != "does not run"]
    lines += ["", *_reasons("With adapters", [w[False] for w in known.values() if False in w])]
    lines += ["", *_reasons("Alone", [w[True] for w in known.values() if True in w])]
    lines += ["", *_reasons("Further", list(further.values()))]
    wrong = [f"`{r['name']}`, {k}" for r in records for k in wrongly_proved(r)]
    lines += ["", f"Proved by the library and not so by the builder: {'; '.join(wrong) or 'none'}."]
    return "\n".join(lines)


def wrongly_proved(r: Record) -> list[str]:
    """Promises that the library calls proved where the builder's own check fails."""
    own = ("samples apart", "padding unseen", "felt")
    return [
        k for k, p in zip(own, r.get("proof", ()), strict=False) if p["state"] == "proved" and r["checks"][k] is False
    ]


def _title(item: tuple[str, Any]) -> str:
    return item[0].lower()


def _known_row(with_adapter: Sequence[Record], alone: Sequence[Record]) -> str:
    both = [*with_adapter, *alone]
    cells = [_link(both[0]), _place(with_adapter), _place(alone), _holds(both)]
    cells += [f"{_proof(with_adapter)} · {_proof(alone)}", f"{_own(with_adapter)} · {_own(alone)}"]
    return f"| {' | '.join(cells)} |"


def _further_row(records: Sequence[Record]) -> str:
    return f"| {' | '.join([_link(records[0]), _place(records), _holds(records), _proof(records), _own(records)])} |"


def _link(r: Record) -> str:
    repository = r["repository"].rpartition("/")[2]
    return f"[{repository}](https://github.com/{r['repository']}/tree/{r['commit'][:10]}), `{r['name']}`"


def _place(records: Sequence[Record]) -> str:
    if not records or "checks" not in records[0]:
        return records[0]["state"] if records else ""
    r = records[0]
    site = r["site"]
    where = "input" if site["kind"] == "input" else site["kind"]
    place = site["where"].removeprefix("argument ").rpartition("/")[2]
    given = f", given: {', '.join(r['given'])}" if r["given"] else ""
    return f"{where}, `{place}`, `{site['layout']}`{given}"


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


def good(records: Sequence[Record]) -> bool:
    """Whether a model is one line, right and proved, with every fusion."""
    return all(r["state"] == "right" and r["proved"] and not r["given"] for r in records)


def _reasons(title: str, models: Sequence[Sequence[Record]]) -> list[str]:
    run = [rs for rs in models if any(r["state"] != "does not run" for r in rs)]
    share = f" ({sum(map(good, run)) / len(run):.0%})" if run else ""
    lines = [
        f"{title}: {len(run)} of {len(models)} run at all; {sum(map(good, run))}{share} are one line, right and proved.",
        "",
    ]
    return lines + [
        f"- `{rs[0]['name']}`: {_why(rs)}" for rs in sorted(models, key=lambda m: m[0]["name"]) if not good(rs)
    ]


def _why(records: Sequence[Record]) -> str:
    r = next(r for r in records if not good([r]))
    if "checks" not in r:
        error = re.sub(
            r" \(/[^)]*\)", "", r.get("error", "").partition("\n")[0]
        )  # no path of the machine that it ran on
        return f"{r['state']}: {error[:300]}{'...' if len(error) > 300 else ''}"
    said = (
        [f"{p['words']}: {p['state']}, {p['why']}" for p in r["proof"] if p["state"] != "proved"]
        if not r["proved"]
        else []
    )
    wrong = [f"{k} does not hold" for k, v in r["checks"].items() if v is False]
    given = [f"{', '.join(r['given'])} given by hand"] if r["given"] else []
    return "; ".join([*given, *wrong, *said])
