"""All builders, one after another, each in a process of its own, as a table in Markdown and as JSON."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusionzoo._machine import conditions

HERE = Path(__file__).resolve().parent
HEAD = (
    "model",
    "site",
    "given by hand",
    "step 0",
    "a step moves both",
    "remove",
    "saved = loaded",
    "proof",
    "by the builder",
    "state",
)
CHECKS = ("step 0", "step", "remove", "saved")
SIGNS = {True: "✓", False: "✗", None: "–", "proved": "✓", "broken": "✗", "not tried": "–"}


def main() -> int:
    """Run the builders and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/repositories", description=__doc__)
    parser.add_argument("--clones", type=Path, required=True, help="folder with the clones, OWNER+NAME each")
    parser.add_argument("--only", default="", help="names of builders, with commas; all without it")
    parser.add_argument("--fusions", default="lmam", help="with commas (lmam)")
    parser.add_argument("--alone", action="store_true", help="adapters switched off")
    parser.add_argument("--json", type=Path, help="file for all records")
    parser.add_argument("--limit", type=float, default=300, help="seconds per model (300)")
    given = parser.parse_args()
    known = sorted(p.stem for p in (HERE / "builders").glob("*.py") if not p.stem.startswith("_"))
    names = [n for n in given.only.split(",") if n] or known
    if strange := sorted({*names} - {*known}):
        parser.error(f"no builder is called {', '.join(strange)}; there are {', '.join(known)}")
    records: list[dict[str, Any]] = []
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for name in names:
        for record in run_one(name, given):
            records.append(record)
            print(row(record), flush=True)
        if given.json:
            given.json.write_text(json.dumps(records, indent=1) + "\n")
    print(f"\n{summary(records)}\n\n{conditions()}")
    return 0


def run_one(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The records of one builder; one that says why, where its process fails."""
    fallback = {"name": name, "fusion": given.fusions, "alone": given.alone, "state": "does not run"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records.json"
        command = [
            sys.executable,
            str(HERE),
            "--one",
            name,
            "--clones",
            str(given.clones.resolve()),
            "--fusions",
            given.fusions,
        ]
        command += ["--json", str(file), *(["--alone"] if given.alone else [])]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=given.limit)
        except subprocess.TimeoutExpired:
            return [fallback | {"error": f"took more than {given.limit:.0f} s"}]
        if file.exists():
            records = json.loads(file.read_text())
            return [r | {"log": done.stderr[-3000:]} if r["state"] == "does not run" else r for r in records]
        return [fallback | {"error": (done.stderr.strip().splitlines() or ["no word"])[-1], "log": done.stderr[-3000:]}]


def row(r: dict[str, Any]) -> str:
    """One line of the table."""
    if "checks" not in r:
        error = r.get("error", "").split("\n")[0].replace("|", "/")
        cells = [_link(r), "", ", ".join(r.get("given", [])), *[""] * 6, f"{r['state']}: {error[:200]}"]
        return f"| {' | '.join(cells)} |"
    site, checks = r["site"], r["checks"]
    known = "by its adapter: " if r["adapter"] else ""
    own = " ".join(SIGNS[checks[k]] for k in ("samples apart", "padding unseen", "felt"))
    cells = [_link(r), f"{known}{site['kind']}, `{site['where']}`, `{site['layout']}`, {'+'.join(site['widths'])}"]
    cells += [", ".join(r["given"]) or "nothing", *(SIGNS[checks[k]] for k in CHECKS)]
    cells += [" ".join(SIGNS[p["state"]] for p in r["proof"]), own]
    return f"| {' | '.join(cells)} | {r['state']}{', proved' if r['proved'] else ''} |"


def _link(r: dict[str, Any]) -> str:
    if "repository" not in r:
        return r["name"]
    return f"[{r['name']}](https://github.com/{r['repository']}/tree/{r['commit'][:10]}), {r['fusion']}"


def summary(records: Sequence[dict[str, Any]]) -> str:
    """How many run at all, and how many of them are one line and proved."""
    run = [r for r in records if r["state"] != "does not run"]
    good = [r for r in run if r["state"] == "right" and r["proved"] and not r["given"]]
    share = f" ({len(good) / len(run):.0%})" if run else ""
    return f"{len(run)} of {len(records)} run at all; {len(good)} of these{share} are one line, right and proved."
