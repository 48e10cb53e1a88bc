"""All runs, in the order in which they balance: every script and condition with the first seed, then with the second, ..."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from fusionzoo._machine import conditions
from fusionzoo.data import load
from fusionzoo.data.export import export_data
from wild import one_process, page
from wild.table import CONDITIONS, MODEL_OF_CONTROL, Script, scripts

Record = dict[str, Any]
Key = tuple[str, str, int]


def main(usage: str | None) -> int:
    """Run what is missing, and write every record as it comes."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/wild", description=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clones", type=Path, help="folder with the clones, OWNER+NAME each")
    parser.add_argument("--data", help="what fusionzoo.data.load reads, with six emotions and IEMOCAP's split")
    parser.add_argument("--json", type=Path, help="file for the records; what it holds is not run again")
    parser.add_argument("--only", default="", help="scripts, with commas; all without it")
    parser.add_argument("--fusions", default=",".join(CONDITIONS), help="conditions, with commas (all)")
    parser.add_argument("--seeds", type=int, help="at most so many per script; the table's numbers without it")
    parser.add_argument("--epochs", type=int, help="for all scripts; the table's numbers without it")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of one thread each (1)")
    parser.add_argument("--limit", type=float, default=600, help="seconds per run (600)")
    parser.add_argument("--page", type=Path, help="print the tables of docs/wild.md from such a file, and run nothing")
    parser.add_argument("--into", type=Path, help="with --page: file in whose place for them they are put instead")
    given = parser.parse_args()
    if given.page:
        text = page.tables(json.loads(given.page.read_text(encoding="utf-8")), scripts())
        print(text) if given.into is None else page.put_into(given.into, text)
        return 0
    if missing := [f"--{n}" for n in ("clones", "data", "json") if getattr(given, n) is None]:
        parser.error(f"{', '.join(missing)} is needed")
    chosen = _chosen(parser, "script", given.only, [s.name for s in scripts()])
    fusions = _chosen(parser, "condition", given.fusions, CONDITIONS)
    torch.set_num_threads(1)
    _import_once()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(given, Path(folder))
        study.run(list(keys([s for s in scripts() if s.name in chosen], fusions, given.seeds)))
    return 0


def _chosen(parser: argparse.ArgumentParser, what: str, text: str, known: Sequence[str]) -> list[str]:
    names = [n for n in text.split(",") if n] or list(known)
    if strange := sorted({*names} - {*known}):
        parser.error(f"no {what} is called {', '.join(strange)}; there are {', '.join(known)}")
    return [n for n in known if n in names]


def _import_once() -> None:
    """What most scripts need, before the processes part: importing can take longer than an epoch."""
    for name in ("fusionzoo.patching", "fusionzoo.wild", "torch_geometric.nn", "pandas", "sklearn.metrics"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def keys(chosen: Sequence[Script], fusions: Sequence[str], seeds: int | None) -> Iterator[Key]:
    """Every run, so that what is finished early compares all conditions."""
    for seed in range(max(s.seeds for s in chosen)):
        for script, condition in itertools.product(chosen, fusions):
            if seed < min(script.seeds, seeds or script.seeds):
                yield script.name, condition, seed


@dataclass
class Running:
    """A process, its folder, and when it is to be ended."""

    process: BaseProcess
    folder: Path
    until: float

    def end(self) -> None:
        """End it with its workers, which are of its group."""
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()


class Study:
    """Runs what is missing of a file of records.

    Parameters
    ----------
    given : the command's options.
    folder : for features and copies of scripts; nothing of them is kept.
    """

    def __init__(self, given: argparse.Namespace, folder: Path):
        self.given, self.folder = given, folder
        self.scripts = {s.name: s for s in scripts()}
        self.records: dict[Key, Record] = {}
        if given.json.exists():
            self.records = {key_of(r): r for r in json.loads(given.json.read_text(encoding="utf-8"))["records"]}
        self.running: dict[Key, Running] = {}
        self.corpus = load(given.data)

    def run(self, wanted: Sequence[Key]) -> None:
        """Run all that has no record yet, or one of a failure."""
        left = [k for k in wanted if one_process.failed(self.records.get(k, {}))]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # no run goes on without the runner
        try:
            while left or self.running:
                ready = [k for k in left if not self._waits_for(k, left)]
                if ready and len(self.running) < self.given.jobs:
                    left.remove(ready[0])
                    self._start(ready[0])
                else:
                    self._collect()
        finally:
            for run in self.running.values():
                run.end()

    def _waits_for(self, key: Key, left: Sequence[Key]) -> bool:
        """Whether it is a control of which the fusion that it is measured by still runs."""
        like = next(((s, c, n) for s, c, n in (*left, *self.running) if (s, c) == (key[0], MODEL_OF_CONTROL)), None)
        return key[1] == "control" and like is not None and self._like(key[0]) is None

    def _like(self, script: str) -> Record | None:
        found = (r for r in self.records.values() if (r["script"], r["condition"]) == (script, MODEL_OF_CONTROL))
        return next((r for r in found if not one_process.failed(r)), None)

    def _start(self, key: Key) -> None:
        script = self.scripts[key[0]]
        clone = (self.given.clones / script.clone).resolve()
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        epochs = self.given.epochs or script.epochs
        arguments = (script, key[1], key[2], epochs, self._like(key[0]), clone, self._features(script), folder)
        process = multiprocessing.get_context("fork").Process(target=one_process.run, args=arguments)
        process.start()
        self.running[key] = Running(process, folder, time.monotonic() + self.given.limit)

    def _features(self, script: Script) -> Path:
        """The folder with the exported features of a script, written on first use."""
        folder = self.folder / f"{script.layout}-{'-'.join(map(str, (script.widths or script.join).values()))}"
        if not folder.exists():
            folder.mkdir()
            export_data(
                self.corpus, folder / "features", script.layout,
                widths=script.widths or None, join=script.join or None, standardise=True,
            )  # fmt: skip
            test = int((self.corpus.split == "test").sum())
            sizes = {"test": test, "training": len(self.corpus.split) - test}
            (folder / "sizes.json").write_text(json.dumps(sizes))
        return folder

    def _collect(self) -> None:
        """Wait for a run to end, or end one whose time is over, and write down what came of it."""
        soonest = min(r.until for r in self.running.values())
        wait([r.process.sentinel for r in self.running.values()], timeout=max(0.0, soonest - time.monotonic()))
        for key, run in list(self.running.items()):
            late = time.monotonic() >= run.until
            if run.process.is_alive() and not late:
                continue
            run.end()
            del self.running[key]
            self._keep(key, run, late)

    def _keep(self, key: Key, run: Running, late: bool) -> None:
        file = run.folder / "record.json"
        name, condition, seed = key
        record: Record = {"script": name, "condition": condition, "seed": seed}
        if file.exists():
            record = json.loads(file.read_text())
        else:
            record["error"] = f"took more than {self.given.limit:.0f} s" if late else "its process ended"
        if one_process.failed(record):
            log = (run.folder / "log").read_text(errors="replace") if (run.folder / "log").exists() else ""
            given = self.given.json
            given.with_name(f"{given.stem}-{name}-{condition}-{seed}.log").write_text(log)
            print(f"{name}, {condition}, seed {seed}: {record['error']}", flush=True)
        else:
            print(f"{name}, {condition}, seed {seed}: {record['by_rule']['f1']:.2f} by its rule, "
                  f"{record['honest']['f1']:.2f} honestly, {record['seconds']:.0f} s", flush=True)  # fmt: skip
        self.records[key] = record
        shutil.rmtree(run.folder, ignore_errors=True)
        write(self.given.json, self.records.values())


def key_of(record: Record) -> Key:
    """Script, condition, seed."""
    return record["script"], record["condition"], record["seed"]


def write(file: Path, records: Any) -> None:
    """The records, one per line, and what they were measured on."""
    lines = ",\n".join(json.dumps(r) for r in sorted(records, key=key_of))
    file.write_text(f'{{"machine": {json.dumps(conditions())}, "records": [\n{lines}\n]}}\n', encoding="utf-8")
