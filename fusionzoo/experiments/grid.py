"""Comparison of hosts x fusions x objectives x data x protocols x seeds: one run folder per cell, resumable, on any engine."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionzoo._file_schemas import RecipeFacts
from fusionzoo._notebook import html_list, html_table
from fusionzoo._types import Options
from fusionzoo.data.folds import FoldsLike
from fusionzoo.errors import ConfigError, close_matches_hint
from fusionzoo.experiments.axes import Axes, Entry, in_file
from fusionzoo.experiments.cells import Cell, Grid
from fusionzoo.experiments.engines import Engine, EngineLike, Jobs
from fusionzoo.experiments.runner import Task, run_all, seed_list
from fusionzoo.experiments.tuning import check_tuning, studies_of, tune_all
from fusionzoo.reporting.comparison import (
    Contestant,
    Row,
    common_ceiling,
    configuration,
    numbers_of,
    summarise,
    table_of,
    write_summary,
)
from fusionzoo.runs.config import FusionConfig, RunConfig
from fusionzoo.runs.data_section import anchor_paths
from fusionzoo.runs.options import NO_FUSION
from fusionzoo.scoring.ceiling import best_reachable
from fusionzoo.scoring.published import published_lines

if TYPE_CHECKING:
    import pandas

    from fusionzoo.data.corpus import Corpus

#: What a configuration file of a comparison holds besides the sections that all runs share.
KEYS = ("hosts", "fusions", "objectives", "data", "protocols", "seeds", "baseline", "tune", "space", "engine")


@dataclass(repr=False)
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

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"Comparison({len(self.rows)} rows{failed}, {str(self.folder)!r})"

    def _repr_html_(self) -> str:
        table = table_of(self.rows, self.failed, self.ceiling, narrow=True)
        header, *rows = table.lines()
        return html_table(f"comparison in {self.folder}", header, rows) + html_list("", [], table.notes)

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
    objectives: Sequence[Entry] | None = None,
    data: Sequence[Entry] | None = None,
    protocols: Sequence[FoldsLike] | None = None,
    seeds: int | Sequence[int] | None = None,
    baseline: str | None = None,
    tune: int | None = None,
    space: Options | None = None,
    jobs: Jobs = None,
    engine: EngineLike | None = None,
    strict: bool = False,
    quiet: bool = False,
    corpus: Corpus | None = None,
    recipe: RecipeFacts | None = None,
) -> Comparison:
    """Train every host with every fusion (objective, data set, protocol) and seed, and compare.

    Parameters
    ----------
    config : what all runs share; its own host, fusion, objective and data on the axes that are not given. A file, or a
        mapping, may hold the arguments below beside its sections (`data` as a list is the axis); arguments count more.
    out : folder of the comparison; each cell is a run folder `runs/<host>__<fusion>__seed<k>`, with the labels of further
        axes before the seed.
    hosts : names, or mappings with `name`, options, an optional `label` for the tables, and `set`: sections of the
        configuration that are otherwise for this one (`set: {training: {lr: 0.0003}}`). Options in `config` count for
        every host that takes them; one that none takes is refused.
    fusions, objectives : likewise.
    data : sources, or mappings with `source`, keys of section `data`, `label` and `set`.
    protocols : `"split"`, the splits of the data, or what is held out in turn: `"session"`, `"speaker"`, `5`,
        `"speaker:5"`, or a mapping with the keys of `FoldPlan`. The test score of a seed is then that of all held-out
        predictions together.
    seeds : how many (5 means 0, 1, 2, 3, 4), or which; None for 5.
    baseline : label of the fusion that the others are tested against; None for the first one.
    tune : how many Optuna trials of one search space every fusion gets in every host, on dev data only, before its seeds
        are run with what was chosen; None for none. Needs the extra `tune`.
    space : option -> values, in place of those of `fusionzoo.experiments.search_space`: a list of choices, or
        `{"low": 1e-4, "high": 5e-3, "log": True}`; None takes an option out.
    jobs : runs side by side; on this machine each in its own process, spread over the GPUs there are. No number depends on
        it, since a run's CPU threads are fixed by `training.threads` (unless that is 0, torch's own choice). None is one
        at a time with the engine `local`, and what there is room for elsewhere; `"auto"` is what there is room for here.
    engine : `"local"`, `"ray"`, `"slurm"`, a mapping with such a `name` and options (of `ray.init`, or of submitit's
        executor, such as `timeout_min` and `slurm_partition`), or an executor with `submit` as `concurrent.futures` has it.
        No number depends on it. Elsewhere than `local`, `out` and the data must lie where all machines see them.
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
    given = {"hosts": hosts, "fusions": fusions, "objectives": objectives, "data": data, "protocols": protocols}
    given |= {"seeds": seeds, "baseline": baseline, "tune": tune, "space": space, "engine": engine}
    base, asked = _read(config, given)
    if asked["tune"] is not None:
        check_tuning(asked["tune"])
    axes = Axes(**{f.name: asked[f.name] for f in dataclasses.fields(Axes)})
    chosen = seed_list(5 if asked["seeds"] is None else asked["seeds"])
    folder, grid = Path(out), Grid.of(base, axes, chosen, corpus)
    if all(e.config.fusion.name == NO_FUSION for e in grid.entrants):
        base.fusion = FusionConfig(NO_FUSION)  # a default, as it turned out with one modality
    _check_baseline(asked["baseline"], [e.who.fusion for e in grid.entrants])
    where = Engine.read(asked["engine"] or "local", jobs, grid.configs, grid.corpora, {} if corpus else grid.readings)
    cells = grid.cells(folder)
    if not quiet:
        grid.introduce(cells, where, asked["tune"])
    failed: dict[str, str] = {}
    studies: dict[str, dict[str, Any]] = {}
    if asked["tune"] is not None:
        first = {c.model: c for c in reversed(cells)}  # of its seeds
        models = [c.study(folder / "tune", asked["tune"]) for c in reversed(first.values())]
        todo = studies_of(models, asked["space"], grid.corpora)
        done = tune_all(todo, grid.corpora, where, folder, strict=strict, quiet=quiet)
        studies, failed = done.facts, done.failed
    tasks = [
        Task(c.tuned(studies), c.folder, recipe, c.view, c.entrant.data)
        for c in cells
        if asked["tune"] is None or c.model in studies
    ]
    stop: Any = "any" if strict else "never"
    if tasks:
        outcome = run_all(tasks, grid.corpora, engine=where, stop=stop, quiet=quiet, folder=folder)
        failed |= outcome.failed
    rows = _rows(cells, grid, failed, studies, asked["baseline"])
    compared = configuration([(c.entrant.who, c.shown(studies)) for c in cells])
    write_summary(folder, rows, failed, base, grid.labelled, compared)
    return Comparison(folder, rows, failed, common_ceiling(rows), recipe)


def _read(
    config: RunConfig | Options | str | Path | None, given: Mapping[str, Any]
) -> tuple[RunConfig, dict[str, Any]]:
    """What all runs share, and what is compared: arguments before the keys of a file."""
    found: dict[str, Any] = {}
    if isinstance(config, RunConfig):
        base = copy.deepcopy(config)
    else:
        found, sections = ({}, {}) if config is None else in_file(config, KEYS)
        base = RunConfig.from_sources(sections, check=False)
    anchor_paths(base.data)
    return base, {k: found.get(k) if given.get(k) is None else given[k] for k in KEYS}


def _check_baseline(name: str | None, labels: Sequence[str]) -> None:
    if name is not None and name not in labels:
        known = list(dict.fromkeys(labels))
        raise ConfigError(
            f"the baseline {name!r} is not in the comparison{close_matches_hint(name, known) or '.'} "
            f"Its fusions are: {', '.join(known)}"
        )


def _rows(
    cells: Sequence[Cell], grid: Grid, failed: Mapping[str, str], studies: Mapping[str, Any], baseline: str | None
) -> list[Row]:
    """The rows of the table; one all of whose runs failed is among them."""
    groups: dict[Contestant, dict[int, list[Path]]] = {}
    for cell in cells:
        groups.setdefault(cell.entrant.who, {}).setdefault(cell.config.training.seed, []).append(cell.folder)
    rows = summarise(groups, baseline)
    for row, entrant in zip(rows, grid.entrants, strict=True):
        mine = [c for c in cells if c.entrant is entrant]
        models = list(dict.fromkeys(c.model for c in mine))
        names = {c.folder.name for c in mine} | {f"tune {m}" for m in models}
        row.failed = {name: why for name, why in failed.items() if name in names}
        row.tuned = [studies[m] for m in models if m in studies]
        corpus = grid.corpora[entrant.data]
        if entrant.plan is None:  # the ceiling is that of the data's own test split
            row.ceiling = best_reachable(corpus.info, corpus.modalities, "test")
    return rows
