"""The commands about data files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fusionzoo.cli.extract import reader_options
from fusionzoo.cli.options import Json, Modalities, Reader, Split, comma, named_pairs, numbers

data_app = typer.Typer(help="Look at data files and turn them into the safe columnar layout.", no_args_is_help=True)


@data_app.command("inspect")
def data_inspect(
    path: Annotated[Path, typer.Argument(help="A data file, a folder of pickles, or the folder of a release.")],
    reader: Reader = None,
    json: Json = False,
) -> None:
    """Say what a data file or a release holds, what is missing, and what will be left out; executes nothing of it."""
    from fusionzoo.cli import show
    from fusionzoo.data.inspection import inspect

    inspection = inspect(path, reader_options(reader))
    show.say(inspection.to_json() if json else inspection)
    if inspection.problems:
        raise typer.Exit(1)


@data_app.command("convert")
def data_convert(
    source: Annotated[Path, typer.Argument(help="A .pkl or .npz data file.")],
    target: Annotated[Path, typer.Argument(help="The .npz file to write.")],
    split: Split = None,
    modalities: Modalities = None,
    label_names: Annotated[str | None, typer.Option(help="Names of the classes, comma-separated.")] = None,
    dev_fraction: Annotated[float, typer.Option(help="Share of train drawn as dev where there is none.")] = 0.1,
    split_seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
    score_classes: Annotated[
        str | None,
        typer.Option(help="Make classes of the column score, the nearest of these values: -3,-2,-1,0,1,2,3."),
    ] = None,
) -> None:
    """Turn a data file into the safe columnar .npz layout."""
    from fusionzoo.cli import show
    from fusionzoo.data.conversion import convert

    options: dict[str, Any] = {} if label_names is None else {"label_names": comma(label_names)}
    done = convert(
        source,
        target,
        split=split,
        modalities=comma(modalities),
        dev_fraction=dev_fraction,
        split_seed=split_seed,
        score_classes=None if score_classes is None else numbers("--score-classes", score_classes),
        **options,
    )
    show.say(done)


@data_app.command("from-csv")
def data_from_csv(
    table: Annotated[Path, typer.Argument(help="A table: csv, tsv, JSON, JSON lines; one row per utterance.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The .npz file to write.")],
    columns: Annotated[
        str | None,
        typer.Option(help="What columns say, over what their names tell: dialogue=talk,speaker=who,label=mood."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Columns of features: text=vector,audio=egemaps_*; of .npy files; text=all.npy for all rows."
        ),
    ] = None,
    label_names: Annotated[str | None, typer.Option(help="The classes in order, comma-separated.")] = None,
    single: Annotated[bool, typer.Option("--single", help="Every row is a dialogue of its own.")] = False,
    leave_out: Annotated[bool, typer.Option("--leave-out", help="Leave out rows with something wrong.")] = False,
) -> None:
    """Make a corpus of a table with one row per utterance; every problem is reported by row.

    Columns are dialogue, index, id, speaker, text, audio, video, start, end, label, score, split, any of them absent.
    """
    from fusionzoo.cli import show
    from fusionzoo.data.npz import save_npz
    from fusionzoo.data.tables.table import read_table

    read = read_table(
        table,
        columns=named_pairs("--columns", columns),
        features=named_pairs("--features", features) or None,
        label_names=comma(label_names),
        single=single,
        leave_out=leave_out,
    )
    corpus = read.corpus()
    save_npz(corpus, target)
    found = ", ".join(f"{role} ({column})" for role, column in read.columns.items())
    dims = ", ".join(f"{m} {d}" for m, d in corpus.dims.items())
    lines = [
        f"{table} -> {target}: {len(corpus)} utterances, {len(corpus.dialogues())} dialogues, {dims}",
        f"columns: {found}",
    ]
    show.say("\n".join([*lines, *read.notes, *(f"left out: {what}" for what in read.left_out)]))
