"""Building a host from a configuration, and the two files that carry a trained one.

`model.safetensors` holds the weights, the feature standardisation included; `model.json` says what they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._file_schemas import ModelFile
from fusionzoo._files import write_bytes, write_json
from fusionzoo._options import options_in_force
from fusionzoo._schema import read_json
from fusionzoo._weights import building_for, load_weights, pack_weights, read_weights
from fusionzoo.data.scores import class_values
from fusionzoo.errors import CheckpointError, ConfigError
from fusionzoo.runs.config import FusionConfig, RunConfig
from fusionzoo.runs.options import NO_FUSION, SUPPLIED, accepted_options

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.host import Host, HostOutput
    from fusionzoo.objective import Objective

WEIGHTS, MODEL_META = "model.safetensors", "model.json"


def host_options(config: RunConfig, corpus: Corpus) -> dict[str, object]:
    """The host's options; data whose text is several views side by side tell a host that can take them apart."""
    options, views = dict(config.host.options), corpus.text_views
    taken = views > 0 and "text_views" in accepted_options(config.host.name, "host").types
    if taken and corpus.modalities[0] == "text":
        options.setdefault("text_views", views)
    return options


def settle_fusion(config: RunConfig, corpus: Corpus) -> None:
    """With one modality no fusion is built: set `fusion.name` to `none` where it came by default.

    Raises
    ------
    ConfigError : a fusion was asked for, which would be reported and not be there.
    """
    if len(corpus.modalities) > 1 or config.fusion.name == NO_FUSION:
        return
    if config.fusion.asked:
        raise ConfigError(
            f"{corpus.name!r} is used with one modality ({', '.join(corpus.modalities)}), where there is nothing to fuse: the fusion "
            f"{config.fusion.name!r} would not be built. Give two modalities or more (--modalities), or say that there is "
            f"no fusion: --fusion {NO_FUSION}"
        )
    config.fusion = FusionConfig(NO_FUSION)


def check_fusion_built(host: Host, config: RunConfig) -> None:
    """Raise `ConfigError` where the host has no fusion inside and the configuration names one, or the other way round."""
    built = host.built_fusion
    if built is None and config.fusion.name != NO_FUSION:
        raise ConfigError(
            f"the host {config.host.name!r} has built no fusion for {', '.join(host.names)}, so that {config.fusion.name!r} "
            f"would be reported and not be there; say that there is none: --fusion {NO_FUSION}"
        )
    if built is not None and config.fusion.name == NO_FUSION:
        raise ConfigError(
            f"the host {config.host.name!r} fuses {', '.join(host.names)} and was given no fusion (--fusion {NO_FUSION}), "
            f"which is for data of one modality; name one, see: fusionzoo plugins --kind fusion"
        )


def describe_model(config: RunConfig, corpus: Corpus, data_sha256: str) -> ModelFile:
    """The contents of `model.json`: what is needed to build the same model and to judge whether data fit it."""

    def provider(name: str, kind: str) -> str:
        card = fusionzoo.card(name, kind)
        return f"{card.distribution} {card.version}".strip()

    plugins = {"host": config.host.name, "fusion": config.fusion.name}
    meta = {
        "format": 1,
        "host": config.host.name,
        "host_options": host_options(config, corpus),
        "placement": config.host.placement,
        "fusion": config.fusion.name,
        "fusion_options": config.fusion.options,
        "objective": config.objective.to_dict(),
        "training": config.training.to_dict(),
        "dims": dict(corpus.dims),
        "num_classes": corpus.num_classes,
        "num_speakers": corpus.num_speakers,
        "label_names": list(corpus.label_names),
        "providers": {kind: provider(name, kind) for kind, name in plugins.items() if name != NO_FUSION},
        "versions": {"fusionzoo": fusionzoo.__version__, "torch": torch.__version__},
        "data": {"name": corpus.name, "sha256": data_sha256},
        "selection": config.training.selection,
    }
    made = corpus.info.get("extraction")
    if isinstance(made, Mapping) and isinstance(cards := made.get("features"), Mapping):
        # How the features were made: what encodes a new dialogue in the same way.
        meta["features"] = {m: cards[m] for m in corpus.dims if m in cards}
    return cast(ModelFile, meta)


def resolve(config: RunConfig, host: Host, objective: WeightedObjective) -> RunConfig:
    """The configuration with every option as it is in force in what was built from it, defaults included.

    A default may depend on the plugin around (an official host has options of its own for its fusion), so it is read off
    what was built and not off signatures. Built again from the result, everything is the same.
    """
    values: dict[str, dict[str, Any]] = config.to_dict()
    values["host"] |= options_in_force(host, SUPPLIED["host"])
    values["host"]["placement"] = getattr(host, "placement", config.host.placement)
    cls = None if config.fusion.name == NO_FUSION else fusionzoo.get(config.fusion.name)
    fusion = next((m for m in host.modules() if type(m) is cls), None)
    if fusion is not None:
        values["fusion"] |= options_in_force(fusion, SUPPLIED["fusion"]) | config.fusion.options
    for index, (name, _, options) in enumerate(config.objective.terms()):
        own = options_in_force(objective.parts[index], SUPPLIED["objective"]) | options
        if index == 0:
            values["objective"] |= own
        else:
            values["objective"]["also"][name] = {"weight": objective.weights[index], **own}
    return RunConfig.from_dict(values)


def built(config: RunConfig, corpus: Corpus) -> tuple[RunConfig, Host]:
    """The same for a configuration of which nothing has been built yet, and the host that was built for it."""
    with torch.random.fork_rng(devices=[]):
        host = build_host(describe_model(config, corpus, ""))
        objective = WeightedObjective(config, corpus.num_classes, class_counts(corpus), host, corpus.label_names)
    return resolve(config, host, objective), host


def resolved(config: RunConfig, corpus: Corpus) -> RunConfig:
    """The configuration alone; models are small, and this one is dropped."""
    return built(config, corpus)[0]


def build_host(meta: ModelFile | Mapping[str, Any]) -> Host:
    """A host with fresh weights from the contents of `model.json`, or from as much of it as says how to build one."""
    fusion = {} if meta["fusion"] == NO_FUSION else {"fusion": (meta["fusion"], dict(meta["fusion_options"]))}
    return fusionzoo.get(meta["host"], kind="host")(
        dict(meta["dims"]),
        num_classes=meta["num_classes"],
        num_speakers=meta["num_speakers"],
        placement=meta["placement"],
        **fusion,
        **meta["host_options"],
    )


def class_counts(corpus: Corpus) -> Tensor:
    """Labelled utterances of each class in the train split, `(C,)`."""
    labels = corpus.label[(corpus.split == "train") & (corpus.label >= 0)]
    return torch.from_numpy(np.bincount(labels, minlength=corpus.num_classes))


class WeightedObjective(nn.Module):
    """The weighted sum of a configuration's objectives and of the losses that the model brings along.

    Parameters
    ----------
    config : names the objectives, their weights and options.
    num_classes : C.
    class_counts : labelled utterances of each class in the train split, `(C,)`.
    host : what the objectives are bound to; those that need no host do without.
    label_names : the classes; where they are numbers, they are the `values` of objectives that have such an option.
    """

    def __init__(
        self,
        config: RunConfig,
        num_classes: int,
        class_counts: Tensor,
        host: Host | None = None,
        label_names: Sequence[str] = (),
    ):
        super().__init__()
        terms = config.objective.terms()
        if (values := class_values(label_names)) is not None:
            for name, _, options in terms:
                if "values" in accepted_options(name, "objective").types:
                    options.setdefault("values", list(values))
        self.weights = [weight for _, weight, _ in terms]
        self.parts = nn.ModuleList(
            fusionzoo.get(name, kind="objective")(num_classes, class_counts=class_counts.clone(), **options)
            for name, _, options in terms
        )
        self.auxiliary = config.objective.auxiliary
        if host is not None:
            for part in self.parts:
                cast("Objective", part).bind(host)

    def forward(self, out: HostOutput, batch: Any) -> Tensor:
        """The weighted sum of all objectives, and of the auxiliary losses that the model reports."""
        total = torch.stack([w * part(out, batch) for w, part in zip(self.weights, self.parts, strict=True)]).sum()
        if self.auxiliary and out.losses:
            total = total + self.auxiliary * torch.stack([v.float() for v in out.losses.values()]).sum()
        return total


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _frozen(host: nn.Module) -> set[str]:
    """Names of the parameters of frozen encoders, which a pretrained model's files hold already."""
    encoders = getattr(host, "frozen_encoders", None)
    return set() if encoders is None else encoders()


def trained_state(host: nn.Module) -> dict[str, Tensor]:
    """A host's state without the weights of frozen encoders, for checkpoints, which come every epoch."""
    frozen = _frozen(host)
    return {k: v for k, v in host.state_dict().items() if k not in frozen}


def whole_state(host: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's state with the frozen encoders' weights of `host`."""
    frozen = _frozen(host)
    return {k: v for k, v in host.state_dict().items() if k in frozen} | dict(state) if frozen else dict(state)


def save_model(folder: Path, state: Mapping[str, Tensor], meta: ModelFile) -> None:
    """Write `model.safetensors` and `model.json`, each atomically."""
    write_bytes(folder / WEIGHTS, pack_weights(state))
    write_json(folder / MODEL_META, meta)


def read_model_meta(run: str | Path) -> ModelFile:
    """The contents of a run folder's `model.json`."""
    path = Path(run) / MODEL_META
    if not path.exists():
        raise CheckpointError(
            f"{str(run)!r} is not the folder of a trained run: it has no {MODEL_META}; give the --out folder of `fusionzoo train`"
        )
    meta = read_json(ModelFile, path, CheckpointError)
    if len(meta["label_names"]) != meta["num_classes"]:
        raise CheckpointError(
            f"{str(path)!r}: label_names: expected {meta['num_classes']} names, as num_classes says, got "
            f"{len(meta['label_names'])}"
        )
    return meta


def load_model(run: str | Path, device: str | torch.device = "cpu") -> tuple[Host, ModelFile]:
    """The trained host of a run folder, in eval mode, and the contents of its `model.json`.

    Parameters
    ----------
    run : the run folder.
    device : where the host is wanted.

    Raises
    ------
    CheckpointError : the folder holds no model, or weights that belong to another host, other widths or another number
        of classes.
    UnknownNameError : a plugin that it needs is not installed.
    """
    meta = read_model_meta(run)
    weights = read_weights(Path(run) / WEIGHTS)
    with building_for(weights, f"{str(run)!r}"):
        host = build_host(meta)
    load_weights(host, weights, f"{str(Path(run) / WEIGHTS)!r}")
    return host.to(device).eval(), meta
