"""Comparison of hosts x fusions x seeds: one run folder per cell, resumable, the cells in processes side by side if wished."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionzoo._file_schemas import RecipeFacts
from fusionzoo._types import Options
from fusionzoo.data.leaks import warn_of_leaks
from fusionzoo.errors import ConfigError, close_matches_hint
from fusionzoo.experiments.runner import Task, be_silent, run_all, seed_list
from fusionzoo.reporting.comparison import (
    Contestant,
    Row,
    configuration,
    numbers_of,
    summarise,
    table_of,
    write_summary,
)
from fusionzoo.runs.config import RunConfig
from fusionzoo.runs.data_section import anchor_paths, load_corpus
from fusionzoo.runs.models import resolved, settle_fusion
from fusionzoo.runs.options import accepted_options, check_options
from fusionzoo.scoring.ceiling import best_reachable
from fusionzoo.scoring.published import published_lines

if TYPE_CHECKING:
    import pandas

    from fusionzoo.data.corpus import Corpus

#: A host or fusion of the grid: a name, or a mapping with `name`, options, and an optional `label` for the tables.
Entry = str | Options


@dataclass(frozen=True)
class Cell:
    """One run of the grid: labels of its host and fusion, configuration and folder."""

    host: str
    fusion: str
    config: RunConfig
    folder: Path


@dataclass
class Comparison:
    """A finished grid.

    Parameters
    ----------
    folder : where the reports lie.
    rows : one per host and fusion.
    failed : a run's name -> why it failed.
    ceiling : the best test score that these data let anybody reach, where that is known.
    recipe : what the configuration came from, see `Recipe.facts`.
    """

    folder: Path
    rows: list[Row]
    failed: dict[str, str]
    ceiling: float | None = None
    recipe: RecipeFacts | None = None

    def to_pandas(self) -> pandas.DataFrame:
        """Every number of the comparison as a data frame, a row per row; what `summary.csv` holds.

        Raises
        ------
        MissingDependency : pandas is not installed (the extra `report`).
        """
        return numbers_of(self.rows).to_pandas()

    def __str__(self) -> str:
        lines = [table_of(self.rows, self.failed, self.ceiling, narrow=True).text(), ""]
        lines.append(f"report: {self.folder / 'report.html'}")
        if self.recipe is not None and self.rows:
            lines += published_lines(self.recipe, {k: v["mean"] for k, v in self.rows[0].test.items()})
        return "\n".join(lines)


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
    recipe: RecipeFacts | None = None,
) -> Comparison:
    """Train every host with every fusion and seed on the same data, and compare.

    Parameters
    ----------
    config : what all runs share; its own host and fusion count where `hosts` or `fusions` is not given.
    out : folder of the comparison; each cell is a run folder `runs/<host>__<fusion>__seed<k>`.
    hosts : names, or mappings with `name`, options, and an optional `label` for the tables. Options in `config` count for
        every host that takes them; one that none takes is refused.
    fusions : likewise. The first one is the baseline that the others are tested against.
    seeds : how many (5 means 0, 1, 2, 3, 4), or which.
    jobs : runs side by side, each in its own process, spread over the GPUs there are. No number depends on it, since a
        run's CPU threads are fixed by `training.threads` (unless that is 0, torch's own choice).
    strict : stop at the first run that fails, instead of noting it and going on.
    quiet : print nothing while running.
    corpus : data already in memory, instead of `config.data.source`.
    recipe : as for `train`.

    A cell that has finished under the same configuration and data is kept; one that was interrupted goes on from its
    checkpoint; one whose configuration or data have changed is made anew, and a line says so.

    Raises
    ------
    ConfigError : the grid makes no sense.
    FusionZooError : what `train` raises, when `strict`.
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
    tasks = [Task(c.config, c.folder, recipe) for c in cells]
    say = be_silent if quiet else None
    outcome = run_all(tasks, corpus, jobs=jobs, stop="any" if strict else "never", say=say)
    groups: dict[Contestant, dict[int, list[Path]]] = {}
    for c in cells:
        groups.setdefault(Contestant(c.host, c.fusion), {})[c.config.training.seed] = [c.folder]
    rows = summarise(groups)
    ceiling = best_reachable(corpus.info, corpus.modalities, "test")
    for row in rows:
        row.ceiling = ceiling
    compared = configuration([(Contestant(c.host, c.fusion), c.config) for c in cells])
    write_summary(folder, rows, outcome.failed, base, {corpus.name: corpus}, compared)
    return Comparison(folder, rows, outcome.failed, ceiling, recipe)


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
    chosen_seeds = seed_list(seeds)
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
        cells.append(Cell(host, fusion, config, folder / "runs" / f"{host}__{fusion}__seed{seed}"))
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


def _resolved(cells: Sequence[Cell], corpus: Corpus) -> list[Cell]:
    """The cells with every option in their configurations; one that cannot be built is left for its run to say why."""
    known: dict[tuple[str, str], RunConfig | None] = {}
    out = []
    for cell in cells:
        pair = (cell.host, cell.fusion)
        if pair not in known:
            with contextlib.suppress(Exception):
                known[pair] = resolved(cell.config, corpus)
        found = known.setdefault(pair, None)
        config = cell.config if found is None else found.replaced(training__seed=cell.config.training.seed)
        out.append(dataclasses.replace(cell, config=config))
    return out
