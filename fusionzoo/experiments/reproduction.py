"""Doing it again: a recipe under both protocols beside what was published, or a finished run beside its own card."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import fusionzoo
from fusionzoo._file_schemas import CardFile, RecipeFacts
from fusionzoo.data.folds import FoldPlan, FoldsLike
from fusionzoo.errors import OptionError
from fusionzoo.experiments.cross_validation import cross_validate
from fusionzoo.experiments.engines import Jobs
from fusionzoo.experiments.runner import Outcome, Task, run_all
from fusionzoo.reporting.pages import TEST_SELECTED
from fusionzoo.reporting.reproduction import Reproduction
from fusionzoo.reporting.table import Table
from fusionzoo.runs.card import RUN_CARD, read_card
from fusionzoo.runs.config import INCIDENTAL, RunConfig, flatten
from fusionzoo.runs.data_section import anchor_paths, load_corpus
from fusionzoo.runs.environment import package_versions
from fusionzoo.runs.models import resolved, settle_fusion
from fusionzoo.runs.options import default_options
from fusionzoo.runs.recipes import PROTOCOLS, Recipe, configuration_of, load_recipe
from fusionzoo.scoring.metrics import METRICS
from fusionzoo.scoring.published import beside

#: Split -> its scores, of one run.
_Splits = Mapping[str, Mapping[str, Any] | None]


def reproduce(
    target: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    protocol: str | None = None,
    variant: str | None = None,
    folds: FoldsLike = None,
    modalities: Sequence[str] | None = None,
    split: str | Path | None = None,
    sets: Iterable[str] = (),
    device: str | None = None,
    jobs: Jobs = None,
    quiet: bool = False,
) -> Reproduction:
    """Do a published recipe or a finished run again, and put what was reported beside what comes out here.

    Parameters
    ----------
    target : a recipe, its name or its YAML file; or a finished run's folder, or its `card.json`.
    out : the folder of the reports; every run in it goes on where it stopped.
    data : where the data lie, for a recipe; for a run, where they lie now.
    protocol : of a recipe: `honest` or `published` alone; None for both, side by side.
    variant : of a recipe that has some.
    folds : in place of the recipe's own; `"none"` for one run.
    modalities, split, sets : what is changed in a recipe, as for `RunConfig.from_sources`.
    device : where it runs.
    jobs : folds side by side; `"auto"` for as many as the machine has room for.
    quiet : print nothing while running.

    Raises
    ------
    OptionError : a finished run is to be changed, which would be another run.
    ConfigError : the target is neither.
    """
    path = Path(target) if isinstance(target, (str, Path)) else None
    if path is not None and (path.is_dir() or path.suffix == ".json"):
        if any(given not in (None, ()) for given in (protocol, variant, folds, modalities, split, sets)):
            raise OptionError(
                "a finished run is done again as it was: only --data, --device, --out, --tolerance go with it"
            )
        card = read_card(path)
        if device is not None:
            card["config"].setdefault("training", {})["device"] = device
        name = path.name if path.name != RUN_CARD else path.resolve().parent.name
        folder = out or Path("fusionzoo-runs") / f"reproduce__{name}"
        return reproduce_card(card, folder, data=data, jobs=jobs, quiet=quiet, name=name)
    recipe = load_recipe(target)
    chosen = [protocol] if protocol is not None else [p for p in PROTOCOLS if p in recipe.protocols] or ["honest"]
    named = {"data": data, "split": split, "modalities": modalities, "device": device}
    configs = {p: configuration_of(recipe, sets=sets, protocol=p, variant=variant, **named) for p in chosen}
    folder = out or Path("fusionzoo-runs") / f"reproduce__{recipe.name}{f'__{variant}' if variant else ''}"
    return reproduce_recipe(recipe, configs, folder, variant=variant, folds=folds, jobs=jobs, quiet=quiet)


def reproduce_recipe(
    recipe: Recipe,
    configs: Mapping[str, RunConfig],
    out: str | Path,
    *,
    variant: str | None = None,
    folds: FoldsLike = None,
    jobs: Jobs = None,
    quiet: bool = False,
) -> Reproduction:
    """Train a recipe by the protocols of `configs` and put the scores beside the published ones.

    Parameters
    ----------
    recipe : what was published.
    configs : protocol -> configuration, data included.
    out : each protocol's run (or cross-validation) is a folder in it that goes on where it stopped.
    variant : of the recipe.
    folds : in place of the recipe's own; `"none"` for one run.
    jobs : folds side by side; `"auto"` for as many as the machine has room for.
    quiet : print nothing while running.
    """
    folder = Path(out)
    ours: list[tuple[str, Mapping[str, Any] | None]] = []
    warnings: list[str] = []
    notes: list[str] = []
    changes = {}
    for protocol in [p for p in PROTOCOLS if p in configs]:
        config, facts = configs[protocol], recipe.facts(protocol, variant)
        own = FoldPlan.read(recipe.resolve_folds(protocol, variant))
        plan = own if folds is None else FoldPlan.read(folds)
        changes[protocol] = _changes(RunConfig.from_sources(recipe=recipe.resolve(protocol, variant)), config)
        if plan != own:
            changes[protocol]["folds"] = [str(own or "none"), str(plan or "none")]
        scores, failed, _ = _run(config, folder / protocol, plan, facts, jobs, quiet)
        ours.append((protocol, scores["test"] or scores["dev"]))
        notes += [] if plan is None else [f"{protocol}: mean of {plan}."]
        warnings += [f"{protocol}: FAILED {n}: {m}" for n, m in failed.items()]
        if config.training.selection == "test":
            warnings.append(f"{protocol}: {TEST_SELECTED}")
    notes += _publication(recipe, variant)
    title = f"{recipe.name}{f' ({variant})' if variant else ''}: published and here, percent"
    table = Table(["metric", "published", *(f"here, {p}" for p, _ in ours)], _rows(recipe.facts(None, variant), ours))
    done = Reproduction(folder, title, table, notes, warnings, changes=changes)
    done.write()
    return done


def _rows(facts: RecipeFacts, ours: Sequence[tuple[str, Mapping[str, Any] | None]]) -> list[list[str]]:
    """Metric, the published score, and that of every protocol here."""
    known = {metric: f"{number:.2f}" for metric, number, _ in beside(facts, None)}
    rows = []
    for name, metric in METRICS.items():
        mine = ["" if s is None or s.get(name) is None else f"{100 * s[name]:.2f}" for _, s in ours]
        rows.append([metric.short, known.get(metric.short, "-"), *mine])
    return rows


def _publication(recipe: Recipe, variant: str | None) -> list[str]:
    """What the publication says of how it came to its scores."""
    published = recipe.published_for(variant)
    said = {k: " ".join(str(published.get(k) or "").split()) for k in ("protocol", "flaw", "source")}
    notes = [f"Published {k}: {words}." for k, words in said.items() if words]
    return notes + ([f"Published features: {recipe.features}"] if recipe.features else [])


def reproduce_card(
    card: CardFile,
    out: str | Path,
    *,
    data: str | Path | None = None,
    jobs: Jobs = None,
    quiet: bool = False,
    name: str = "the run",
) -> Reproduction:
    """Run a card's configuration again and compare every score.

    Parameters
    ----------
    card : of `read_card`.
    out : the folder of the reports.
    data : where the data lie now, if they have moved.
    jobs : folds side by side; `"auto"` for as many as the machine has room for.
    quiet : print nothing while running.
    name : of the run, for the title.
    """
    folder = Path(out)
    recorded_config = RunConfig.from_dict(card["config"])
    config = copy.deepcopy(recorded_config)
    if data is not None:
        if str(data) != config.data.source and config.data.source in fusionzoo.names("dataset"):
            config.data.options = {}  # they mean nothing to another reader
        config.data.source = str(data)
    plan = FoldPlan.read(card.get("folds"))
    ours, failed, data_sha256 = _run(config, folder / "run", plan, card.get("recipe"), jobs, quiet)
    rows, differences = _differences(cast(_Splits, card["scores"]), ours)
    notes = []
    if plan is None:
        known = card.get("data")
        same = known is not None and known["sha256"] == data_sha256
        notes.append(
            "The data are the same, to the last bit." if same else "The data differ from the recorded ones (SHA-256)."
        )
    notes += _versions(card.get("packages") or {})
    if rows and not any(differences.values()):
        notes.append("Every score is the same to the last digit.")
    if recipe := card.get("recipe"):
        notes += [f"Published {m} of {recipe['name']}: {p:.2f} (percent)." for m, p, _ in beside(recipe, None)]
    warnings = [TEST_SELECTED] if config.training.selection == "test" else []
    warnings += [f"FAILED {n}: {m}" for n, m in failed.items()]
    table = Table(["split", "metric", "recorded", "here", "difference"], rows)
    changes = {"run": _changes(recorded_config, config)}
    title = f"{name}: recorded and here, percent"
    done = Reproduction(folder, title, table, notes, warnings, differences, changes)
    done.write()
    return done


def _run(
    config: RunConfig, folder: Path, plan: FoldPlan | None, recipe: RecipeFacts | None, jobs: Jobs, quiet: bool
) -> tuple[_Splits, dict[str, str], str]:
    """Scores by split, failures, and the SHA-256 of the data, of one run or of the mean over folds."""
    if plan is not None:
        done = cross_validate(config, folder, plan, jobs=jobs, quiet=quiet, recipe=recipe)
        return {"test": done.means, "dev": None}, done.failed, ""
    config = copy.deepcopy(config)
    anchor_paths(config.data)
    corpus = load_corpus(config.data)
    settle_fusion(config, corpus)
    task = Task(resolved(config, corpus), folder, recipe, quiet=quiet)
    outcome: Outcome = run_all([task], corpus, stop="any", quiet=quiet)
    result = outcome.results[task.name]
    return {"test": result["test"], "dev": result["dev"]}, {}, result["data"]["sha256"]


def _differences(recorded: _Splits, ours: _Splits) -> tuple[list[list[str]], dict[str, float]]:
    """Rows of the table, and metric -> ours minus the recorded score."""
    rows, differences = [], {}
    for split in ("dev", "test"):
        before, now = recorded.get(split), ours.get(split)
        for name, metric in METRICS.items():
            if not before or not now or before.get(name) is None or now.get(name) is None:
                continue
            difference = now[name] - before[name]
            differences[f"{split} {name}"] = difference
            cells = [f"{100 * before[name]:.2f}", f"{100 * now[name]:.2f}", f"{100 * difference:+.2f}"]
            rows.append([split, metric.short, *cells])
    return rows, differences


def _versions(recorded: Mapping[str, str]) -> list[str]:
    """A note where other versions are installed than a card names."""
    installed = package_versions()
    changed = [f"{k} {v} then, {installed.get(k, 'none')} now" for k, v in recorded.items() if installed.get(k) != v]
    return ["Versions differ: " + "; ".join(changed) + "."] if changed else []


def _changes(there: RunConfig, here: RunConfig) -> dict[str, list[object]]:
    """Key -> its value in a recipe or card and the one that it is run with, where they differ and it can matter.

    Where the data lie, and on which device a run runs, is nobody's recipe.
    """
    a, b = flatten(there.to_dict()), flatten(here.to_dict())
    free = {*INCIDENTAL, "training.device", "data.source"}
    if a["data.source"] != b["data.source"]:
        free |= {k for k in a.keys() ^ b.keys() if k.startswith("data.")}  # options of another reader
    for section in ("host", "fusion", "objective"):
        name = a[f"{section}.name"]
        if name == b[f"{section}.name"]:
            for key, value in default_options(str(name), section).items():  # of an option that only one of them gives
                for flat in (a, b):
                    flat.setdefault(f"{section}.{key}", value)
    return {k: [a.get(k), b.get(k)] for k in dict.fromkeys((*a, *b)) if k not in free and a.get(k) != b.get(k)}
