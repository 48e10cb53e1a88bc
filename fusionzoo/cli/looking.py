"""The commands that look at finished runs: what a model does, its pictures, and all runs of a folder side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusionzoo.cli.interrupts import goes_on
from fusionzoo.cli.options import Data, Device, Json, Quiet, comma

_Split = Annotated[str | None, typer.Option(help="test, dev or train; default: test, or dev where test has no labels.")]
_Dialogue = Annotated[str | None, typer.Option(help="Whose attention is shown; default: one of middle length.")]
_Embedding = Annotated[str, typer.Option(help="How fused vectors are put into the plane: tsne, or umap.")]


def diagnose(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a comparison's.")],
    data: Data = None,
    split: _Split = None,
    parts: Annotated[
        str | None,
        typer.Option(help="Comma-separated: leaks, modalities, calibration, groups, evidence, attention, embedding."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: the run's own.")] = None,
    dialogue: _Dialogue = None,
    embedding: _Embedding = "tsne",
    repeats: Annotated[int, typer.Option(help="Permutations of each modality.", min=1)] = 5,
    device: Device = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a trained model does beyond its score: modalities, calibration, groups, leaks, attention."""
    from fusionzoo._text import json_text
    from fusionzoo.cli import show
    from fusionzoo.experiments.diagnosis import diagnose as look

    goes_on("no run was changed; the same command begins anew, and --parts asks for less")
    found = look(
        run,
        data,
        split=split,
        parts=comma(parts),
        out=out,
        dialogue=dialogue,
        embedding=embedding,
        repeats=repeats,
        device=device,
        quiet=quiet,
    )
    if json:
        typer.echo(json_text(found.to_dict()))
        return
    show.with_red(str(found), [str(f) for f in found.grave])


def plot(
    kind: Annotated[
        str, typer.Argument(help="What to draw, such as confusion or pareto; an unknown one lists them all.")
    ],
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs or comparisons.")],
    out: Annotated[
        Path | None, typer.Option(help="A .png, .svg or .pdf file; default: the kind's name and .png.")
    ] = None,
    split: _Split = None,
    dialogue: _Dialogue = None,
    embedding: _Embedding = "tsne",
    device: Device = None,
) -> None:
    """Draw a picture of runs for a paper: confusion, curves, per-class, reliability, ablation, pareto, ..."""
    from fusionzoo.cli import show
    from fusionzoo.experiments.pictures import plot as draw

    path = out or Path(f"{kind}.png")
    draw(kind, *runs, out=path, split=split, dialogue=dialogue, embedding=embedding, device=device)
    show.say(f"wrote {path}")


def board(
    folder: Annotated[Path, typer.Argument(help="Folder of runs and comparisons.")] = Path("fusionzoo-runs"),
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.", min=0, max=65535)] = 8765,
) -> None:
    """Show all runs and comparisons of a folder as one leaderboard in the browser, on this machine alone."""
    from fusionzoo.cli import show
    from fusionzoo.reporting.board import address_of, server

    with server(folder, port) as running:
        show.say(f"{folder} is shown at {address_of(running)} (Ctrl-C ends it)")
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            show.say("ended")
