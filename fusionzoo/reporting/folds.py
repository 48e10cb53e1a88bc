"""A cross-validation as a table, a page and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionzoo._file_schemas import RecipeFacts
from fusionzoo._files import write_json, write_text
from fusionzoo._text import visible
from fusionzoo.data.folds import FoldPlan
from fusionzoo.reporting.pages import TEST_SELECTED, code, page, paragraph, warning
from fusionzoo.reporting.run import published_part
from fusionzoo.reporting.table import Table
from fusionzoo.scoring.metrics import METRICS, Metric
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
        parts = [warning(w) for w in self.warnings]
        if self.recipe is not None:
            parts += published_part(self.recipe, [("here, mean of folds", self.means)])
            words += published_lines(self.recipe, self.means)
        lines = [*words, "", self.table.markdown(), "", *(f"**{w}**" for w in self.warnings), ""]
        write_text(self.folder / "summary.md", "\n".join(lines))
        parts += [paragraph(words[0]), self.table.html(), code("Shared configuration", base.to_yaml())]
        write_text(self.folder / "report.html", page(f"Cross-validation of {base.title}", parts))


def _spread(value: Mapping[str, float | None], metric: Metric) -> str:
    if value["mean"] is None:
        return ""
    return metric.show(value["mean"]) + ("" if value["sd"] is None else f" ± {metric.show(value['sd'])}")
