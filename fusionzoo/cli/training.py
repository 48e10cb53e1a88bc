"""The commands that train: one run, folds, a comparison, and doing it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusionzoo.cli.interrupts import goes_on
from fusionzoo.cli.options import (
    EngineName,
    EngineOptions,
    Folds,
    Jobs,
    ModelOptions,
    RunOptions,
    Seeds,
    TrainingOptions,
    comma,
    expanded,
    pairs,
    spelt_out,
)
from fusionzoo.errors import OptionError

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.data.folds import FoldsLike
    from fusionzoo.experiments.engines import EngineLike
    from fusionzoo.runs.config import RunConfig


#: What `--help` shows at its end, by command.
EXAMPLES = {
    "train": ("fusionzoo train --data demo --host dialogue-gcn --fusion lmam --out runs/first",),
    "cross-validate": ("fusionzoo cross-validate --data iemocap.npz --host bc-lstm --fusion lmam --folds session",),
    "compare": (
        "fusionzoo compare --data demo --hosts dialogue-gcn --fusions concat,lmam --seeds 2",
        "fusionzoo compare --data iemocap.npz,meld.npz --hosts bc-lstm --fusions concat,lmam --protocols split,5",
        "fusionzoo compare --config grid.yaml --tune 20 --engine slurm --engine-option slurm_partition=gpu",
    ),
    "reproduce": ("fusionzoo reproduce runs/first --tolerance 0.001",),
}


@expanded
def train(
    asked: ModelOptions,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, batches and dropout.", min=0)] = None,
    seeds: Annotated[int | None, typer.Option(hidden=True, help="Names the command that does it.")] = None,
    folds: Annotated[
        str | None, typer.Option(help="none: one run of a recipe that has folds. Others: fusionzoo cross-validate.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest good checkpoint in --out.")] = False,
) -> None:
    """Train one model and report on its dev and test splits."""
    if folds not in (None, "none"):
        line = spelt_out("cross-validate", asked, folds=folds, seeds=seeds)
        raise OptionError(f"train makes one run; folds are made by\n    {line}")
    plan = asked.loaded.resolve_folds(asked.protocol, asked.variant) if asked.loaded and folds is None else None
    if seeds is not None:
        same = {"seeds": seeds} if plan else {"seeds": seeds, "hosts": asked.host, "fusions": asked.fusion}
        one = {} if plan else {"host": None, "fusion": None}
        line = spelt_out("cross-validate" if plan else "compare", asked, **one, **same)
        raise OptionError(f"train makes one run, with --seed; several seeds are made by\n    {line}")
    run = asked.configuration(seed=seed)
    folder, corpus = _folder(asked, run)
    if plan is not None:
        _cross_validate(asked, run, plan, folder, corpus)
        return
    from fusionzoo.cli import show
    from fusionzoo.experiments.single_run import train as run_training

    goes_on(f"go on with the same command and --resume (the run is in {folder})")
    result = run_training(run, folder, resume=resume, quiet=asked.quiet, recipe=asked.facts, corpus=corpus)
    if result.is_main:
        show.run(result)
    if "data_now" in result.result:
        raise typer.Exit(1)


@expanded
def cross_validate(
    asked: ModelOptions,
    folds: Folds = None,
    seeds: Seeds = None,
    jobs: Jobs = None,
    engine: EngineName = "local",
    engine_option: EngineOptions = None,
) -> None:
    """Train with each part of the data held out in turn, and report mean and deviation; resumable."""
    run = asked.configuration()
    plan = folds if folds is not None or asked.loaded is None else _folds_of(asked)
    if plan is None:
        raise OptionError(
            "cross-validation needs folds: --folds session, speaker, a column of the data, 5 or speaker:5"
        )
    folder, corpus = _folder(asked, run)
    _cross_validate(
        asked, run, plan, folder, corpus, seeds=seeds, jobs=jobs or "auto", engine=_engine(engine, engine_option)
    )


@expanded
def compare(
    asked: RunOptions,
    hosts: Annotated[str | None, typer.Option(help="Hosts, comma-separated.")] = None,
    fusions: Annotated[str | None, typer.Option(help="Fusions, comma-separated.")] = None,
    objectives: Annotated[str | None, typer.Option(help="Objectives, comma-separated.")] = None,
    protocols: Annotated[
        str | None,
        typer.Option(
            help="How data are parted: split (their own), or held out in turn: session, speaker, 5, speaker:5."
        ),
    ] = None,
    seeds: Seeds = None,
    baseline: Annotated[
        str | None, typer.Option(help="Fusion that the others are tested against; default: the first.")
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(help="Optuna trials for every fusion in every host, on dev data, before its seeds.", min=1),
    ] = None,
    jobs: Jobs = None,
    engine: Annotated[
        str | None, typer.Option(help="Where runs run: local, ray (a running cluster, or this machine) or slurm.")
    ] = None,
    engine_option: EngineOptions = None,
    resume: Annotated[bool, typer.Option("--resume", hidden=True, help="Is always so.")] = False,
) -> None:
    """Compare fusions: hosts x fusions x objectives x data x protocols x seeds, with deviations and paired tests.

    The same command goes on where it stopped. --data takes several sources, comma-separated; --config a file that holds
    hosts, fusions, objectives, data, protocols, seeds, baseline, tune, space and engine beside the sections of a run.
    """
    from fusionzoo.cli import show
    from fusionzoo.experiments.axes import in_file
    from fusionzoo.experiments.grid import KEYS
    from fusionzoo.experiments.grid import compare as run_comparison
    from fusionzoo.reporting.pages import TEST_SELECTED

    if resume:
        typer.echo("compare always resumes: runs that are finished are kept, so --resume changes nothing", err=True)
    grid, sections = ({}, None) if asked.config is None else in_file(asked.config, KEYS)
    given = {"hosts": comma(hosts), "fusions": comma(fusions), "objectives": comma(objectives), "seeds": seeds}
    given |= {"protocols": comma(protocols), "baseline": baseline, "tune": tune, "data": _sources(asked.data)}
    given |= {"engine": None if engine is None and not engine_option else _engine(engine or "local", engine_option)}
    several: Any = given["data"] or grid.get("data") or []
    first = [e["source"] if isinstance(e, Mapping) and "source" in e else str(e) for e in several[:1]]
    shared: RunOptions = replace(asked, config=sections, data=(first or [asked.data])[0])
    run = shared.configuration(check=False)  # its options are for several hosts and fusions
    folder = asked.out or Path("fusionzoo-runs") / "compare"
    goes_on(f"the same command goes on where it stopped (the runs are in {folder})")
    settings: dict[str, Any] = grid | {k: v for k, v in given.items() if v is not None}
    done = run_comparison(run, folder, jobs=jobs or "auto", quiet=asked.quiet, recipe=asked.facts, **settings)
    show.with_red(str(done), [TEST_SELECTED])
    if done.failed:
        raise typer.Exit(1)


def _sources(data: str | None) -> list[str] | None:
    """`a.npz,b.npz` as two; a comma in the name of a file that is there parts nothing."""
    if data is None or "," not in data or Path(data).exists():
        return None
    return comma(data)


def _engine(name: str, options: list[str] | None) -> EngineLike:
    return {"name": name, **pairs(options, "--engine-option")}


@expanded
def reproduce(
    target: Annotated[
        str, typer.Argument(help="A recipe's name or YAML file, a finished run's folder, or its card.json.")
    ],
    asked: TrainingOptions,
    folds: Folds = None,
    jobs: Jobs = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Of a run: exit with 1 where a score differs by more than this.", min=0.0)
    ] = None,
) -> None:
    """Do a published recipe or a finished run again, and show what was reported beside what comes out here."""
    from fusionzoo.cli import show
    from fusionzoo.experiments.reproduction import reproduce as do_again

    goes_on("the same command goes on where it stopped")
    done = do_again(
        target,
        asked.out,
        data=asked.data,
        protocol=asked.protocol,
        variant=asked.variant,
        folds=folds,
        modalities=comma(asked.modalities),
        split=asked.split,
        sets=asked.set_ or (),
        device=asked.device,
        jobs=jobs or "auto",
        quiet=asked.quiet,
    )
    show.with_red(str(done), done.warnings)
    if tolerance is not None and any(abs(d) > tolerance for d in done.differences.values()):
        raise typer.Exit(1)


def _folds_of(asked: RunOptions) -> FoldsLike:
    return None if asked.loaded is None else asked.loaded.resolve_folds(asked.protocol, asked.variant)


def _folder(asked: RunOptions, run: RunConfig) -> tuple[Path, Corpus | None]:
    """`multiemo-iemocap__honest__seed0`, or `dialogue-gcn__lmam__seed0` without a recipe; and the data, if they were read.

    The folder is named for the fusion, which one modality leaves out; so nothing is named before the data are known.
    """
    if asked.out is not None:
        return asked.out, None
    from fusionzoo.runs.data_section import load_corpus
    from fusionzoo.runs.models import settle_fusion

    corpus = load_corpus(run.data)
    settle_fusion(run, corpus)
    about = asked.facts
    parts = [run.host.name, run.fusion.name]
    if about is not None:
        parts = [p for p in (about["name"], about["variant"], about["protocol"]) if p]
    return Path("fusionzoo-runs") / "__".join([*parts, f"seed{run.training.seed}"]), corpus


def _cross_validate(
    asked: RunOptions, run: RunConfig, plan: FoldsLike, folder: Path, corpus: Corpus | None, **more: Any
) -> None:
    from fusionzoo.cli import show
    from fusionzoo.experiments.cross_validation import cross_validate as run_folds

    goes_on(f"the same command goes on where it stopped (the folds are in {folder})")
    done = run_folds(run, folder, plan, quiet=asked.quiet, recipe=asked.facts, corpus=corpus, **more)
    if done.is_main:
        show.with_red(str(done), done.warnings)
    if done.failed:
        raise typer.Exit(1)
