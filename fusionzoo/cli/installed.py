"""The commands about what is installed, and about models of other people."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fusionzoo.cli.options import Json, Modalities, PluginKind, PluginName, comma


def plugins(
    kind: Annotated[
        str | None, typer.Option(help="fusion, objective, host, dataset, adapter, recipe, reader or encoder.")
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="Load each plugin: summary, paper, and why one is broken.")
    ] = False,
    json: Json = False,
) -> None:
    """List what is installed. Without --long nothing is imported."""
    from fusionzoo._registry import registry
    from fusionzoo.cli import show
    from fusionzoo.specs import KINDS, check_kind

    kinds = KINDS if kind is None else (check_kind(kind),)
    show.plugins(registry.rows(kinds, long=long), long=long, as_json=json)


def info(
    name: PluginName,
    kind: PluginKind = None,
    json: Json = False,
) -> None:
    """Show a plugin's card: what it is, what it takes, where it comes from."""
    from fusionzoo._registry import registry
    from fusionzoo.cli import show

    kind, name = registry.resolve(name, kind)
    show.card(registry.card(name, kind), as_json=json)


def new(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[KIND] NAME", help="fusion, objective, host, adapter, dataset or reader; and a kebab-case name."
        ),
    ],
    folder: Annotated[Path, typer.Option(help="Where the package's folder is made.")] = Path("."),
    author: Annotated[str | None, typer.Option(help="For the licence, the metadata and the citation.")] = None,
) -> None:
    """Write a complete package for a new plugin, which installs, is found and passes its own tests as it is."""
    from fusionzoo import scaffold
    from fusionzoo.cli import show

    kind, name = scaffold.read_words(words)
    package = scaffold.create(kind, name, folder, author)
    show.say(scaffold.next_steps(package, kind, name))


def doctor(json: Json = False) -> None:
    """Say what is wrong with an installation: versions, devices, plugins with tracebacks, stale metadata, switches."""
    from fusionzoo.cli import show
    from fusionzoo.doctor import diagnose

    diagnosis = diagnose()
    show.say(diagnosis.to_json() if json else diagnosis)
    raise typer.Exit(diagnosis.exit_code)


def sites(
    target: Annotated[
        str, typer.Argument(help="path/to/script.py:build, or a module:build; build() returns (model, args[, kwargs]).")
    ],
    modalities: Modalities = None,
    json: Json = False,
) -> None:
    """Show where a model joins its modalities, the best place for a fusion first; runs the model once."""
    from fusionzoo.cli import show
    from fusionzoo.cli.targets import sites_of

    found = sites_of(target, comma(modalities))
    if json:
        typer.echo(found.to_json())
    else:
        show.console().print(found.table())


def check(
    name: PluginName,
    kind: PluginKind = None,
    only: Annotated[str | None, typer.Option(help="Names of the checks to run, comma-separated.")] = None,
    expect: Annotated[list[str] | None, typer.Option(help="check=reason of a failure that is expected.")] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Also compile and export.")] = False,
    example: Annotated[
        str | None,
        typer.Option(help="Of an adapter: script.py:function, which returns a small model and a call for it."),
    ] = None,
    json: Json = False,
) -> None:
    """Run the conformance suite on a plugin: what passed, failed, was skipped, and why."""
    from fusionzoo.cli import show
    from fusionzoo.testing import run

    build = None
    if example is not None:
        from fusionzoo.cli.targets import build_target

        build = partial(build_target, example)
    results = run(name, kind, slow=slow, expect=expect or (), only=comma(only), example=build)
    if json:
        typer.echo(results.to_json())
    else:
        show.console().print(results.table())
        show.say(results.summary())
    raise typer.Exit(results.exit_code)
