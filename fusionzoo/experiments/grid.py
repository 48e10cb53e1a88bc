"""Comparison of hosts x fusions x seeds: one run folder a cell, resumable, the cells in processes side by side if wished."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionzoo._installed import described
from fusionzoo._text import visible
from fusionzoo._types import Options
from fusionzoo.data.leaks import warn_of_leaks
from fusionzoo.errors import ConfigError, FusionZooError, TrainingError, close_matches_hint
from fusionzoo.reporting.comparison import Row, rows_to_text, summarise, write_summary
from fusionzoo.reporting.run import best_reachable
from fusionzoo.runs.config import RunConfig
from fusionzoo.runs.files import write_text
from fusionzoo.runs.folder import anchor_paths, clear_run, kept, load_corpus, read_result
from fusionzoo.runs.options import accepted_options, check_options

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus

Entry = str | Options


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    host: str
    fusion: str
    seed: int
    config: RunConfig
    folder: Path


@dataclass
class Comparison:
    """A finished grid: `rows` (one per host and fusion), `failed` (cell -> message), and the folder with the reports."""

    folder: Path
    rows: list[Row]
    failed: dict[str, str]
    ceiling: float | None = None

    def __str__(self) -> str:
        return rows_to_text(self.rows, self.failed, self.ceiling) + f"\n\nreport: {self.folder / 'report.html'}"


def compare(
    config: RunConfig | Options | str | Path | None = None,
    out: str | Path = "fusionzoo-runs/compare",
    *,
    hosts: Sequence[Entry] | None = None,
    fusions: Sequence[Entry] | None = None,
    seeds: int | Sequence[int] = 5,
    jobs: int = 1,
    strict: bool = False,
    quiet: bool = False,
    corpus: Corpus | None = None,
) -> Comparison:
    """Train every host with every fusion and seed on the same data, and compare.

    Parameters
    ----------
    config : what all runs share; its own host and fusion count where `hosts` or `fusions` is not given.
    out : folder of the comparison; each cell is a run folder `runs/<host>__<fusion>__seed<k>`.
    hosts, fusions : names, or mappings with `name`, options, and an optional `label` for the tables. The first fusion is
        the baseline that the others are tested against. Options in `config` count for every host or fusion that takes
        them; one that none takes is refused.
    seeds : how many (5 means 0, 1, 2, 3, 4), or which.
    jobs : runs side by side, each in its own process, spread over the GPUs there are. No number depends on it, since a
        run's CPU threads are fixed by `training.threads` (unless that is 0, torch's own choice).
    strict : stop at the first run that fails, instead of noting it and going on.
    quiet : print nothing while running.
    corpus : data already in memory, instead of `config.data.source`.

    A cell that has finished under the same configuration and data is kept; one that was interrupted goes on from its
    checkpoint; one whose configuration or data have changed is made anew, and a line says so.

    Raises `ConfigError` for a grid that makes no sense, and what `train` raises when `strict`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "compare spreads its runs over processes and GPUs itself (--jobs); start it without `accelerate launch`"
        )
    base = copy.deepcopy(config) if isinstance(config, RunConfig) else RunConfig.from_sources(config, check=False)
    folder = Path(out)
    anchor_paths(base.data)
    cells = make_cells(base, folder, hosts, fusions, seeds)
    corpus = corpus if corpus is not None else load_corpus(base.data)
    cells = settle_cells(cells, base, corpus, folder, hosts, fusions, seeds)
    warn_of_leaks(corpus)
    cells = _resolved(cells, corpus)
    say = (lambda _text: None) if quiet else _say
    todo = list(_unfinished(cells, corpus, say))
    failed: dict[str, str] = {}
    done = len(cells) - len(todo)
    with closing(_run_all(todo, corpus, jobs)) as runs:  # an interruption ends the workers
        for cell, error in runs:
            done += 1
            if error is None:
                result = read_result(cell.folder) or {}
                score = (result.get("test") or result.get("dev") or {}).get("weighted_f1")
                say(
                    f"[{done}/{len(cells)}] {cell.folder.name}: "
                    + (f"W-F1 {score:.4f}" if score is not None else "no labels")
                )
            else:
                if strict:
                    raise error
                failed[cell.folder.name] = f"{type(error).__name__}: {error}"
                say(f"[{done}/{len(cells)}] {cell.folder.name} FAILED: {error}")
    pairs = list(dict.fromkeys((c.host, c.fusion) for c in cells))
    rows = summarise({p: [c.folder for c in cells if (c.host, c.fusion) == p] for p in pairs})
    write_summary(folder, rows, failed, base, corpus, cells)
    return Comparison(folder, rows, failed, best_reachable(corpus.info, corpus.modalities, "test"))


def settle_cells(
    cells: list[Cell],
    base: RunConfig,
    corpus: Corpus,
    folder: Path,
    hosts: Sequence[Entry] | None,
    fusions: Sequence[Entry] | None,
    seeds: int | Sequence[int],
) -> list[Cell]:
    """The grid when the data are known: with one modality a default fusion is `none`, and one that was named is refused."""
    from fusionzoo.runs.models import settle_fusion

    if not fusions:
        before = base.fusion.name
        settle_fusion(base, corpus)
        if base.fusion.name != before:
            return make_cells(base, folder, hosts, fusions, seeds)
    for cell in cells:
        settle_fusion(cell.config, corpus)
    return cells


def make_cells(
    base: RunConfig,
    folder: Path,
    hosts: Sequence[Entry] | None,
    fusions: Sequence[Entry] | None,
    seeds: int | Sequence[int],
) -> list[Cell]:
    """The grid, host by host, seeds innermost; every configuration is checked before the first run starts."""
    chosen_seeds = list(range(seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
    if not chosen_seeds or len(set(chosen_seeds)) < len(chosen_seeds) or min(chosen_seeds) < 0:
        raise ConfigError(f"seeds must be one or more different whole numbers from 0, not {seeds!r}")
    axes: list[list[tuple[str, dict[str, Any]]]] = []
    for kind, given in (("host", hosts), ("fusion", fusions)):
        chosen = list(given) if given else [getattr(base, kind).name]
        _check_shared(chosen, kind, base)
        entries = [_entry(e, kind, base) for e in chosen]
        labels = [label for label, _ in entries]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice:
            raise ConfigError(
                f"{kind} {twice!r} is in the comparison twice; give each a different label: {{name: ..., label: ...}}"
            )
        axes.append(entries)
    cells = []
    for (host, host_section), (fusion, fusion_section), seed in itertools.product(axes[0], axes[1], chosen_seeds):
        config = base.replaced(host=host_section, fusion=fusion_section, training__seed=seed)
        name = f"{host}__{fusion}__seed{seed}"
        cells.append(Cell(host, fusion, seed, config, folder / "runs" / name))
    return cells


def _name(entry: Entry, kind: str) -> str:
    name = entry if isinstance(entry, str) else entry.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{kind} {entry!r} must be a name or a mapping with a name")
    return name


def _check_shared(entries: Sequence[Entry], kind: str, base: RunConfig) -> None:
    """Refuse an option of the base configuration that no host (or fusion) of the grid takes."""
    names = [_name(e, kind) for e in entries]
    accepted = [accepted_options(n, kind) for n in names]
    for key, value in getattr(base, kind).options.items():
        if not any(key in a.types for a in accepted):
            if len(names) == 1:
                check_options(names[0], kind, {key: value}, kind)
            known = sorted({o for a in accepted for o in a.types})
            raise ConfigError(
                f"unknown configuration key '{kind}.{key}'{close_matches_hint(key, known) or '.'} "
                f"None of {', '.join(names)} takes it; together they take: {', '.join(known)}."
            )


def _entry(entry: Entry, kind: str, base: RunConfig) -> tuple[str, dict[str, Any]]:
    """Label and section of one host or fusion: the base configuration's options as far as it takes them, then its own."""
    name = _name(entry, kind)
    section = {"name": name} if isinstance(entry, str) else dict(entry)
    label = str(section.pop("label", name))
    if not label or any(c in label for c in "/\\ ") or label.startswith("."):
        raise ConfigError(f"the label {label!r} becomes part of a folder's name; use letters, digits, '-' and '='")
    shared = getattr(base, kind)
    accepted = accepted_options(name, kind)
    options = {k: v for k, v in shared.options.items() if k in accepted.types}
    if kind == "host" and shared.placement is not None:
        options["placement"] = shared.placement
    return label, {**options, **section}


def _unfinished(cells: Sequence[Cell], corpus: Corpus, say: Any) -> Iterator[Cell]:
    from fusionzoo.runs.models import corpus_sha256

    sha256 = corpus_sha256(corpus)
    finished = 0
    for cell in cells:
        result, why = kept(cell.folder, cell.config, sha256)
        if result is not None:
            finished += 1
            continue
        if why:
            say(f"{cell.folder.name}: {why}; running it again")
            clear_run(cell.folder)
        elif (cell.folder / "config.yaml").exists() and _started_as(cell) != cell.config.to_dict():
            say(f"{cell.folder.name}: begun with another configuration; starting it again")
            clear_run(cell.folder)
        yield cell
    if finished:
        say(f"{finished} of {len(cells)} runs are finished already")


def _resolved(cells: Sequence[Cell], corpus: Corpus) -> list[Cell]:
    """The cells with every option in their configurations; one that cannot be built is left for its run to say why."""
    from fusionzoo.runs.models import resolved

    known: dict[tuple[str, str], RunConfig | None] = {}
    out = []
    for cell in cells:
        pair = (cell.host, cell.fusion)
        if pair not in known:
            with contextlib.suppress(Exception):
                known[pair] = resolved(cell.config, corpus)
        found = known.setdefault(pair, None)
        config = cell.config if found is None else found.replaced(training__seed=cell.seed)
        out.append(dataclasses.replace(cell, config=config))
    return out


def _started_as(cell: Cell) -> dict[str, Any] | None:
    try:
        return RunConfig.load(cell.folder / "config.yaml").to_dict()
    except FusionZooError:
        return None


def _run_all(cells: Sequence[Cell], corpus: Corpus, jobs: int) -> Generator[tuple[Cell, Exception | None], None, None]:
    if jobs <= 1 or len(cells) <= 1:
        for cell in cells:
            yield cell, run_cell(cell, corpus)
        return
    # Fresh interpreters: a forked child would inherit torch's threads and a CUDA context that it cannot use.
    context = multiprocessing.get_context("spawn")
    gpus = _gpus(cells[0].config)
    turn = context.Value("i", 0)
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(jobs, len(cells)), context, _start_worker, (corpus, gpus, turn)) as pool:
        running = {pool.submit(_run_in_worker, cell): cell for cell in cells}
        try:
            for future in as_completed(running):
                broken = future.exception()
                yield running[future], broken if isinstance(broken, Exception) else future.result()
        except BaseException:
            # Nobody waits for them: their checkpoints are whole, and the same command goes on from there.
            for future in running:
                future.cancel()
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


def run_cell(cell: Cell, corpus: Corpus) -> Exception | None:
    """Train one cell, going on where it stopped; the error if it failed, its traceback in `failure.txt`."""
    from fusionzoo.training.trainer import train

    failure = cell.folder / "failure.txt"
    try:
        train(cell.config, cell.folder, resume=True, quiet=True, corpus=corpus)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin that exits ends its own cell and no other
        write_text(failure, traceback.format_exc())
        return error if isinstance(error, Exception) else TrainingError(f"the run ended with {described(error)}")
    failure.unlink(missing_ok=True)
    return None


_corpus: Corpus | None = None


def _start_worker(corpus: Corpus, gpus: list[str], turn: Any) -> None:
    global _corpus
    _corpus = corpus
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the first one decides
    if gpus:
        with turn.get_lock():
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[turn.value % len(gpus)]
            turn.value += 1


def _run_in_worker(cell: Cell) -> Exception | None:
    assert _corpus is not None  # set by _start_worker
    error = run_cell(cell, _corpus)
    if error is None or _survives_pickling(error):
        return error
    return FusionZooError(f"{type(error).__name__}: {error}")


def _survives_pickling(error: Exception) -> bool:
    import pickle

    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # whatever a foreign exception's constructor may raise
        return False


def _gpus(config: RunConfig) -> list[str]:
    """GPUs to share out among workers; empty where there is one at most or the configuration names a device."""
    if config.training.device not in ("auto", "cuda"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        names = [v.strip() for v in visible.split(",") if v.strip()]
    else:
        import torch

        names = [str(i) for i in range(torch.cuda.device_count())]
    return names if len(names) > 1 else []


def _say(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
