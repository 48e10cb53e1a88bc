"""The command `fusionzoo run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fusionzoo.cli.extract import reader_options
from fusionzoo.errors import FusionZooError, OptionError

# What follows the script's name is the script's, options too.
SETTINGS = {"allow_interspersed_args": False, "ignore_unknown_options": False}


def own_arguments(arguments: list[str]) -> int:
    """How many of a command line's arguments are ours: all, but for those of `fusionzoo run SCRIPT.py ...`."""
    if arguments[:1] != ["run"]:
        return len(arguments)
    return next((i for i, a in enumerate(arguments) if i and a.endswith(".py")), len(arguments))


def run_script(
    script: Annotated[Path, typer.Argument(metavar="SCRIPT.py", help="Somebody's training script; it is not changed.")],
    args: Annotated[list[str] | None, typer.Argument(metavar="ARGS...", help="Its own arguments.")] = None,
    fusion: Annotated[
        str, typer.Option(help="Fusion; none runs the script as it is, under the same conditions.")
    ] = "none",
    option: Annotated[list[str] | None, typer.Option("--option", help="Of the fusion: key=value.")] = None,
    mode: Annotated[
        str, typer.Option(help="residual: added, zero at first; replace: in the join's place.")
    ] = "residual",
    site: Annotated[str | None, typer.Option(help="Which site: its number, or file.py:47. Default: the best.")] = None,
    modalities: Annotated[
        str | None, typer.Option(help="Of the model's arguments, in order; or argument=modality,... by name.")
    ] = None,
    input: Annotated[
        str | None, typer.Option(help="Argument of the model in which the script has joined the modalities.")
    ] = None,
    widths: Annotated[str | None, typer.Option(help="With --input: text=60,audio=30, in order.")] = None,
    layout: Annotated[str | None, typer.Option(help="Of the streams, such as '(T, B, d)'.")] = None,
    model: Annotated[str | None, typer.Option(help="Class name of the model, where the script trains several.")] = None,
    prove: Annotated[
        bool,
        typer.Option("--prove/--no-prove", help="Whether to try out the fusion with the first call: a dozen forwards."),
    ] = True,
    device: Annotated[str | None, typer.Option(help="Where what the script puts on CUDA goes: cpu, cuda:1.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of all generators; seeds that the script sets itself are shifted by it.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="File for the fusion's weights in the end.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for what was done, and what the script printed.")] = None,
) -> None:
    """Run somebody else's training script, unmodified, with a fusion in the model that it trains."""
    from fusionzoo import wild
    from fusionzoo.wild.script import trace

    try:
        done = wild.run(
            script,
            args or [],
            fusion=fusion,
            site=int(site) if site is not None and site.isdecimal() else site,
            modalities=_modalities(modalities),
            input=input,
            widths=None if widths is None else read_widths(widths),
            layout=layout,
            mode=mode,
            model=model,
            prove=prove,
            device=device,
            seed=seed,
            save=save,
            report=report,
            **reader_options(option),
        )
    except FusionZooError as error:
        for note in getattr(error, "__notes__", ()):
            error.args = (f"{error}\n{note}",)
        raise
    except Exception as error:  # the script's own, as Python would show it
        typer.echo(trace(error, script), err=True, nl=False)
        _hint(error, device)
        raise SystemExit(1) from None
    if done.status != 0:
        raise SystemExit(done.status)


def _hint(error: Exception, device: str | None) -> None:
    import torch

    from fusionzoo.wild.session import to_stderr

    if isinstance(error, ModuleNotFoundError) and error.name:
        to_stderr(f"the script needs {error.name}, which is not installed, and for which nothing can stand in")
    elif device is None and not torch.cuda.is_available() and ("CUDA" in str(error) or "NVIDIA" in str(error)):
        to_stderr("the script asks for CUDA, which this machine has not: fusionzoo run --device cpu")


def _modalities(text: str | None) -> Any:
    """`text,audio` -> a list; `x=text,y=audio` -> a mapping."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not any("=" in part for part in parts):
        return parts
    pairs = [part.partition("=") for part in parts]
    return {argument.strip(): modality.strip() or None for argument, _, modality in pairs}


def read_widths(text: str) -> dict[str, int]:
    """`text=60,audio=30` -> a mapping."""
    out = {}
    for part in text.split(","):
        name, _, width = part.partition("=")
        if not width.strip().isdecimal() or int(width) < 1:
            raise OptionError(f"--widths: {part!r}: expected modality=width, such as text=100,audio=100")
        out[name.strip()] = int(width)
    return out
