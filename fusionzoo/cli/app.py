"""The program `fusionzoo`: its commands, each from the file of its kind. Nothing heavy is imported before one runs."""

from __future__ import annotations

from typing import Annotated

import typer

from fusionzoo.cli import installed, looking, models, training
from fusionzoo.cli.data import data_app
from fusionzoo.cli.export import export_command
from fusionzoo.cli.extract import extract_command
from fusionzoo.cli.run import SETTINGS, run_script

app = typer.Typer(
    name="fusionzoo",
    help="Drop-in multimodal fusion layers for emotion recognition in conversation: train, compare, look around.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data_app, name="data")
data_app.command("export")(export_command)


def _version(value: bool) -> None:
    if value:
        import fusionzoo

        typer.echo(f"fusionzoo {fusionzoo.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere on the line.")] = False,
) -> None:
    """Drop-in multimodal fusion layers for emotion recognition in conversation."""
    from fusionzoo._registry import registry

    registry.index()  # before torch is imported, which a distribution with broken metadata would prevent


_COMMANDS = (
    training.train,
    training.cross_validate,
    training.compare,
    training.reproduce,
    models.evaluate,
    models.predict,
    models.bench,
    looking.diagnose,
    looking.plot,
    looking.board,
    installed.plugins,
    installed.info,
    installed.new,
    installed.doctor,
    installed.sites,
    installed.check,
)
for _command in _COMMANDS:
    _lines = training.EXAMPLES.get(_command.__name__.replace("_", "-"), ())
    app.command(epilog="\n\n".join(["Examples:", *_lines]) if _lines else None)(_command)
app.command("extract")(extract_command)
app.command("run", context_settings=SETTINGS)(run_script)
