"""What was reported beside what comes out here: as a table, a page and files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fusionzoo._files import write_json, write_text
from fusionzoo._text import markup
from fusionzoo.reporting.pages import details, heading, links, page, paragraph, warning
from fusionzoo.reporting.table import Table


@dataclass
class Reproduction:
    """A recipe or a run that was done again.

    Parameters
    ----------
    folder : where the reports lie.
    title : what was done again.
    table : the scores there and here, in percent.
    notes : what else is to be known.
    warnings : what stands in red.
    differences : metric -> ours minus the recorded score, of a run that was done again; empty for a recipe.
    changes : what runs differ in from the recipe or the card, by protocol (`run` for a card): key -> [there, here].
    """

    folder: Path
    title: str
    table: Table
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)
    changes: dict[str, dict[str, list[object]]] = field(default_factory=dict)

    def __str__(self) -> str:
        where = f"report: {self.folder / 'report.html'}"
        return "\n".join([self.title, self.table.text(), *self.changed, *self.notes, *self.warnings, where])

    @property
    def changed(self) -> list[str]:
        """The changes in words, one line per protocol, such as `honest: changed from the recipe: training.epochs 60 -> 1.`."""
        of = "the card" if "run" in self.changes else "the recipe"
        lines = []
        for label, changes in self.changes.items():
            listed = ", ".join(f"{k} {_value(there)} -> {_value(here)}" for k, (there, here) in changes.items())
            before = "" if label == "run" else f"{label}: "
            lines.append(f"{before}{f'changed from {of}: {listed}' if listed else f'nothing is changed from {of}'}.")
        return lines

    def write(self) -> None:
        """`reproduction.md`, `reproduction.json` and `report.html`."""
        lines = [self.title, "", self.table.markdown(), "", *self.changed, *self.notes]
        lines += [*(f"**{w}**" for w in self.warnings), ""]
        write_text(self.folder / "reproduction.md", "\n".join(lines))
        facts = {"title": self.title, "header": self.table.header, "rows": self.table.rows}
        keys = ("changes", "notes", "warnings", "differences")
        write_json(self.folder / "reproduction.json", facts | {k: getattr(self, k) for k in keys})
        parts = [paragraph(self.sentence, "lede"), *map(warning, self.warnings), self.table.html()]
        parts += [*map(paragraph, self.changed), *(paragraph(n, "note") for n in self.notes)]
        parts += [heading("The runs"), links([(name, f"{name}/report.html") for name in self.changes])]
        parts.append(details("<b>The table for a paper</b>", [f"<pre>{markup(self.table.latex())}</pre>"]))
        write_text(self.folder / "report.html", page(self.title, parts))

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        if self.differences:
            most = max(self.differences, key=lambda k: abs(self.differences[k]))
            if not self.differences[most]:
                return "Every score comes out as it was recorded."
            return (
                f"Not every score comes out as it was recorded: {most} differs most, by {self.differences[most]:+.4f}."
            )
        columns = list(self.table.header)[2:]
        for metric, published, *ours in self.table.rows:
            if published:
                here = ", ".join(f"{o or 'nothing'} ({c})" for c, o in zip(columns, ours, strict=True))
                return f"{metric}: {published} was published; {here}."
        return "No published number is known; what comes out here stands alone."


def _value(value: object) -> str:
    return "none" if value is None else str(value)
