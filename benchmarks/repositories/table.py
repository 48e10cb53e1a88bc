"""All builders, one after another, each in a process of its own, as a table in Markdown and as JSON."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fusionzoo._machine import conditions
from repositories import one_process

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "public_models.md"
HEAD = (
    "model", "site", "given by hand", "step 0", "a step moves both", "remove", "saved = loaded", "proof", "by the builder", "state"
)  # fmt: skip
CHECKS = ("step 0", "step", "remove", "saved")
SIGNS = {True: "✓", False: "✗", None: "–", "proved": "✓", "broken": "✗", "not tried": "–"}
Record = dict[str, Any]


def main() -> int:
    """Run the builders and print."""
    parser = argparse.ArgumentParser(prog="python benchmarks/repositories", description=__doc__)
    parser.add_argument("--clones", type=Path, help="folder with the clones, OWNER+NAME each")
    parser.add_argument("--only", default="", help="names of builders, with commas; all without it")
    parser.add_argument("--fusions", default="lmam", help="with commas (lmam)")
    parser.add_argument("--alone", action="store_true", help="adapters switched off")
    parser.add_argument("--json", type=Path, help="file for the records; those of other runs that it holds stay")
    parser.add_argument(
        "--page", type=Path, help="write the tables and sums of docs/public_models.md from such a file, and run nothing"
    )
    parser.add_argument("--limit", type=float, default=600, help="seconds per model (600)")
    given = parser.parse_args()
    if given.page:
        from repositories import page

        page.rewrite(PAGE, json.loads(given.page.read_text()))
        return 0
    if given.clones is None:
        parser.error("--clones FOLDER is needed")
    known = sorted(p.stem for p in (HERE / "builders").glob("*.py") if not p.stem.startswith("_"))
    names = [n for n in given.only.split(",") if n] or known
    if strange := sorted({*names} - {*known}):
        parser.error(f"no builder is called {', '.join(strange)}; there are {', '.join(known)}")
    records: list[Record] = []
    torch.set_num_threads(1)
    _import_once()
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    for name in names:
        for record in run_one(name, given):
            records.append(record)
            print(row(record), flush=True)
        if given.json:
            keep(given.json, records)
    print(f"\n{summary(records)}\n\n{conditions()}")
    return 0


def _import_once() -> None:
    """What most builders need, before the processes part: importing takes longer than the checks."""
    for name in ("fusionzoo.patching", "torch_geometric.nn", "transformers"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def keep(file: Path, records: Sequence[Record]) -> None:
    """Write the records into a file in the place of what it has of the same builders, fusions and ways."""
    old = json.loads(file.read_text()) if file.exists() else []
    every = {(r["name"], r["fusion"], r["alone"]): r for r in [*old, *records]}
    file.write_text(
        json.dumps(sorted(every.values(), key=lambda r: (r["name"], r["alone"], r["fusion"])), indent=1) + "\n"
    )


def run_one(name: str, given: argparse.Namespace) -> list[Record]:
    """The records of one builder; one that says why, where its process fails."""
    fusions = given.fusions.split(",")
    failed = {"name": name, "alone": given.alone, "state": "does not run"}
    with tempfile.TemporaryDirectory() as folder:
        arguments = name, given.clones.resolve(), fusions, given.alone, Path(folder)
        process = multiprocessing.get_context("fork").Process(target=one_process.run, args=arguments)
        process.start()
        process.join(given.limit)
        if process.is_alive():
            process.kill()
            process.join()
            return [failed | {"fusion": f, "error": f"took more than {given.limit:.0f} s"} for f in fusions]
        log = (Path(folder) / "log").read_text(errors="replace")[-3000:]
        file = Path(folder) / "records.json"
        if file.exists():
            return [r | {"log": log} if r["state"] == "does not run" else r for r in json.loads(file.read_text())]
        error = (log.strip().splitlines() or ["no word"])[-1]
        return [failed | {"fusion": f, "error": error, "log": log} for f in fusions]


def row(r: Record) -> str:
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


def _link(r: Record) -> str:
    if "repository" not in r:
        return r["name"]
    return f"[{r['name']}](https://github.com/{r['repository']}/tree/{r['commit'][:10]}), {r['fusion']}"


def summary(records: Sequence[Record]) -> str:
    """How many run at all, and how many of them are one line and proved."""
    run = [r for r in records if r["state"] != "does not run"]
    good = [r for r in run if r["state"] == "right" and r["proved"]]
    given = sum(bool(r["given"]) for r in good)
    share = f" ({len(good) / len(run):.0%})" if run else ""
    return (
        f"{len(run)} of {len(records)} run at all; {len(good)} of these{share} are one line, right and proved, {given} of them with "
        "what nothing in the model says."
    )
