"""Doing it again: a recipe under both protocols beside what was published, or a finished run beside its own card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusionzoo._text import markdown_table
from fusionzoo.errors import ConfigError
from fusionzoo.evaluation import report
from fusionzoo.evaluation.folds import FoldPlan, cross_validate
from fusionzoo.evaluation.metrics import SCORES, SHORT_NAMES
from fusionzoo.evaluation.published import beside
from fusionzoo.recipes import PROTOCOLS, Recipe
from fusionzoo.training.config import RunConfig
from fusionzoo.training.files import write_json, write_text
from fusionzoo.training.runfolder import package_versions

CARD, SUMMARY = "card.json", "summary.json"


@dataclass
class Reproduction:
    """`header` and `rows` of the table, `notes`, `warnings` (what stands in red), and where it lies.

    differences : metric -> ours minus the recorded score, of a run that was done again; empty for a recipe.
    """

    folder: Path
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        widths = [max(map(len, c)) for c in zip(self.header, *self.rows, strict=True)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in (self.header, *self.rows)
        ]
        return "\n".join([self.title, *lines, *self.notes, *self.warnings, f"report: {self.folder / 'report.html'}"])

    def write(self) -> None:
        """`reproduction.md`, `reproduction.json` and `report.html`."""
        lines = [
            self.title,
            "",
            *markdown_table(self.header, self.rows),
            "",
            *self.notes,
            *(f"**{w}**" for w in self.warnings),
            "",
        ]
        write_text(self.folder / "reproduction.md", "\n".join(lines))
        facts = {k: getattr(self, k) for k in ("title", "header", "rows", "notes", "warnings", "differences")}
        write_json(self.folder / "reproduction.json", facts)
        parts = [report.paragraph(w, "warning") for w in self.warnings]
        parts += [report.table(self.header, self.rows), *(report.paragraph(n, "note") for n in self.notes)]
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
    warnings, notes = [], []
    for protocol in [p for p in PROTOCOLS if p in configs]:
        config, facts = configs[protocol], recipe.facts(protocol, variant)
        plan = FoldPlan.read(folds if folds is not None else recipe.resolve_folds(protocol, variant))
        if plan is None:
            result = train(config, folder / protocol, resume=True, quiet=quiet, recipe=facts).result
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
    done = Reproduction(folder, title, ["metric", "published", *(f"here, {p}" for p, _ in ours)], rows, notes, warnings)
    done.write()
    return done


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
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{str(file)!r} cannot be read as JSON: {error}; {expected}") from error
    if isinstance(content, dict) and "folds" in content and "mean" in content:
        config = RunConfig.load(folder / "config.yaml").to_dict()
        test = {k: content["mean"][k]["mean"] for k in SCORES}
        return {**content, "config": config, "scores": {"test": test, "dev": None}}
    if not isinstance(content, dict) or not {"config", "scores"} <= set(content):
        raise ConfigError(f"{str(file)!r} is not the card of a run: it lacks config or scores; {expected}")
    return content


def reproduce_card(
    card: Mapping[str, Any], out: str | Path, *, data: str | None = None, quiet: bool = False, name: str = "the run"
) -> Reproduction:
    """Run a card's configuration again, on `data` where they lie elsewhere now, and compare every score."""
    from fusionzoo.training.trainer import train

    folder = Path(out)
    config = RunConfig.from_dict(card["config"])
    if data is not None:
        config.data.source = str(data)
    notes: list[str] = []
    if card.get("folds"):
        done = cross_validate(config, folder / "run", card["folds"], quiet=quiet, recipe=card.get("recipe"))
        ours: dict[str, Any] = {"test": {k: v["mean"] for k, v in done.mean.items()}, "dev": None}
    else:
        result = train(config, folder / "run", resume=True, quiet=quiet, recipe=card.get("recipe")).result
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
    outcome = Reproduction(folder, f"{name}: recorded and here, percent", header, rows, notes, warnings, differences)
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
