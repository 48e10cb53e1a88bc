"""A cross-validation as a table, a page and files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionzoo._file_schemas import RecipeFacts
from fusionzoo._files import write_json, write_text
from fusionzoo._text import markup, visible
from fusionzoo.data.folds import FoldPlan
from fusionzoo.reporting import charts
from fusionzoo.reporting.origin import origin_text, versions_text
from fusionzoo.reporting.pages import TEST_SELECTED, code, details, heading, links, page, paragraph, warning
from fusionzoo.reporting.run import published_part
from fusionzoo.reporting.table import Table
from fusionzoo.runs.environment import package_versions
from fusionzoo.runs.folder import read_result
from fusionzoo.scoring.metrics import MAIN, METRICS, Metric
from fusionzoo.scoring.published import published_lines

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.runs.config import RunConfig


@dataclass
class CrossValidation:
    """Finished folds.

    Parameters
    ----------
    folder : where the reports lie.
    plan : what was held out together.
    rows : one per fold and seed: `fold`, `seed`, `epoch`, `utterances` and the held-out scores.
    mean : metric -> mean and deviation over folds.
    pooled : scores of all held-out predictions together.
    failed : a run's name -> why it failed.
    selection : the split on which epochs were chosen.
    recipe : what the configuration came from, see `Recipe.facts`.
    is_main : whether this process is the one that writes and speaks.
    """

    folder: Path
    plan: FoldPlan
    rows: list[dict[str, Any]]
    mean: dict[str, dict[str, float | None]]
    pooled: dict[str, float]
    failed: dict[str, str]
    selection: str
    recipe: RecipeFacts | None = None
    is_main: bool = True

    @property
    def table(self) -> Table:
        """A line per fold and seed, then mean and deviation over folds, then all predictions pooled."""
        header = ["fold", "seed", "epoch", "utterances", *(m.short for m in METRICS.values())]
        cells = [
            [r["fold"], r["seed"], r["epoch"], r["utterances"], *(m.show(r[k]) for k, m in METRICS.items())]
            for r in self.rows
        ]
        if self.rows:
            spread = [_spread(self.mean[k], m) for k, m in METRICS.items()]
            cells.append(["mean ± sd over folds", None, None, None, *spread])
            count, pooled = (
                sum(r["utterances"] for r in self.rows),
                [m.show(self.pooled[k]) for k, m in METRICS.items()],
            )
            cells.append(["all predictions", None, None, count, *pooled])
        return Table(header, cells)

    @property
    def means(self) -> dict[str, float | None]:
        """Metric -> its mean over folds."""
        return {k: v["mean"] for k, v in self.mean.items()}

    @property
    def warnings(self) -> list[str]:
        """What stands in red."""
        red = [TEST_SELECTED] if self.selection == "test" else []
        return [*red, *(f"FAILED {name}: {visible(message)}" for name, message in self.failed.items())]

    def __str__(self) -> str:
        published = [] if self.recipe is None else published_lines(self.recipe, self.means)
        return "\n".join([self.table.text(), *published, *self.warnings, f"report: {self.folder / 'report.html'}"])

    def write(self, base: RunConfig, corpus: Corpus) -> None:
        """`config.yaml`, `summary.json`, `summary.md` and `report.html`.

        Parameters
        ----------
        base : what all folds share.
        corpus : the data that were parted.
        """
        write_text(self.folder / "config.yaml", base.to_yaml())
        facts = ("selection", "recipe", "rows", "mean", "pooled", "failed")
        write_json(
            self.folder / "summary.json",
            {
                "format": 1,
                "data": {"name": corpus.name, "info": corpus.info},
                "folds": asdict(self.plan),
                **{k: getattr(self, k) for k in facts},
            },
        )
        words = [f"{corpus.name}: {self.plan}; epoch chosen on {self.selection}."]
        parts = [paragraph(self.sentence, "lede"), paragraph(words[0], "note"), *map(warning, self.warnings)]
        if self.recipe is not None:
            parts += published_part(self.recipe, [("here, mean of folds", self.means)])
            words += published_lines(self.recipe, self.means)
        lines = [*words, "", self.table.markdown(), "", *(f"**{w}**" for w in self.warnings), ""]
        write_text(self.folder / "summary.md", "\n".join(lines))
        parts += [self.table.html(), *self._seeds()]
        folders = sorted(f.parent for f in self.folder.glob("runs/*/result.json"))
        parts += [heading("Runs"), links([(f.name, f"runs/{f.name}/report.html") for f in folders])]
        parts += [heading("How this was made"), code("Shared configuration", base.to_yaml())]
        results = [r for f in folders if (r := read_result(f)) is not None]
        parts += [
            code("Command and data", origin_text(sys.argv, results)),
            code("Versions", versions_text(package_versions())),
        ]
        parts.append(details("<b>The table for a paper</b>", [f"<pre>{markup(self.table.latex())}</pre>"]))
        write_text(self.folder / "report.html", page(f"Cross-validation of {base.title}", parts))

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        metric, spread = METRICS[MAIN], self.mean[MAIN]
        if spread["mean"] is None:
            return "No fold has finished."
        folds = len({r["fold"] for r in self.rows})
        sd = "" if spread["sd"] is None else f" ± {spread['sd']:.3f}"
        return f"Test {metric.short} {spread['mean']:.3f}{sd} over {folds} folds; {self.pooled[MAIN]:.3f} of all predictions together."

    def _seeds(self) -> list[str]:
        """Every fold on a line, its seeds as dots."""
        by_fold: dict[str, list[float]] = {}
        for row in self.rows:
            by_fold.setdefault(str(row["fold"]), []).append(row[MAIN])
        mean = self.mean[MAIN]["mean"]
        lines = [
            charts.Strip(fold, values, sum(values) / len(values), against=mean) for fold, values in by_fold.items()
        ]
        words = f"Test {METRICS[MAIN].short} of every fold"
        return [heading(words), charts.strips({words: lines}, "a seed", "mean over folds")] if lines else []


def _spread(value: Mapping[str, float | None], metric: Metric) -> str:
    if value["mean"] is None:
        return ""
    return metric.show(value["mean"]) + ("" if value["sd"] is None else f" ± {metric.show(value['sd'])}")
