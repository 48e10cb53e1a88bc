"""Tables for the terminal, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusionzoo._files import write_text
from fusionzoo._text import visible
from fusionzoo.errors import OptionError

if TYPE_CHECKING:
    from fusionzoo.experiments.cost import Cost
    from fusionzoo.specs import Card
    from fusionzoo.training.trainer import RunResult

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
    table = Table(box=None, pad_edge=False, header_style="bold")
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
    from fusionzoo.training.trainer import DATA_CHANGED, SELECTED_ON_TEST

    with_red(str(result), [SELECTED_ON_TEST, DATA_CHANGED])


def with_red(text: str, red: Sequence[str]) -> None:
    """Lines of text, those of `red` in red where the terminal has colours."""
    for line in text.splitlines():
        typer.secho(visible(line), fg="red" if line in red else None, bold=line in red)


def metrics(metrics: Mapping[str, Any], title: str, as_json: bool, out: Path | None) -> None:
    """Metrics of one split: the four averages and the per-class table."""
    text = json.dumps(metrics, indent=2, default=str)
    if out is not None:
        write_text(out, text + "\n")
    if as_json:
        print(text)
        return
    table = Table(title=_cell(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("class", "precision", "recall", "F1", "utterances"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, row in metrics["per_class"].items():
        scores = (f"{row[k]:.4f}" for k in ("precision", "recall", "f1"))
        table.add_row(_cell(name), *scores, str(row["support"]))
    console().print(table)
    averages = {"weighted F1": "weighted_f1", "macro F1": "macro_f1", "UA": "ua", "WA": "wa"}
    print("   ".join(f"{label} {metrics[key]:.4f}" for label, key in averages.items()))


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
    terminal = console()
    progress = Progress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), console=terminal, transient=True
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
    table = Table(title=_cell(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    with_memory = any(r["peak_mib"] is not None for r in rows)
    heads = ["", "ms", "ratio", "MFLOPs / utterance", "parameters", *(["peak MiB"] if with_memory else [])]
    for head in heads:
        table.add_column(head, justify="right" if head else "left")
    for r in rows:
        cells: list[Any] = [_cell(r["name"]), f"{r['milliseconds']:.1f}", f"{r['ratio']:.2f}"]
        cells += ["" if r["mflops"] is None else f"{r['mflops']:.2f}", f"{r['parameters']:,}"]
        table.add_row(*cells, *([f"{r['peak_mib']:.0f}"] if with_memory else []))
    terminal.print(table)
