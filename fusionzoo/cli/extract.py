"""The command `fusionzoo extract`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fusionzoo.cli.interrupts import goes_on
from fusionzoo.cli.options import Quiet, Reader, pairs
from fusionzoo.errors import OptionError

EACH = "A value for all media, or e.g. text=cls,audio=mean."


def _each(text: str | None, convert: Any = str) -> Any:
    """`cls` -> `"cls"`; `text=cls,audio=mean` -> a mapping."""
    if text is None or "=" not in text:
        return None if text is None else _converted(text, convert)
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    return {medium.strip(): _converted(value.strip(), convert) for medium, _, value in pairs}


def _converted(text: str, convert: Any) -> Any:
    try:
        return convert(text)
    except ValueError as error:
        raise OptionError(f"{text!r} is not a number") from error


def reader_options(sets: list[str] | None) -> dict[str, Any]:
    """`classes=4` -> `{"classes": 4}`, read as YAML."""
    return pairs(sets, "--reader")


def extract_command(
    corpus: Annotated[Path, typer.Argument(help="Folder of a release: IEMOCAP, MELD, RAVDESS, ESD, an .scp list.")],
    text: Annotated[
        str | None, typer.Option(help="Model of words: a folder, or a hub name such as roberta-large.")
    ] = None,
    audio: Annotated[str | None, typer.Option(help="Model of sound, such as facebook/hubert-large-ls960-ft.")] = None,
    video: Annotated[str | None, typer.Option(help="Model of pictures, such as openai/clip-vit-large-patch14.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("features"),
    name: Annotated[str | None, typer.Option(help="Name of the file; default: the corpus's.")] = None,
    kind: Annotated[str | None, typer.Option(help="Which release it is; default: recognised by its layout.")] = None,
    reader: Reader = None,
    layer: Annotated[str | None, typer.Option(help=f"last, an index, mean4 or views. {EACH}")] = None,
    pooling: Annotated[str | None, typer.Option(help=f"auto, mean, cls, max or min. {EACH}")] = None,
    normalise: Annotated[str | None, typer.Option(help=f"Vectors of length 1: auto, true or false. {EACH}")] = None,
    revision: Annotated[str | None, typer.Option(help=f"Of a model of the hub. {EACH}")] = None,
    batch_size: Annotated[str | None, typer.Option(help=f"Utterances at a time. {EACH}")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens at most, of text.", min=1)] = None,
    seconds: Annotated[float | None, typer.Option(help="Seconds at most, of sound.", min=0.0)] = None,
    scale: Annotated[str | None, typer.Option(help="Of samples: auto, standard, unit or int16.")] = None,
    frames: Annotated[int | None, typer.Option(help="Pictures of each video; default 16.", min=1)] = None,
    picture: Annotated[str | None, typer.Option(help="Of CLIP: auto, projection, pooled or mean.")] = None,
    shard_size: Annotated[int, typer.Option(help="Utterances a shard.", min=1)] = 256,
    precision: Annotated[str | None, typer.Option(help="no, bf16 or fp16; default: accelerate's, else no.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")] = "auto",
    workers: Annotated[int, typer.Option(help="Threads that read files.", min=1)] = 2,
    quiet: Quiet = False,
) -> None:
    """Run pretrained encoders over a raw corpus and write features for --data; goes on after an interruption."""
    from fusionzoo.cli import show
    from fusionzoo.extraction.run import extract

    goes_on(f"the same command goes on where it stopped (what is done lies in {out})")
    done = extract(
        corpus,
        text,
        audio,
        video,
        out=out,
        name=name,
        kind=kind,
        reader=reader_options(reader),
        layer=_each(layer),
        pooling=_each(pooling),
        normalise=_each(normalise),
        revision=_each(revision),
        batch_size=_each(batch_size, int),
        max_length=max_length,
        seconds=seconds,
        scale=scale,
        frames=frames,
        picture=picture,
        shard_size=shard_size,
        precision=precision,
        device=device,
        workers=workers,
        quiet=quiet,
    )
    if done.is_main:
        show.say(done)
