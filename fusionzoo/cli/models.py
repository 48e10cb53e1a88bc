"""The commands about trained models and what models cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusionzoo.cli.options import AllowMissing, Data, Device, Json, Sets, comma, named_pairs
from fusionzoo.errors import OptionError


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder made by train.")],
    data: Data = None,
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="Also write the metrics to this JSON file.")] = None,
    allow_missing: AllowMissing = False,
    json: Json = False,
) -> None:
    """Score a trained model on a split of its own data or of other data."""
    from fusionzoo.cli import show
    from fusionzoo.experiments.saved_runs import evaluate as score

    metrics = score(run, data, split=split, device=device, allow_missing=allow_missing)
    show.metrics(metrics, title=f"{run} on {data or 'its data'}, {split}", as_json=json, out=out)


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder made by train.")],
    data: Data = None,
    dialogue: Annotated[
        str | None,
        typer.Option(
            help="A dialogue of your own: my.csv, my.json, my.srt, or my.wav+my.srt; its transcript is printed."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write: of --data a CSV file, default predictions.csv; of --dialogue .csv or .json."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of --data, only this split; default: every utterance.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Of --dialogue, folders of the models that made the run's features: text=FOLDER.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Of --dialogue, what columns say: text=utterance,speaker=who.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Of --dialogue, columns of its own features: audio=egemaps_*.")
    ] = None,
    device: Device = None,
    allow_missing: AllowMissing = False,
) -> None:
    """Say what a trained model thinks of every utterance: of a data file, or of a dialogue of your own."""
    from fusionzoo.cli import show

    if dialogue is None:
        from fusionzoo.experiments.saved_runs import predict as write_predictions

        if encoder or columns or features:
            raise OptionError("--encoder, --columns and --features belong to --dialogue")
        target = out or Path("predictions.csv")
        path = write_predictions(run, data, target, split=split, device=device, allow_missing=allow_missing)
        show.say(f"wrote {path}")
        return
    if data is not None or split is not None:
        raise OptionError("--dialogue takes the place of --data and --split; give one or the other")
    from fusionzoo.experiments.dialogue import predict_dialogue

    transcript = predict_dialogue(
        run,
        dialogue,
        out=out,
        columns=named_pairs("--columns", columns),
        features=named_pairs("--features", features) or None,
        models=named_pairs("--encoder", encoder),
        allow_missing=allow_missing,
        device=device,
    )
    show.say(transcript)
    if out is not None:
        show.say(f"wrote {out}")


def bench(
    hosts: Annotated[
        str | None, typer.Option(help="Hosts, comma-separated, on --data; without them the fusions alone.")
    ] = None,
    fusions: Annotated[
        str | None,
        typer.Option(help="Fusions, comma-separated; the first is the baseline. Default: all, after concat."),
    ] = None,
    data: Data = None,
    dims: Annotated[
        str | None, typer.Option(help="Widths for fusions alone; default text=1024,audio=1582,visual=342.")
    ] = None,
    width: Annotated[int, typer.Option(help="Output width of fusions alone.", min=1)] = 512,
    batch: Annotated[int, typer.Option(help="Dialogues per step.", min=1)] = 16,
    steps: Annotated[int, typer.Option(help="Utterances of the longest dialogue, for fusions alone.", min=1)] = 110,
    repeats: Annotated[int, typer.Option(help="Measured steps of each.", min=1)] = 3,
    set_: Sets = None,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table to this JSON file.")] = None,
    json: Json = False,
) -> None:
    """Measure what fusions cost, alone or in hosts: a training step beside one of the first, operations, parameters."""
    from fusionzoo._machine import conditions
    from fusionzoo.cli import show
    from fusionzoo.experiments.cost import bench as measure
    from fusionzoo.experiments.cost import pick_device
    from fusionzoo.runs.config import RunConfig

    if hosts is not None and dims is not None:
        raise OptionError("--dims is for fusions alone; with --hosts the widths are those of --data")
    run, on = RunConfig.from_sources(sets=set_ or [], check=False, data=data), pick_device(device)
    what = f"{'a training step' if hosts else 'forward and backward'}, B={batch}; {conditions(on)}"
    with show.costs(what, json, out) as report:
        measure(
            comma(fusions),
            comma(hosts),
            run,
            dims=show.widths(dims),
            out_dim=width,
            batch_size=batch,
            steps=steps,
            repeats=repeats,
            device=on,
            report=report,
        )
