"""Every option that several commands have, once; and groups of them, which a command takes as one argument.

A command that trains names a group:

    @app.command()
    @expanded
    def compare(asked: RunOptions, hosts: ..., fusions: ...) -> None: ...

A field that is added to a group is an option of all its commands. One whose name `RunConfig.from_sources` takes (a key of
section `training`, say) reaches the configuration by itself.
"""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from fusionzoo.errors import OptionError

if TYPE_CHECKING:
    from fusionzoo._file_schemas import RecipeFacts
    from fusionzoo.runs.config import RunConfig
    from fusionzoo.runs.recipes import Recipe

Data = Annotated[
    str | None,
    typer.Option("--data", help="A data file (.npz, .pkl), a release's folder, or a data set's name, such as demo."),
]
Split = Annotated[str | None, typer.Option(help="File that assigns dialogues to train, dev and test (.npz or .json).")]
Modalities = Annotated[str | None, typer.Option(help="Modalities to use, comma-separated, the anchor first.")]
Host = Annotated[str | None, typer.Option(help="Host model; see: fusionzoo plugins --kind host.")]
FusionName = Annotated[
    str | None,
    typer.Option("--fusion", help="Fusion layer; see: fusionzoo plugins --kind fusion. none: of one modality."),
]
Placement = Annotated[str | None, typer.Option(help="Where the fusion sits in the host.")]
ObjectiveName = Annotated[str | None, typer.Option("--objective", help="What is minimised.")]
Config = Annotated[Path | None, typer.Option(help="YAML file with sections data, host, fusion, objective, training.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, for example training.epochs=2.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write to.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; default: what is there.")]
Selection = Annotated[
    str | None, typer.Option(help="Split on which the epoch is chosen: dev, or test to reproduce numbers so published.")
]
RecipeName = Annotated[
    str | None, typer.Argument(help="A recipe's name (fusionzoo plugins --kind recipe) or YAML file.")
]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="Of a recipe: honest, or published: as the paper did, flaws included. Default: honest; of reproduce, both."
    ),
]
Variant = Annotated[str | None, typer.Option(help="Of a recipe that has some; see: fusionzoo info RECIPE.")]
Folds = Annotated[
    str | None,
    typer.Option(
        help="What is held out: session, speaker, a column of the data, a number of folds, speaker:5. Default: the recipe's."
    ),
]
Seeds = Annotated[int | None, typer.Option(help="Number of seeds; they are 0, 1, ...", min=1)]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Runs side by side, each in a process of its own; default: what cores, memory and GPUs allow.", min=1
    ),
]
EngineName = Annotated[
    str, typer.Option("--engine", help="Where runs run: local, ray (a running cluster, or this machine) or slurm.")
]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option("--engine-option", help="Of ray.init or submitit: key=value, such as slurm_partition=gpu."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only the result.")]
Reader = Annotated[list[str] | None, typer.Option(help="Option of the release's reader, for example classes=4.")]
PluginName = Annotated[
    str,
    typer.Argument(help="A plugin's name; kind:name for another kind, distribution:name where several provide it."),
]
PluginKind = Annotated[
    str | None, typer.Option("--kind", help="Its kind; default: the fusion of that name, else whichever has it.")
]
AllowMissing = Annotated[
    bool,
    typer.Option("--allow-missing", help="Data may lack a modality that the model knows; its fusion stands in for it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@dataclass
class TrainingOptions:
    """What every command takes that trains: what it reads, by which protocol, where it writes."""

    data: Data = None
    modalities: Modalities = None
    split: Split = None
    set_: Sets = None
    protocol: Protocol = None
    variant: Variant = None
    out: Out = None
    device: Device = None
    quiet: Quiet = False


@dataclass
class RunOptions(TrainingOptions):
    """The same for commands that make up a configuration."""

    recipe: RecipeName = None
    placement: Placement = None
    objective: ObjectiveName = None
    config: Config = None
    selection: Selection = None

    @functools.cached_property
    def loaded(self) -> Recipe | None:
        """The recipe that was named."""
        from fusionzoo.runs.recipes import load_recipe

        return None if self.recipe is None else load_recipe(self.recipe)

    @property
    def facts(self) -> RecipeFacts | None:
        """What reports say about it."""
        return None if self.loaded is None else self.loaded.facts(self.protocol, self.variant)

    def configuration(self, check: bool = True, **more: object) -> RunConfig:
        """The configuration that the command line asks for.

        Parameters
        ----------
        check : see `RunConfig.from_sources`, which also takes the rest.
        more : what options of single commands add.
        """
        from fusionzoo.runs.config import RunConfig
        from fusionzoo.runs.recipes import configuration_of

        elsewhere = ("recipe", "protocol", "variant", "config", "set_", "out", "quiet")
        named: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in elsewhere}
        named |= {"modalities": comma(self.modalities), **more}
        sets = self.set_ or []
        if self.loaded is not None:
            about = {"protocol": self.protocol, "variant": self.variant}
            return configuration_of(self.loaded, self.config, sets, check=check, **about, **named)
        if self.protocol is not None or self.variant is not None:
            raise OptionError(
                "--protocol and --variant belong to a recipe: fusionzoo train RECIPE --protocol published"
            )
        return RunConfig.from_sources(self.config, sets=sets, check=check, **named)


@dataclass
class ModelOptions(RunOptions):
    """The same for commands that train one model."""

    host: Host = None
    fusion: FusionName = None


def comma(text: str | None) -> list[str] | None:
    """`a, b` as a list."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def pairs(given: list[str] | None, option: str) -> dict[str, Any]:
    """`["classes=4"]` -> `{"classes": 4}`, values read as YAML; the option is named in refusals."""
    from fusionzoo._yaml import parse_yaml

    out = {}
    for item in given or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise OptionError(f"{option} {item!r}: expected key=value, such as {option} classes=4")
        out[key.strip()] = parse_yaml(value, f"the value in {option} {item[:60]!r}", OptionError)
    return out


def numbers(option: str, text: str) -> list[float]:
    """`-1,0,1` as numbers."""
    try:
        return [float(part) for part in comma(text) or ()]
    except ValueError:
        raise OptionError(f"{option} {text!r}: expected numbers, such as -3,-2,-1,0,1,2,3") from None


def named_pairs(option: str, text: str | None) -> dict[str, str]:
    """`a=x,b=y` as a mapping."""
    found: dict[str, str] = {}
    for part in comma(text) or ():
        name, equals, value = (p.strip() for p in part.partition("="))
        if not equals or not name or not value or name in found:
            raise OptionError(
                f"{option} {text!r}: expected different names and what they are, such as text=utterance,label=mood"
            )
        found[name] = value
    return found


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its group of options in the group's place."""
    hints = get_type_hints(command, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()]
    group: Any = next(p for p in own if is_dataclass(p.annotation))
    kinds = get_type_hints(group.annotation, include_extras=True)
    taken = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=kinds[f.name])
        for f in fields(group.annotation)
    ]

    @functools.wraps(command)
    def called(**given: Any) -> None:
        asked = group.annotation(**{p.name: given.pop(p.name) for p in taken})
        command(**{group.name: asked}, **given)

    others = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p is not group]
    called.__dict__["__signature__"] = inspect.Signature([*taken, *others])
    called.__annotations__ = {}
    return called


def spelt_out(command: str, asked: RunOptions, **more: object) -> str:
    """A command line with everything that was asked for.

    Parameters
    ----------
    command : its name.
    asked : the options; those that were not given are left out.
    more : further ones, or the same under another command's name; None leaves one out.
    """
    words = ["fusionzoo", command, *([] if asked.recipe is None else [shlex.quote(asked.recipe)])]
    for name, value in {**{f.name: getattr(asked, f.name) for f in fields(asked)}, **more}.items():
        option = f"--{name.strip('_').replace('_', '-')}"
        if value is True:
            words.append(option)
        elif name != "recipe" and value not in (None, False):
            for one in value if isinstance(value, list) else [value]:
                words += [option, shlex.quote(str(one))]
    return " ".join(words)
