"""Cross-validation: leave one session, speaker or group out, or k folds; one run folder per fold, resumable.

In every fold the held-out part is the test split and the rest is train, of which dev is drawn (`data.dev_fraction`) or, with
`dev: fold`, is the next fold as a whole. So the held-out part is touched once, unless a published protocol chooses the
epoch on it, which every report says in red.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._file_schemas import RecipeFacts
from fusionzoo._types import Options
from fusionzoo.data.folds import FoldPlan, FoldsLike
from fusionzoo.errors import DataError, OptionError
from fusionzoo.experiments.banner import about_data, about_device, about_models, introduce
from fusionzoo.experiments.engines import Engine, EngineLike, Jobs
from fusionzoo.experiments.held_out import HeldOut, held_out, of_fold
from fusionzoo.experiments.runner import Outcome, Task, run_all, seed_list
from fusionzoo.reporting.folds import CrossValidation
from fusionzoo.runs.config import RunConfig
from fusionzoo.runs.data_section import anchor_paths, load_corpus
from fusionzoo.runs.models import built, count_parameters, settle_fusion
from fusionzoo.scoring.metrics import METRICS, scores_from_confusion
from fusionzoo.scoring.statistics import mean_interval

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus


def cross_validate(
    config: RunConfig | Options | str | Path,
    out: str | Path,
    folds: FoldsLike,
    *,
    seeds: int | Sequence[int] | None = None,
    jobs: Jobs = None,
    engine: EngineLike = "local",
    quiet: bool = False,
    corpus: Corpus | None = None,
    recipe: RecipeFacts | None = None,
) -> CrossValidation:
    """Train and test once for every fold, and report the mean and the deviation.

    Parameters
    ----------
    config : what all folds share; its `data.dev_fraction` and `data.split_seed` draw dev in every fold.
    out : a folder; each fold is a run folder `runs/<fold>__seed<k>`, its split lies in `splits/<fold>.json`. Finished folds
        are kept when the command is given again, interrupted ones go on from their checkpoint.
    folds : `5`, `"session"`, `"speaker:5"`, `{"by": "speaker", "k": 5}`; see `FoldPlan`.
    seeds : how many (3 means 0, 1, 2), or which; None is `training.seed` alone.
    jobs : runs side by side, each in its own process; no number depends on it. `"auto"` for as
        many as the machine has room for.
    engine : where they run, as for `compare`.
    quiet : print nothing while running.
    corpus : data already in memory, instead of `config.data.source`.
    recipe : as for `train`.

    Leaves `summary.json`, `summary.md` and `report.html`. A fold that fails is noted in `failed`.

    Raises
    ------
    OptionError : there are no folds, or a split beside them.
    DataError : the data cannot be parted like this.
    FusionZooError : what `train` raises, in the first fold.
    """
    plan = FoldPlan.read(folds)
    if plan is None:
        raise OptionError("cross-validation needs folds: session, speaker, a number, or speaker:5")
    base = copy.deepcopy(config) if isinstance(config, RunConfig) else RunConfig.from_sources(config)
    if base.data.split is not None:
        raise OptionError("--split and --folds exclude each other: the folds are the split")
    folder = Path(out)
    anchor_paths(base.data)
    readings = {} if corpus is not None else {"": copy.deepcopy(base.data)}
    if corpus is None:
        corpus = load_corpus(base.data)
    settle_fusion(base, corpus)
    parts = held_out(corpus, plan, base.data.dev_fraction, base.data.split_seed)
    base, host = built(base, corpus)
    where, tasks = Engine.read(engine, jobs, [base], {"": corpus}, readings), []
    for seed in [base.training.seed] if seeds is None else seed_list(seeds):
        for part in parts:
            path = folder / "splits" / f"{part.fold}.json"
            part.write(path)
            run = of_fold(base.replaced(training__seed=seed), path)
            tasks.append(Task(run, folder / "runs" / f"{part.fold}__seed{seed}", recipe, part))
    if where.is_main and not quiet:
        models = about_models([(base.title, count_parameters(host))])
        folds_of = f"runs     {plan}: {len(tasks)} runs, {where}"
        introduce([*about_data(corpus), *models, about_device(base), folds_of])
    outcome = run_all(tasks, corpus, engine=where, stop="first", quiet=quiet, folder=folder)
    done = _gathered(outcome, tasks, folder, plan, base, corpus)
    if done.is_main:
        done.write(base, corpus)
    return done


def _gathered(
    outcome: Outcome, tasks: Sequence[Task], folder: Path, plan: FoldPlan, base: RunConfig, corpus: Corpus
) -> CrossValidation:
    """The folds' scores as rows, their mean, and the scores of all held-out predictions together."""
    rows: list[dict[str, Any]] = []
    confusion = np.zeros((corpus.num_classes, corpus.num_classes))
    for task in tasks:
        assert isinstance(task.view, HeldOut)
        result = outcome.results.get(task.name)
        if result is None:
            continue
        scores: Any = result["test"]
        if not scores:
            raise DataError(
                f"{corpus.source}: the fold {task.view.fold!r} has no labelled utterance; choose other folds."
            )
        confusion += np.asarray(scores["confusion"])
        facts = {k: scores[k] for k in (*METRICS, "utterances")}
        rows.append({"fold": task.view.fold, "seed": result["seed"], "epoch": result["epoch"], **facts})
    mean = {k: mean_interval(_per_fold(rows, k)) for k in METRICS}
    pooled = {k: float(v) for k, v in scores_from_confusion(confusion).items()} if rows else {}
    selection, recipe = base.training.selection, tasks[0].recipe
    return CrossValidation(folder, plan, rows, mean, pooled, outcome.failed, selection, recipe, outcome.is_main)


def _per_fold(rows: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """A metric of every fold, averaged over its seeds."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["fold"], []).append(row[metric])
    return [float(np.mean(v)) for v in values.values()]
