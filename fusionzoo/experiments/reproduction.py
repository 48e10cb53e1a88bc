"""Doing it again: a recipe under both protocols beside what was published, or a finished run beside its own card."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fusionzoo
from fusionzoo._file_schemas import CardFile, FoldsFile
from fusionzoo._schema import check, parse_json, text_of
from fusionzoo._text import markdown_table
from fusionzoo.errors import CheckpointError, ConfigError
from fusionzoo.experiments.cross_validation import FoldPlan, cross_validate
from fusionzoo.reporting import run as report
from fusionzoo.runs.config import INCIDENTAL, RunConfig, flatten
from fusionzoo.runs.files import write_json, write_text
from fusionzoo.runs.folder import package_versions
from fusionzoo.runs.options import default_options
from fusionzoo.runs.recipes import PROTOCOLS, Recipe
from fusionzoo.scoring.metrics import SCORES, SHORT_NAMES
from fusionzoo.scoring.published import beside

if TYPE_CHECKING:
    from fusionzoo.training.trainer import RunResult

CARD, SUMMARY = "card.json", "summary.json"


@dataclass
class Reproduction:
    """`header` and `rows` of the table, `notes`, `warnings` (what stands in red), and where it lies.

    differences : metric -> ours minus the recorded score, of a run that was done again; empty for a recipe.
    changes : what runs differ in from the recipe or the card, by protocol (`run` for a card): key -> [there, here].
    """

    folder: Path
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)
    changes: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def __str__(self) -> str:
        widths = [max(map(len, c)) for c in zip(self.header, *self.rows, strict=True)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in (self.header, *self.rows)
        ]
        where = f"report: {self.folder / 'report.html'}"
        return "\n".join([self.title, *lines, *self.changed, *self.notes, *self.warnings, where])

    @property
    def changed(self) -> list[str]:
        """The changes in words, one line a protocol: `honest: changed from the recipe: training.epochs 60 -> 1.`"""
        of = "the card" if "run" in self.changes else "the recipe"
        lines = []
        for label, changes in self.changes.items():
            listed = ", ".join(f"{k} {_value(there)} -> {_value(here)}" for k, (there, here) in changes.items())
            before = "" if label == "run" else f"{label}: "
            lines.append(
                f"{before}changed from {of}: {listed}." if listed else f"{before}nothing is changed from {of}."
            )
        return lines

    def write(self) -> None:
        """`reproduction.md`, `reproduction.json` and `report.html`."""
        lines = [
            self.title,
            "",
            *markdown_table(self.header, self.rows),
            "",
            *self.changed,
            *self.notes,
            *(f"**{w}**" for w in self.warnings),
            "",
        ]
        write_text(self.folder / "reproduction.md", "\n".join(lines))
        keys = ("title", "header", "rows", "changes", "notes", "warnings", "differences")
        facts = {k: getattr(self, k) for k in keys}
        write_json(self.folder / "reproduction.json", facts)
        parts = [report.paragraph(w, "warning") for w in self.warnings]
        parts += [report.table(self.header, self.rows), *(report.paragraph(c) for c in self.changed)]
        parts += [report.paragraph(n, "note") for n in self.notes]
        write_text(self.folder / "report.html", report.page(self.title, parts))


def reproduce_recipe(
    recipe: Recipe,
    configs: Mapping[str, RunConfig],
    out: str | Path,
    *,
    variant: str | None = None,
    folds: Any = None,
    quiet: bool = False,
) -> Reproduction:
    """Train a recipe by the protocols of `configs` and put the scores beside the published ones.

    configs : protocol -> configuration, data included. folds : overrides the recipe's own; `"none"` is one run.
    Each protocol's run (or cross-validation) is a folder of `out` that goes on where it stopped.
    """
    from fusionzoo.training.trainer import train

    folder = Path(out)
    ours: list[tuple[str, Mapping[str, Any] | None]] = []
    warnings, notes, changes = [], [], {}
    for protocol in [p for p in PROTOCOLS if p in configs]:
        config, facts = configs[protocol], recipe.facts(protocol, variant)
        own = FoldPlan.read(recipe.resolve_folds(protocol, variant))
        plan = own if folds is None else FoldPlan.read(folds)
        changes[protocol] = _changes(RunConfig.from_sources(recipe=recipe.resolve(protocol, variant)), config)
        if plan != own:
            changes[protocol]["folds"] = [str(own or "none"), str(plan or "none")]
        if plan is None:
            result = _current(train(config, folder / protocol, resume=True, quiet=quiet, recipe=facts))
            scores = result["test"] or result["dev"]
        else:
            done = cross_validate(config, folder / protocol, plan, quiet=quiet, recipe=facts)
            scores = {k: v["mean"] for k, v in done.mean.items()}
            notes.append(f"{protocol}: mean of {plan}.")
            warnings += [f"{protocol}: FAILED {n}: {m}" for n, m in done.failed.items()]
        ours.append((protocol, scores))
        if config.training.selection == "test":
            warnings.append(f"{protocol}: {report.TEST_SELECTED}")
    published = recipe.published_for(variant)
    known = {metric: number for metric, number, _ in beside(recipe.facts(None, variant), None)}
    rows = []
    for metric in SCORES:
        name = SHORT_NAMES[metric]
        mine = ["" if s is None or s.get(metric) is None else f"{100 * s[metric]:.2f}" for _, s in ours]
        rows.append([name, f"{known[name]:.2f}" if name in known else "-", *mine])
    for key in ("protocol", "flaw", "source"):
        if published.get(key):
            notes.append(f"Published {key}: {' '.join(str(published[key]).split())}.")
    if recipe.features:
        notes.append(f"Published features: {recipe.features}")
    title = f"{recipe.name}{f' ({variant})' if variant else ''}: published and here, percent"
    header = ["metric", "published", *(f"here, {p}" for p, _ in ours)]
    done = Reproduction(folder, title, header, rows, notes, warnings, changes=changes)
    done.write()
    return done


def _changes(there: RunConfig, here: RunConfig) -> dict[str, list[Any]]:
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
            for key, value in default_options(name, section).items():  # of an option that only one of them gives
                for flat in (a, b):
                    flat.setdefault(f"{section}.{key}", value)
    return {k: [a.get(k), b.get(k)] for k in dict.fromkeys((*a, *b)) if k not in free and a.get(k) != b.get(k)}


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def _current(run: RunResult) -> dict[str, Any]:
    """A run's result, unless it was made with data that have changed since."""
    if "data_now" in run.result:
        raise CheckpointError(
            f"{str(run.folder)!r} holds a run on other data than they are now, so it says nothing about them; choose another --out"
        )
    return run.result


def read_card(path: str | Path) -> dict[str, Any]:
    """What a finished run says about itself: the card, from its file, its run folder or a cross-validation's folder.

    Raises `ConfigError` for anything else.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    file = next((f for f in (folder / CARD, folder / SUMMARY) if f.is_file()), None) if path.is_dir() else path
    expected = "expected a finished run's folder, its card.json, or a recipe's name (fusionzoo plugins --kind recipe)"
    if file is None or not file.is_file():
        raise ConfigError(f"{str(path)!r} holds no {CARD}; {expected}")

    def refused(message: str) -> ConfigError:
        return ConfigError(f"{message}; {expected}")

    content = parse_json(text_of(file, refused), str(file), refused)
    if isinstance(content, dict) and "folds" in content and "mean" in content:
        found = check(FoldsFile, content, str(file), refused)
        test = {k: found["mean"][k]["mean"] for k in SCORES}
        if None in test.values():
            raise refused(f"{str(file)!r} holds no scores: no fold had finished")
        config = RunConfig.load(folder / "config.yaml").to_dict()
        return {**found, "config": config, "scores": {"test": test, "dev": None}}
    return {**check(CardFile, content, str(file), refused)}


def reproduce_card(
    card: Mapping[str, Any], out: str | Path, *, data: str | None = None, quiet: bool = False, name: str = "the run"
) -> Reproduction:
    """Run a card's configuration again, on `data` where they lie elsewhere now, and compare every score."""
    from fusionzoo.training.trainer import train

    folder = Path(out)
    recorded_config = RunConfig.from_dict(card["config"])
    config = copy.deepcopy(recorded_config)
    if data is not None:
        if str(data) != config.data.source and config.data.source in fusionzoo.names("dataset"):
            config.data.options = {}  # they mean nothing to another reader
        config.data.source = str(data)
    notes: list[str] = []
    if card.get("folds"):
        done = cross_validate(config, folder / "run", card["folds"], quiet=quiet, recipe=card.get("recipe"))
        ours: dict[str, Any] = {"test": {k: v["mean"] for k, v in done.mean.items()}, "dev": None}
    else:
        result = _current(train(config, folder / "run", resume=True, quiet=quiet, recipe=card.get("recipe")))
        ours = {s: result[s] for s in ("dev", "test")}
        before, now = card.get("data", {}).get("sha256"), result["data"]["sha256"]
        same = before == now
        notes.append(
            "The data are the same, to the last bit." if same else "The data differ from the recorded ones (SHA-256)."
        )
    versions = card.get("packages") or {}
    installed = package_versions()
    changed = [f"{k} {v} then, {installed.get(k, 'none')} now" for k, v in versions.items() if installed.get(k) != v]
    if changed:
        notes.append("Versions differ: " + "; ".join(changed) + ".")
    rows, differences = [], {}
    for split in ("dev", "test"):
        recorded, mine = card["scores"].get(split), ours.get(split)
        if not recorded or not mine:
            continue
        for metric in SCORES:
            difference = mine[metric] - recorded[metric]
            differences[f"{split} {metric}"] = difference
            cells = [f"{100 * recorded[metric]:.2f}", f"{100 * mine[metric]:.2f}", f"{100 * difference:+.2f}"]
            rows.append([split, SHORT_NAMES[metric], *cells])
    if rows and not any(differences.values()):
        notes.append("Every score is the same to the last digit.")
    warnings = [report.TEST_SELECTED] if config.training.selection == "test" else []
    header = ["split", "metric", "recorded", "here", "difference"]
    recipe = card.get("recipe")
    if recipe:
        for metric, number, _ in beside(recipe, None):
            notes.append(f"Published {metric} of {recipe['name']}: {number:.2f} (percent).")
    changes = {"run": _changes(recorded_config, config)}
    title = f"{name}: recorded and here, percent"
    outcome = Reproduction(folder, title, header, rows, notes, warnings, differences, changes)
    outcome.write()
    return outcome


def write_card(folder: Path, config: RunConfig, result: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    """`card.json` of a finished run: all that it takes to do it again and to compare."""
    scores = {s: None if not result[s] else {k: result[s][k] for k in SCORES} for s in ("dev", "test")}
    keys: Sequence[str] = ("command", "python", "platform", "device", "threads", "precision", "packages", "git")
    write_json(
        folder / CARD,
        {
            "format": 1,
            "recipe": result.get("recipe"),
            "config": config.to_dict(),
            "scores": scores,
            **{k: result[k] for k in ("seed", "epoch", "selection", "metric", "parameters", "seconds")},
            "data": {k: result["data"][k] for k in ("name", "sha256")},
            **{k: environment.get(k) for k in keys},
        },
    )
