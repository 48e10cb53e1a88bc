"""Tables for the terminal, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from fusionzoo._files import write_text
from fusionzoo._text import visible
from fusionzoo.errors import OptionError
from fusionzoo.reporting.table import Table

if TYPE_CHECKING:
    from fusionzoo.experiments.cost import Cost
    from fusionzoo.experiments.single_run import RunResult
    from fusionzoo.specs import Card

_STYLE = {"available": "", "loaded": "green", "disabled": "dim", "shadowed": "yellow", "ambiguous": "yellow"}


def console() -> Console:
    """A console that wraps at the terminal, and hardly at all where the output is not one."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=160)


def _cell(value: Any) -> Text:
    """A name in a table: never markup, whatever it holds."""
    return Text(visible(value))


def say(text: Any) -> None:
    """Print text of one or more lines, in which names may stand that come from files."""
    typer.echo(visible(text, lines=True))


def plugins(rows: list[dict[str, Any]], long: bool, as_json: bool) -> None:
    """The table of `fusionzoo plugins`."""
    if as_json:
        print(json.dumps([{k: v for k, v in r.items() if v != "" or k == "reason"} for r in rows], indent=2))
        return
    if not rows:
        print("nothing is installed; from fusionzoo's folder run: pip install -e .")
        return
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    columns = ["kind", "name", "distribution", "version", "status", *(["summary"] if long else ["module"])]
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(c, "")) for c in columns), style=_STYLE.get(row["status"], "red"))
    console().print(table)
    troubled = [r for r in rows if r["reason"]]
    for row in troubled:
        text = f"{row['kind']} {row['name']} ({row['distribution']}): {row['status']}: {row['reason']}"
        print(f"\n{visible(text, lines=True)}")
    count = sum(r["status"] in ("broken", "unavailable") for r in rows)
    if count:
        print(f"\n{count} of {len(rows)} plugins cannot be used; the others are unaffected")


def card(card: Card, as_json: bool) -> None:
    """A plugin's card."""
    print(json.dumps(card.to_dict(), indent=2, default=str) if as_json else visible(card, lines=True))


def run(result: RunResult) -> None:
    """A finished run; what was chosen on the test split stands in red."""
    from fusionzoo.experiments.single_run import DATA_CHANGED, SELECTED_ON_TEST

    with_red(str(result), [SELECTED_ON_TEST, DATA_CHANGED])


def with_red(text: str, red: Sequence[str]) -> None:
    """Lines of text, those of `red` in red where the terminal has colours."""
    for line in text.splitlines():
        typer.secho(visible(line), fg="red" if line in red else None, bold=line in red)


def metrics(metrics: Mapping[str, Any], title: str, as_json: bool, out: Path | None) -> None:
    """Metrics of one split: the table of classes and the averages."""
    from fusionzoo.scoring.metrics import METRICS
    from fusionzoo.scoring.regression import in_words

    text = json.dumps(metrics, indent=2, default=str)
    if out is not None:
        write_text(out, text + "\n")
    if as_json:
        print(text)
        return
    rows = [
        [name, *(r[k] for k in ("precision", "recall", "f1")), r["support"]] for name, r in metrics["per_class"].items()
    ]
    table = Table(["class", "precision", "recall", "F1", "utterances"], rows)
    table.notes.append("   ".join(f"{m.short} {m.show(metrics[k])}" for k, m in METRICS.items()))
    if regression := metrics.get("regression"):
        table.notes.append(in_words(regression))
    say(f"{title}\n{table.text()}")


def widths(text: str | None) -> dict[str, int]:
    """`text=1024,audio=1582` as a mapping; the field's widths for None."""
    from fusionzoo.experiments.cost import FIELD

    if text is None:
        return dict(FIELD)
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, width = (p.strip() for p in part.partition("="))
        if not name or not width.isdigit() or name in found:
            raise OptionError(f"--dims {text!r}: expected different names with widths, such as text=1024,audio=1582")
        found[name] = int(width)
    return found


@contextmanager
def costs(title: str, as_json: bool, out: Path | None) -> Iterator[Callable[[Cost], None]]:
    """Takes the rows of `fusionzoo bench` as they are measured and shows the table, or JSON, at the end."""
    from rich.progress import Progress, SpinnerColumn, TextColumn

    rows: list[dict[str, Any]] = []
    progress = Progress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), console=console(), transient=True
    )
    with progress:
        task = progress.add_task("measuring")

        def report(cost: Cost) -> None:
            rows.append(cost.to_dict())
            progress.update(task, description=f"{len(rows)} measured, {visible(cost.name)} the last")

        yield report
    text = json.dumps(rows, indent=2)
    if out is not None:
        write_text(out, text + "\n")
    if as_json:
        print(text)
        return
    with_memory = any(r["peak_mib"] is not None for r in rows)
    header = ["", "ms", "ratio", "MFLOPs / utterance", "parameters", *(["peak MiB"] if with_memory else [])]
    cells = []
    for r in rows:
        flops, memory = ("" if r[k] is None else format(r[k], f) for k, f in (("mflops", ".2f"), ("peak_mib", ".0f")))
        line = [r["name"], f"{r['milliseconds']:.1f}", f"{r['ratio']:.2f}", flops, f"{r['parameters']:,}", memory]
        cells.append(line[: len(header)])
    say(f"{title}\n{Table(header, cells).text()}")
