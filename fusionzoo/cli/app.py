"""The commands. Nothing heavy is imported before a command that needs it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusionzoo.cli.export import export_command
from fusionzoo.cli.extract import extract, reader_options
from fusionzoo.cli.interrupts import goes_on
from fusionzoo.cli.run import SETTINGS, run_script
from fusionzoo.errors import OptionError

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.runs.config import RunConfig
    from fusionzoo.runs.recipes import Recipe

app = typer.Typer(
    name="fusionzoo",
    help="Drop-in multimodal fusion layers for emotion recognition in conversation: train, compare, look around.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Look at data files and turn them into the safe columnar layout.", no_args_is_help=True)
app.add_typer(data_app, name="data")
data_app.command("export")(export_command)
app.command()(extract)
app.command("run", context_settings=SETTINGS)(run_script)

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
    str | None, typer.Option(help="Of a recipe: honest (the default), or published: as the paper did, flaws included.")
]
Variant = Annotated[str | None, typer.Option(help="Of a recipe that has some; see: fusionzoo info RECIPE.")]
Folds = Annotated[
    str | None,
    typer.Option(
        help="Cross-validate: session, speaker, a column of the data, a number of folds, speaker:5; none: one run."
    ),
]
Seeds = Annotated[int | None, typer.Option(help="Number of seeds; they are 0, 1, ...", min=1)]
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


def _comma(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _load_recipe(name: str | None) -> Recipe | None:
    from fusionzoo.runs.recipes import load_recipe

    return None if name is None else load_recipe(name)


def _folder_name(run: RunConfig, about: Mapping[str, Any] | None) -> str:
    """`multiemo-iemocap__honest__seed0`, or `dialogue-gcn__lmam__seed0` without a recipe; `run` as settled with its data."""
    parts = [run.host.name, run.fusion.name]
    if about is not None:
        parts = [p for p in (about["name"], about["variant"], about["protocol"]) if p]
    return "__".join([*parts, f"seed{run.training.seed}"])


def _run_config(
    config: Path | None,
    sets: list[str] | None,
    recipe: Recipe | None,
    modalities: str | None,
    protocol: str | None = None,
    variant: str | None = None,
    **arguments: Any,
) -> RunConfig:
    """The configuration that a command line asks for."""
    from fusionzoo.runs.config import RunConfig, read_yaml

    sets = sets or []
    sections = None
    if recipe is not None:
        sections = recipe.resolve(protocol, variant)
        given = (sections.get("data") or {}, (read_yaml(config).get("data") or {}) if config is not None else {})
        named = arguments.get("data") is not None or any(s.startswith("data.source=") for s in sets)
        if recipe.published and not named and not any("source" in g for g in given):
            raise OptionError(
                f"the recipe {recipe.name!r} needs data: give the features' file or folder with --data (published with: "
                f"{recipe.features or 'see its card'}); --data demo tries it on generated conversations"
            )
    elif protocol is not None or variant is not None:
        raise OptionError("--protocol and --variant belong to a recipe: fusionzoo train RECIPE --protocol published")
    return RunConfig.from_sources(config, sets=sets, recipe=sections, modalities=_comma(modalities), **arguments)


@app.command()
def train(
    recipe: RecipeName = None,
    data: Data = None,
    host: Host = None,
    fusion: FusionName = None,
    placement: Placement = None,
    objective: ObjectiveName = None,
    modalities: Modalities = None,
    split: Split = None,
    config: Config = None,
    set_: Sets = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, batches and dropout.", min=0)] = None,
    seeds: Seeds = None,
    selection: Selection = None,
    protocol: Protocol = None,
    variant: Variant = None,
    folds: Folds = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest good checkpoint in --out.")] = False,
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the result.")] = False,
) -> None:
    """Train one model (or the same with several seeds) and report on its dev and test splits."""
    loaded = _load_recipe(recipe)
    run = _run_config(
        config,
        set_,
        loaded,
        modalities,
        protocol,
        variant,
        data=data,
        host=host,
        fusion=fusion,
        placement=placement,
        objective=objective,
        split=split,
        seed=seed,
        selection=selection,
        device=device,
    )
    if seeds is not None and seeds > 1 and seed is not None:
        raise OptionError("--seed and --seeds exclude each other: --seed 3 is one run, --seeds 3 are three")
    about = None if loaded is None else loaded.facts(protocol, variant)
    plan = folds if folds is not None or loaded is None else loaded.resolve_folds(protocol, variant)
    cross_validated = plan is not None and plan != "none"
    if seeds is not None and seeds > 1 and not cross_validated:
        _compare(run, [run.host.name], None, seeds, out, jobs=1, quiet=quiet, about=about)
        return
    corpus = None
    if out is None:  # the folder is named for the fusion, which one modality leaves out
        from fusionzoo.runs.folder import load_corpus
        from fusionzoo.runs.models import settle_fusion

        corpus = load_corpus(run.data)
        settle_fusion(run, corpus)
    folder = out or Path("fusionzoo-runs") / _folder_name(run, about)
    if cross_validated:
        _cross_validate(run, plan, seeds, folder, quiet, about, corpus)
        return
    from fusionzoo.cli import show
    from fusionzoo.training.trainer import train as run_training

    goes_on(f"go on with the same command and --resume (the run is in {folder})")
    result = run_training(run, folder, resume=resume, quiet=quiet, recipe=about, corpus=corpus)
    if result.is_main:
        show.run(result)
    if "data_now" in result.result:
        raise typer.Exit(1)


@app.command()
def reproduce(
    target: Annotated[
        str, typer.Argument(help="A recipe's name or YAML file, a finished run's folder, or its card.json.")
    ],
    data: Data = None,
    protocol: Annotated[
        str | None, typer.Option(help="Of a recipe: published or honest alone; default: both, side by side.")
    ] = None,
    variant: Variant = None,
    folds: Folds = None,
    modalities: Modalities = None,
    split: Split = None,
    set_: Sets = None,
    out: Out = None,
    device: Device = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Of a run: exit with 1 where a score differs by more than this.", min=0.0)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the result.")] = False,
) -> None:
    """Do a published recipe or a finished run again, and show what was reported beside what comes out here."""
    from fusionzoo.cli import show
    from fusionzoo.experiments.reproduction import CARD, read_card, reproduce_card, reproduce_recipe
    from fusionzoo.runs.recipes import PROTOCOLS

    path = Path(target)
    if path.is_dir() or path.suffix == ".json":
        if any(o is not None for o in (protocol, variant, folds, modalities, split, set_)):
            raise OptionError(
                "a finished run is done again as it was: only --data, --device, --out, --tolerance go with it"
            )
        card = read_card(path)
        if device is not None:
            card["config"].setdefault("training", {})["device"] = device
        goes_on("the same command starts again")
        name = path.name if path.name != CARD else path.resolve().parent.name
        done = reproduce_card(
            card, out or Path("fusionzoo-runs") / f"reproduce__{name}", data=data, quiet=quiet, name=name
        )
    else:
        recipe = _load_recipe(target)
        assert recipe is not None
        chosen = [protocol] if protocol is not None else [p for p in PROTOCOLS if p in recipe.protocols] or ["honest"]
        configs = {
            p: _run_config(None, set_, recipe, modalities, p, variant, data=data, split=split, device=device)
            for p in chosen
        }
        folder = out or Path("fusionzoo-runs") / f"reproduce__{recipe.name}{f'__{variant}' if variant else ''}"
        done = reproduce_recipe(recipe, configs, folder, variant=variant, folds=folds, quiet=quiet)
    show.with_red(str(done), done.warnings)
    if tolerance is not None and any(abs(d) > tolerance for d in done.differences.values()):
        raise typer.Exit(1)


@app.command()
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


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder made by train.")],
    data: Data = None,
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("predictions.csv"),
    split: Annotated[str | None, typer.Option(help="Only this split; default: every utterance.")] = None,
    device: Device = None,
    allow_missing: AllowMissing = False,
) -> None:
    """Write a trained model's class and probabilities for every utterance to a CSV file."""
    from fusionzoo.cli import show
    from fusionzoo.experiments.saved_runs import predict as write_predictions

    path = write_predictions(run, data, out, split=split, device=device, allow_missing=allow_missing)
    show.say(f"wrote {path}")


@app.command()
def compare(
    recipe: RecipeName = None,
    data: Data = None,
    hosts: Annotated[str | None, typer.Option(help="Hosts, comma-separated.")] = None,
    fusions: Annotated[str | None, typer.Option(help="Fusions, comma-separated; the first is the baseline.")] = None,
    seeds: Seeds = None,
    placement: Placement = None,
    objective: ObjectiveName = None,
    modalities: Modalities = None,
    split: Split = None,
    config: Config = None,
    set_: Sets = None,
    selection: Selection = None,
    out: Out = None,
    jobs: Annotated[int, typer.Option(help="Runs side by side, each in a process of its own.", min=1)] = 1,
    device: Device = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Finished runs are always kept; given for symmetry with train.")
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the table.")] = False,
) -> None:
    """Compare fusions: hosts x fusions x seeds, resumable, with deviations and paired tests."""
    run = _run_config(
        config,
        set_,
        _load_recipe(recipe),
        modalities,
        check=False,  # its options are for several hosts and fusions
        data=data,
        placement=placement,
        objective=objective,
        split=split,
        selection=selection,
        device=device,
    )
    _compare(run, _comma(hosts) or [run.host.name], _comma(fusions), seeds or 5, out, jobs, quiet)


def _cross_validate(
    run: RunConfig,
    folds: Any,
    seeds: int | None,
    out: Path,
    quiet: bool,
    about: Mapping[str, Any] | None,
    corpus: Corpus | None,
) -> None:
    from fusionzoo.cli import show
    from fusionzoo.experiments.cross_validation import cross_validate

    goes_on(f"the same command goes on where it stopped (the folds are in {out})")
    chosen = None if seeds is None else list(range(seeds))
    done = cross_validate(run, out, folds, seeds=chosen, quiet=quiet, recipe=about, corpus=corpus)
    if done.is_main:
        show.with_red(str(done), done.warnings)
    if done.failed:
        raise typer.Exit(1)


def _compare(
    run: RunConfig,
    hosts: list[str],
    fusions: list[str] | None,
    seeds: int,
    out: Path | None,
    jobs: int,
    quiet: bool,
    about: Mapping[str, Any] | None = None,
) -> None:
    from fusionzoo.cli import show
    from fusionzoo.experiments.grid import compare as run_comparison
    from fusionzoo.reporting.run import TEST_SELECTED
    from fusionzoo.scoring.published import published_lines

    folder = out or Path("fusionzoo-runs") / "compare"
    goes_on(f"the same command goes on where it stopped, with or without --resume (the runs are in {folder})")
    comparison = run_comparison(run, folder, hosts=hosts, fusions=fusions, seeds=seeds, jobs=jobs, quiet=quiet)
    text = str(comparison)
    if about is not None and comparison.rows:
        means = {k: v["mean"] for k, v in comparison.rows[0].test.items()}
        text += "\n" + "\n".join(published_lines(about, means))
    show.with_red(text, [TEST_SELECTED])
    if comparison.failed:
        raise typer.Exit(1)


@app.command()
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
    from fusionzoo._registry import registry
    from fusionzoo.cli import show
    from fusionzoo.experiments.cost import bench_fusions, bench_hosts, pick_device
    from fusionzoo.experiments.grid import make_cells
    from fusionzoo.runs.folder import load_corpus
    from fusionzoo.runs.options import NO_FUSION

    run = _run_config(None, set_, None, None, check=False, data=data, batch_size=batch)
    if hosts is not None and dims is not None:
        raise OptionError("--dims is for fusions alone; with --hosts the widths are those of --data")
    corpus = None if hosts is None else load_corpus(run.data)
    every = ["concat", *(n for n in registry.usable() if n != "concat")]
    chosen = _comma(fusions) or ([NO_FUSION] if corpus is not None and len(corpus.modalities) == 1 else every)
    cells = make_cells(run, Path(), _comma(hosts), chosen, 1)
    on = pick_device(device)
    what = f"{'a training step' if hosts else 'forward and backward'}, B={batch}; {conditions(on)}"
    with show.costs(what, json, out) as report:
        if corpus is None:
            options = {c.fusion: c.config.fusion.options for c in cells}
            widths = show.widths(dims)
            bench_fusions(
                chosen, widths, width, options=options, batch_size=batch, steps=steps, repeats=repeats, device=on,
                report=report,
            )  # fmt: skip
        else:
            bench_hosts([c.config for c in cells], corpus, repeats=repeats, device=on, report=report)


@app.command()
def plugins(
    kind: Annotated[str | None, typer.Option(help="fusion, objective, host, dataset, adapter or recipe.")] = None,
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


@app.command()
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


@app.command()
def new(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[KIND] NAME", help="fusion, objective, host, adapter or dataset; and a kebab-case name."
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


@app.command()
def doctor(json: Json = False) -> None:
    """Say what is wrong with an installation: versions, devices, plugins with tracebacks, stale metadata, switches."""
    from fusionzoo.cli import show
    from fusionzoo.doctor import diagnose

    diagnosis = diagnose()
    show.say(diagnosis.to_json() if json else diagnosis)
    raise typer.Exit(diagnosis.exit_code)


@app.command()
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

    found = sites_of(target, _comma(modalities))
    if json:
        typer.echo(found.to_json())
    else:
        show.console().print(found.table())


@app.command()
def check(
    name: PluginName,
    kind: PluginKind = None,
    only: Annotated[str | None, typer.Option(help="Names of the checks to run, comma-separated.")] = None,
    expect: Annotated[list[str] | None, typer.Option(help="check=reason of a failure that is expected.")] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Also compile and export.")] = False,
    json: Json = False,
) -> None:
    """Run the conformance suite on a plugin: what passed, failed, was skipped, and why."""
    from fusionzoo.cli import show
    from fusionzoo.testing import run

    results = run(name, kind, slow=slow, expect=expect or (), only=_comma(only))
    if json:
        typer.echo(results.to_json())
    else:
        show.console().print(results.table())
        show.say(results.summary())
    raise typer.Exit(results.exit_code)


@data_app.command("inspect")
def data_inspect(
    path: Annotated[Path, typer.Argument(help="A data file, a folder of pickles, or the folder of a release.")],
    reader: Annotated[
        list[str] | None, typer.Option(help="Option of a release's reader, for example classes=4.")
    ] = None,
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
) -> None:
    """Turn a data file into the safe columnar .npz layout."""
    from fusionzoo.cli import show
    from fusionzoo.data.convert import convert

    options: dict[str, Any] = {} if label_names is None else {"label_names": _comma(label_names)}
    done = convert(
        source,
        target,
        split=split,
        modalities=_comma(modalities),
        dev_fraction=dev_fraction,
        split_seed=split_seed,
        **options,
    )
    show.say(done)
