"""Fusions and hosts to and from folders and the Hugging Face Hub.

A saved model is three files: `model.safetensors`, `config.json` (which plugin of which distribution, built with what) and
`README.md` (the model card). Nothing is pickled. A class is found again by its registered name alone, never by a module
path that a file names: what is not installed is named in the error, and neither installed nor imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

import fusionzoo
from fusionzoo._file_schemas import ModelConfig, ModelFile, ResultFile
from fusionzoo._files import write_bytes
from fusionzoo._options import Built, Unrecorded
from fusionzoo._providers import OWN, Provider
from fusionzoo._registry import registry
from fusionzoo._schema import check, parse_json, read_json, shown, text_of
from fusionzoo._variants import plugin_class
from fusionzoo._weights import building_for, load_weights, pack_weights, read_weights
from fusionzoo.errors import CheckpointError, FusionZooError, MissingDependency, UnknownNameError
from fusionzoo.specs import API_CURRENT, Spec, normalise_name, plain_name

M = TypeVar("M")
WEIGHTS, CONFIG, MODEL_META, RESULT = "model.safetensors", "config.json", "model.json", "result.json"
FORMAT = 1
#: Kinds of plugins that can be saved.
KINDS = ("fusion", "host")
_LOCAL = "(local)"
_SAFE_TEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


# -- what a model is --------------------------------------------------------------------------------------------------


def describe(model: Any) -> dict[str, Any]:
    """The contents of `config.json`: plugin, distribution, version, API, and the arguments to build the model again."""
    arguments = vars(model).get("_init_arguments")
    if arguments is None:
        raise CheckpointError(
            f"this {type(model).__name__} does not know what it was built with (it comes from a pickle of an older "
            "fusionzoo); build it anew and load its state_dict"
        )
    written = _written(type(model), arguments)
    if written["kind"] == "host" and model.built_fusion is None:
        written["arguments"].pop("fusion", None)  # with one modality: what was named is not there
    fusion = written["arguments"].get("fusion") if written["kind"] == "host" else None
    if isinstance(fusion, dict) and "options" in fusion:
        fusion["options"] = _options_in_force(model, fusion)
    versions = {"fusionzoo": fusionzoo.__version__, "torch": torch.__version__}
    return {"library": OWN, "format": FORMAT, **written, "versions": versions}


def _options_in_force(host: nn.Module, fusion: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a host's fusion, defaults included; its widths are the host's business."""
    cls = registry.get(f"{fusion['distribution']}:{fusion['name']}")
    for module in host.modules():
        if plugin_class(type(module)) is cls:
            own = {k: v for k, v in vars(module)["_init_arguments"].items() if k not in ("dims", "out_dim")}
            return _plain(own, f"{cls.__name__} was built with an option") | fusion["options"]
    return fusion["options"]


def _written(cls: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A class and its arguments in plain values; the order of modalities is kept beside the mapping."""
    kind = _kind(cls)
    spec, provider = provider_of(cls, kind)
    out = {"kind": kind, **_provided(spec, provider), "arguments": {}}
    for name, value in arguments.items():
        if kind == "host" and name == "fusion":
            value = _written_fusion(value)
        out["arguments"][name] = _plain(value, f"{cls.__name__} was built with {name}")
    dims = arguments.get("dims")
    if isinstance(dims, Mapping):
        out["modalities"] = list(dims)
    return out


def _written_fusion(value: Any) -> dict[str, Any]:
    if isinstance(value, Built):
        return _written(value.cls, value.arguments)
    if isinstance(value, str):
        value = (value, {})
    if not (isinstance(value, tuple) and len(value) == 2):
        raise CheckpointError("the host's fusion cannot be written down; give it by name, with options, or as a Fusion")
    spec, provider = registry.spec(value[0])
    return {"kind": "fusion", **_provided(spec, provider), "options": value[1]}


def _provided(spec: Spec, provider: Provider) -> dict[str, Any]:
    return {
        "name": spec.name,
        "distribution": provider.distribution,
        "version": provider.version,
        "api": spec.api,
    }


def _plain(value: Any, what: str) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v, what) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, what) for v in value]
    if isinstance(value, (Built, Unrecorded)):
        name = value.type_name if isinstance(value, Unrecorded) else value.cls.__name__
        raise CheckpointError(
            f"{what} of type {name}, which cannot be written to JSON; use plain values for its options"
        )
    return value


def _kind(cls: type) -> str:
    kind = getattr(cls, "kind", None)
    if kind in KINDS:
        return str(kind)
    raise CheckpointError(f"{cls.__name__} is neither a Fusion nor a Host, so it cannot be saved by name")


def provider_of(cls: type, kind: str) -> tuple[Spec, Provider]:
    """The registered name of a class; only plugins whose module could hold the class are loaded to find it."""
    cls = plugin_class(cls)
    package = cls.__module__.partition(".")[0]
    for providers in registry.index()[kind].values():
        for provider in providers:
            module = provider.value.partition(":")[0]
            if provider.disabled or module.partition(".")[0] != package:
                continue
            try:
                spec, _ = registry.spec(provider.qualified, kind)
                if (
                    spec.target == f"{cls.__module__}:{cls.__qualname__}"
                    or registry.get(provider.qualified, kind) is cls
                ):
                    return spec, provider
            except FusionZooError:
                continue  # a broken neighbour in the same package is not what is being saved
    raise CheckpointError(
        f"{cls.__module__}.{cls.__qualname__} is not registered as a {kind}, so nobody could load it by name; "
        "give it an entry point, or fusionzoo.register(...) the module that defines it"
    )


# -- saving -----------------------------------------------------------------------------------------------------------


def save(model: Any, folder: str | PathLike[str], run: str | PathLike[str] | None = None) -> Path:
    """See `Pretrained.save_pretrained`."""
    from fusionzoo._model_card import keeps, model_card

    config = describe(model)
    scores = None if run is None else read_run(run, config)
    names = scores["model"]["label_names"] if scores else getattr(model, "label_names", None)
    if names:
        config["label_names"] = list(names)
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{str(target)!r} is a file; give a folder")
    target.mkdir(parents=True, exist_ok=True)
    write_bytes(target / WEIGHTS, pack_weights(model.state_dict()))
    write_bytes(target / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    if not keeps(target / "README.md"):
        card = registry.card(f"{config['distribution']}:{config['name']}", config["kind"])
        parameters = sum(p.numel() for p in model.parameters())
        write_bytes(target / "README.md", model_card(config, card, parameters, scores).encode())
    return target


def read_run(run: str | PathLike[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """`model` (model.json) and `result` (result.json) of a finished run that trained this kind of model."""
    folder = Path(run)
    for name in (MODEL_META, RESULT):
        if not (folder / name).exists():
            raise CheckpointError(
                f"{str(folder)!r} is not the folder of a finished run of `fusionzoo train`: there is no {name} in it"
            )
    found: dict[str, Any] = {
        "model": read_json(ModelFile, folder / MODEL_META, CheckpointError),
        "result": read_json(ResultFile, folder / RESULT, CheckpointError),
    }
    trained, own = found["model"].get(config["kind"]), config["name"]
    if trained is None or plain_name(str(trained)) != own:
        raise CheckpointError(
            f"the run {str(folder)!r} trained the {config['kind']} {trained!r}, not {own!r}; its scores say nothing about this"
        )
    return found


def push(model: Any, repo_id: str, run: str | PathLike[str] | None = None, **options: Any) -> str:
    """See `Pretrained.push_to_hub`."""
    try:
        from huggingface_hub import ModelHubMixin
    except ImportError:
        raise MissingDependency("huggingface_hub", purpose="push_to_hub") from None

    class Package(ModelHubMixin, library_name=OWN):
        """What the mixin uploads: the files that `save` writes."""

        def _save_pretrained(self, save_directory: Path) -> None:
            save(model, save_directory, run=run)

    return str(Package().push_to_hub(repo_id, **options))


# -- loading ----------------------------------------------------------------------------------------------------------


def load(base: type[M], source: str | PathLike[str], device: str | torch.device = "cpu", **download: Any) -> M:
    """See `Pretrained.from_pretrained`."""
    folder = Path(source)
    fetch = _local_files(folder) if folder.is_dir() else _hub_files(str(source), download)
    path = fetch(CONFIG)
    if path:
        config = _read_config(path, str(source))
    else:
        found = fetch(MODEL_META, f"neither {CONFIG} nor {MODEL_META}")
        config = _from_model_meta(read_json(ModelFile, found, CheckpointError))
    kind = config["kind"]
    if getattr(base, "kind", kind) != kind:
        raise CheckpointError(f"{str(source)!r} holds a {kind}; load it with fusionzoo.{kind.title()}.from_pretrained")
    cls = registry.get(_resolve(config, str(source)).qualified, kind)
    if not issubclass(cls, base):
        raise CheckpointError(f"{str(source)!r} holds a {cls.__name__} ({config['name']}), not a {base.__name__}")
    weights = read_weights(Path(fetch(WEIGHTS, f"no {WEIGHTS}")))
    with building_for(weights, f"{str(source)!r}"):
        model = build_saved(config, str(source))
    load_weights(model, weights, f"{str(source)!r}")
    if config.get("label_names"):
        model.__dict__["label_names"] = tuple(config["label_names"])
    return model.to(device).eval()  # type: ignore[return-value]


def _read_config(path: str, source: str) -> dict[str, Any]:
    config = parse_json(text_of(path, CheckpointError), path, CheckpointError)
    if not isinstance(config, dict) or config.get("library") != OWN or config.get("kind") not in KINDS:
        raise CheckpointError(f"{source!r} does not hold a fusionzoo model: {CONFIG} names no fusion or host")
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{source!r} was saved in format {shown(config.get('format'))}; update fusionzoo to read it"
        )
    return dict(check(ModelConfig, config, path, CheckpointError))


def _local_files(folder: Path):
    def fetch(name: str, absent: str = "") -> str:
        path = folder / name
        if not path.is_file() and absent:
            raise CheckpointError(f"{str(folder)!r} holds no saved model: there is {absent} in it")
        return str(path) if path.is_file() else ""

    return fetch


def _hub_files(source: str, download: Mapping[str, Any]):
    """Fetches single files by fixed names from a repository of the Hub; nothing else of it is downloaded."""
    if not _REPOSITORY.fullmatch(source) or source.count("..") > 0:
        raise CheckpointError(
            f"{source!r} is neither a folder nor a repository such as 'owner/name' of the Hugging Face Hub"
        )
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError:
        raise MissingDependency("huggingface_hub", purpose="loading from the Hugging Face Hub") from None

    def fetch(name: str, absent: str = "") -> str:
        try:
            return hf_hub_download(source, name, **download)
        except Exception as error:  # the errors of the connection are those of whichever HTTP library is underneath
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                if not absent:
                    return ""
                raise CheckpointError(
                    f"the repository {source!r} holds no saved model: there is {absent} in it"
                ) from None
            raise CheckpointError(
                f"{source!r} is no folder here, and {name} of the Hugging Face repository {source!r} could not be fetched: "
                f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no details'}"
            ) from error

    return fetch


def _from_model_meta(meta: ModelFile) -> dict[str, Any]:
    """`config.json` from the `model.json` of a run of `fusionzoo train`."""

    def part(kind: str) -> dict[str, Any]:
        distribution, _, version = str(meta.get("providers", {}).get(kind, OWN)).partition(" ")
        name = str(meta[kind]).rpartition(":")[2]
        return {"kind": kind, "name": name, "distribution": distribution, "version": version}

    keys = ("dims", "num_classes", "num_speakers", "placement")
    arguments: dict[str, Any] = {k: meta[k] for k in keys}
    if meta["fusion"] != "none":  # with one modality there is none
        arguments["fusion"] = {**part("fusion"), "options": meta["fusion_options"]}
    config = {"library": OWN, "format": FORMAT, **part("host"), "arguments": {**meta["host_options"], **arguments}}
    return config | {"label_names": meta.get("label_names"), "versions": meta.get("versions", {})}


def _resolve(config: Mapping[str, Any], source: str) -> Provider:
    """Who provides the name in a config: the distribution that it was saved from, or nobody."""
    kind, name = config["kind"], normalise_name(str(config.get("name")))
    distribution, version = str(config.get("distribution", "")), str(config.get("version", ""))
    offers = registry.index()[kind].get(name, [])
    # What the user registered by hand stands for the distribution of the same name; a notebook's model may have become one.
    wanted = [p for p in offers if distribution in (p.distribution, _LOCAL) or p.distribution == _LOCAL]
    wanted = [p for p in wanted if not p.disabled] or wanted
    if not wanted:
        raise MissingPluginError(kind, name, distribution, version, source, [p.distribution for p in offers])
    if isinstance(config.get("api"), int) and config["api"] > API_CURRENT:
        raise CheckpointError(
            f"{source!r} was saved with plugin API {config['api']}; update fusionzoo, which speaks {API_CURRENT}"
        )
    return wanted[0]


class MissingPluginError(CheckpointError, UnknownNameError):
    """A saved model needs a plugin that is not installed."""

    def __init__(self, kind: str, name: str, distribution: str, version: str, source: str, others: list[str]):
        self.kind, self.name, self.distribution, self.version = kind, name, distribution, version
        safe = all(_SAFE_TEXT.fullmatch(t) for t in (distribution, version))
        if distribution == _LOCAL:
            advice = (
                "it was never installed where the model was saved; fusionzoo.register(...) the module that defines it"
            )
        elif safe:
            advice = f"if you trust it, install it: pip install {distribution}=={version}"
        else:
            advice = "and its name or version is not that of a distribution; do not trust this file"
        also = f" ({name!r} of {others[0]} is another plugin)" if others else ""
        super().__init__(
            f"{source!r} needs the {kind} {name!r} from {distribution or '(unknown)'} {version}, which is not installed{also}; "
            f"{advice}. Nothing was installed or imported."
        )


def build_saved(config: Mapping[str, Any], source: str) -> nn.Module:
    """The module that a saved configuration describes, from the plugin that is installed for it."""
    cls = registry.get(_resolve(config, source).qualified, config["kind"])
    try:
        arguments = dict(config.get("arguments") or {})
        if isinstance(config.get("modalities"), list):
            # Tools that sort the keys of a JSON file must not change which modality is the anchor.
            arguments["dims"] = {m: arguments["dims"][m] for m in config["modalities"]}
        if config["kind"] == "host" and isinstance(arguments.get("fusion"), Mapping):
            arguments["fusion"] = _saved_fusion(arguments["fusion"], source)
        return cls(**arguments)
    except CheckpointError:
        raise
    except (FusionZooError, TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        saved = f"{config.get('distribution')} {config.get('version')}"
        raise CheckpointError(
            f"{source!r} was saved with {saved}, and {config['name']} cannot be built from it with what is installed: {error}"
        ) from error


def _saved_fusion(config: Mapping[str, Any], source: str) -> Any:
    if "arguments" in config:
        return build_saved({**config, "kind": "fusion"}, source)
    provider = _resolve({**config, "kind": "fusion"}, source)
    return provider.qualified, dict(config.get("options") or {})
