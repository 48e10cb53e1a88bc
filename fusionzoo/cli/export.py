"""The command `fusionzoo data export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusionzoo.cli.run import read_widths


def export_command(
    source: Annotated[str, typer.Argument(metavar="DATA", help="What --data takes: a file, a folder, demo.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write; a folder for layouts that are one.")],
    to: Annotated[str, typer.Option("--to", help="Layout, such as classic-pickle; docs/wild.md lists them.")],
    widths: Annotated[str | None, typer.Option(help="That the code expects: text=100,audio=1582,visual=342.")] = None,
    join: Annotated[
        str | None, typer.Option(help="Modalities side by side in the place of the text: text=60,audio=30.")
    ] = None,
    standardise: Annotated[
        bool, typer.Option("--standardise", help="Features of mean 0 and deviation 1 on the training split.")
    ] = False,
    steps: Annotated[
        int,
        typer.Option(help="Of mmsa-pickle: how often the vector of an utterance is repeated in its sequence.", min=1),
    ] = 1,
    split: Annotated[str | None, typer.Option(help="File that assigns dialogues to train, dev and test.")] = None,
) -> None:
    """Write a data file in the layout that a public repository reads, so that its own code runs on it."""
    from fusionzoo.cli import show
    from fusionzoo.data.export import export_data

    fitted, joined = (None if text is None else read_widths(text) for text in (widths, join))
    show.say(
        export_data(source, target, to, widths=fitted, join=joined, standardise=standardise, steps=steps, split=split)
    )
