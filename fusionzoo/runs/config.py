"""The configuration of a run: five sections, checked by name and type before anything is loaded.

A configuration comes, in rising order of precedence, from the defaults below, a recipe, a YAML file, named arguments
(the command line's options) and `--set section.key=value`. What a host, fusion, objective or dataset takes besides the
named fields stands flat in its section and is checked against the plugin's constructor:

    host: {name: dialogue-gcn, placement: early, hidden: 128}
    fusion: {name: lmam, rank: 16}
    training: {epochs: 60, lr: 1e-3}
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from fusionzoo._schema import plain, shown
from fusionzoo._types import Options
from fusionzoo.errors import ConfigError, close_matches_hint
from fusionzoo.runs.options import NO_FUSION, accepted_options, check_options, coerce, default_options
from fusionzoo.scoring.metrics import MAIN, METRICS

#: What reports say where the fusion is `none`.
WITHOUT_FUSION = "no fusion: one modality"


@dataclass
class Section:
    """A section of the configuration. `options` of a subclass collects what its plugin takes."""

    SECTION: ClassVar[str]

    @classmethod
    def from_dict(cls, values: Options) -> Self:
        """Build the section, or raise `ConfigError` naming the key, what it expects and its closest match."""
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"section {cls.SECTION!r} of the configuration must be a mapping of keys to values, not {shown(values)}"
            )
        known = {f.name: f for f in fields(cls) if f.name != "options"}
        free = any(f.name == "options" for f in fields(cls))
        arguments: dict[str, Any] = {}
        options: dict[str, Any] = {}
        for key, value in values.items():
            where = f"{cls.SECTION}.{key}"
            if key in known:
                arguments[key] = coerce(value, str(known[key].type), where, known[key].metadata)
            elif free:
                options[str(key)] = value
            else:
                raise ConfigError(
                    f"unknown configuration key {where!r}{close_matches_hint(str(key), known) or '.'} "
                    f"Section {cls.SECTION!r} takes: {', '.join(known)}."
                )
        return cls(**arguments, **({"options": options} if free else {}))

    def to_dict(self) -> dict[str, object]:
        """Plain values, the options flat among the fields, ready for YAML and JSON."""
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "options"}
        return out | dict(getattr(self, "options", {}))


@dataclass
class DataConfig(Section):
    """Where the conversations come from.

    Parameters
    ----------
    source : name of a dataset plugin (`demo`) or path of a file or folder.
    split : a file that assigns dialogues to train, dev and test; `None` takes the source's own split.
    modalities : the modalities to use, in order, the anchor first; `None` takes all, in the source's order.
    dev_fraction : share of the training dialogues set aside where the source has no dev split; 0 for no dev split.
    merge_dev : count the source's dev dialogues as training first, as many published trainings do; dev is then drawn.
    split_seed : seed of that choice; not the training seed, so that all seeds of a comparison share one split.
    options : of the dataset plugin or reader.
    """

    SECTION: ClassVar[str] = "data"
    source: str = "demo"
    split: str | None = None
    modalities: list[str] | None = None
    dev_fraction: float = field(default=0.1, metadata={"min": 0.0, "max": 0.9})
    merge_dev: bool = False
    split_seed: int = 0
    options: dict[str, object] = field(default_factory=dict)


@dataclass
class HostConfig(Section):
    """The model around the fusion.

    Parameters
    ----------
    name : of the host.
    placement : where the fusion sits; None for the host's default.
    options : of the host.
    """

    SECTION: ClassVar[str] = "host"
    name: str = "bc-lstm"
    placement: str | None = None
    options: dict[str, object] = field(default_factory=dict)


@dataclass
class FusionConfig(Section):
    """The fusion layer.

    Parameters
    ----------
    name : of the fusion; `none` is for data of one modality, where there is nothing to fuse.
    options : of the fusion.

    `asked` is whether somebody named it or gave it options, here or in a file, and False where it came by default.
    """

    SECTION: ClassVar[str] = "fusion"
    name: str = "concat"
    options: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.asked = self.name != "concat" or bool(self.options)

    @classmethod
    def from_dict(cls, values: Options) -> Self:
        """The same, and whether a name was given."""
        section = super().from_dict(values)
        section.asked = section.asked or "name" in values
        return section


@dataclass
class ObjectiveConfig(Section):
    """What is minimised.

    Parameters
    ----------
    name : of the objective.
    weight : factor of the named objective.
    also : further objectives, each by name with a `weight` and its own options:
        `also: {supervised-contrastive: {weight: 0.1}}`.
    auxiliary : factor of the losses that hosts and fusions bring along by themselves; 0 ignores them.
    options : of the objective.
    """

    SECTION: ClassVar[str] = "objective"
    name: str = "cross-entropy"
    weight: float = field(default=1.0, metadata={"min": 0.0})
    also: dict[str, object] = field(default_factory=dict)
    auxiliary: float = field(default=1.0, metadata={"min": 0.0})
    options: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "cross-entropy":
            # The field's labels are noisy (annotators agree on about two in three); an option of a run, not of the loss.
            self.options = {"label_smoothing": 0.1, **self.options}

    def terms(self) -> list[tuple[str, float, dict[str, object]]]:
        """`(name, weight, options)` of every objective, the main one first."""
        terms = [(self.name, self.weight, dict(self.options))]
        for name, given in self.also.items():
            where = f"objective.also.{name}"
            if isinstance(given, Mapping):
                rest = dict(given)
                weight = coerce(rest.pop("weight", 1.0), "float", f"{where}.weight", {"min": 0.0})
            else:
                rest, weight = {}, coerce(given, "float", where, {"min": 0.0})
            terms.append((str(name), weight, rest))
        return terms


@dataclass
class TrainingConfig(Section):
    """The loop.

    Parameters
    ----------
    epochs : at most.
    batch_size : dialogues per step and process.
    sampler : `shuffle` takes every dialogue once per epoch; `balanced` draws as many with replacement, so that every class
        comes equally often (of single utterances; a dialogue weighs as its utterances do on average).
    lr, weight_decay, optimizer : as in torch.optim.
    scheduler : how the learning rate moves.
    warmup : share of all steps in which it rises from zero.
    decay : what the rate is multiplied by, by `step` and `plateau`.
    decay_epochs : with `step` every so many epochs, with `plateau` after so many in a row without a new best (torch's
        ReduceLROnPlateau waits for one more than its patience).
    plateau_on : what `plateau` looks at: `score`, by which the epoch is chosen, `dev_loss` (log loss) or `train_loss`.
    clip : largest norm of all gradients together; 0 does not clip.
    precision : `auto` is bf16 on a GPU that has it and full precision on a CPU.
    patience : epochs without improvement on the selecting split before stopping; 0 runs all epochs.
    ema : decay of an exponential moving average of the weights, which then is what is evaluated and saved; 0 for none.
    seed : of the initial weights, the order of the batches and dropout.
    selection : split on which the epoch is chosen. `test` reproduces numbers published that way; reports say so in red.
    metric : what the choice looks at.
    tracker : a tracker known to Accelerate, such as `tensorboard`.
    deterministic : deterministic kernels, slower on a GPU; a CPU is deterministic at a given number of threads.
    threads : CPU threads of torch; they decide the last digits of sums, so a fixed number repeats a run exactly.
        0 leaves torch's own setting.
    device : `auto`, `cpu`, `cuda` or `cuda:N`.
    checkpoint_every : epochs between checkpoints; a new best epoch is always written.
    keep : checkpoints kept besides the best one; 0 removes all when the run has finished.
    """

    SECTION: ClassVar[str] = "training"
    epochs: int = field(default=24, metadata={"min": 1})
    batch_size: int = field(default=8, metadata={"min": 1})
    sampler: str = field(default="shuffle", metadata={"choices": ("shuffle", "balanced")})
    lr: float = field(default=2e-3, metadata={"min": 0.0})
    weight_decay: float = field(default=1e-4, metadata={"min": 0.0})
    optimizer: str = field(default="adamw", metadata={"choices": ("adamw", "adam", "sgd")})
    scheduler: str = field(default="cosine", metadata={"choices": ("constant", "cosine", "linear", "plateau", "step")})
    decay: float = field(default=0.5, metadata={"min": 0.0, "max": 1.0})
    decay_epochs: int = field(default=5, metadata={"min": 1})
    plateau_on: str = field(default="score", metadata={"choices": ("score", "dev_loss", "train_loss")})
    warmup: float = field(default=0.05, metadata={"min": 0.0, "max": 1.0})
    clip: float = field(default=1.0, metadata={"min": 0.0})
    precision: str = field(default="auto", metadata={"choices": ("auto", "no", "bf16", "fp16")})
    patience: int = field(default=10, metadata={"min": 0})
    ema: float = field(default=0.99, metadata={"min": 0.0, "max": 0.99999})
    seed: int = field(default=0, metadata={"min": 0})
    selection: str = field(default="dev", metadata={"choices": ("dev", "test")})
    metric: str = field(default=MAIN, metadata={"choices": METRICS})
    tracker: str | None = None
    deterministic: bool = False
    threads: int = field(default=1, metadata={"min": 0})
    device: str = "auto"
    checkpoint_every: int = field(default=1, metadata={"min": 1})
    keep: int = field(default=2, metadata={"min": 0})


#: Keys that do not change a run's numbers; the fingerprint and `--resume` ignore them.
INCIDENTAL = ("training.tracker", "training.checkpoint_every", "training.keep")

#: Named arguments of `RunConfig.from_sources` that are not simply a key of section `training`.
_ARGUMENTS = {
    "data": "data.source",
    "split": "data.split",
    "modalities": "data.modalities",
    "host": "host.name",
    "placement": "host.placement",
    "fusion": "fusion.name",
    "objective": "objective.name",
}


#: Sections that have a name, and the key that holds it. `fusion: lmam` is `fusion: {name: lmam}`.
_NAMED = {"data": "source", "host": "name", "fusion": "name", "objective": "name"}


@dataclass
class RunConfig:
    """Everything that decides a run."""

    data: DataConfig = field(default_factory=DataConfig)
    host: HostConfig = field(default_factory=HostConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @classmethod
    def from_sources(
        cls,
        file: str | Path | Options | None = None,
        sets: Iterable[str] = (),
        recipe: str | Path | Options | None = None,
        check: bool = True,
        **arguments: object,
    ) -> RunConfig:
        """Merge a recipe, a YAML file, named arguments and `section.key=value` strings, in this order.

        Parameters
        ----------
        file : a YAML file, or its sections as a mapping.
        sets : `section.key=value` texts.
        recipe : likewise what `file` is; it counts less.
        check : False leaves the plugins' options to a later `check_plugins`: a comparison has several hosts and fusions to
            check them against.
        arguments : `data`, `split`, `modalities`, `host`, `placement`, `fusion`, `objective`, or any key of section
            `training` (`epochs=2`); None means not given. A host, fusion or objective with options is a mapping:
            `fusion={"name": "lmam", "rank": 4}`.

        Raises
        ------
        ConfigError : an unknown section or key (with the closest match), a wrong type or range, or options that the chosen
            plugins do not take.
        UnknownNameError : a plugin is not installed.
        """
        merged: dict[str, Any] = {}
        for source in (recipe, file):
            if source is not None:
                merge_sections(merged, source if isinstance(source, Mapping) else read_yaml(source), str(source))
        for name, value in arguments.items():
            if value is None:
                continue
            if name in _NAMED and not isinstance(value, str) and name != "data":
                merge_sections(merged, {name: _with_name(name, value)}, f"{name}=")
            else:
                _assign(merged, _ARGUMENTS.get(name, f"training.{name}"), value)
        for text in sets:
            _assign(merged, *parse_set(text))
        config = cls.from_dict(merged)
        if check:
            config.check_plugins()
        return config

    @classmethod
    def from_dict(cls, values: Options) -> RunConfig:
        """From nested mappings. Names and types are checked; options of plugins are not, see `check_plugins`."""
        given: dict[str, Any] = plain(values, "the configuration", ConfigError)
        kinds = (DataConfig, HostConfig, FusionConfig, ObjectiveConfig, TrainingConfig)
        sections: dict[str, type[Section]] = {s.SECTION: s for s in kinds}
        for key in given:
            if key not in sections:
                raise ConfigError(
                    f"unknown configuration section {key!r}{close_matches_hint(str(key), sections) or '.'} "
                    f"The sections are: {', '.join(sections)}."
                )
        parts: dict[str, Any] = {k: s.from_dict(_keys(k, given.get(k))) for k, s in sections.items()}
        return cls(**parts)

    @property
    def title(self) -> str:
        """The model in words."""
        return model_title(self.host.name, self.fusion.name)

    @classmethod
    def load(cls, path: str | Path) -> RunConfig:
        """Read the `config.yaml` of a run folder, or any other configuration file."""
        return cls.from_dict(read_yaml(path))

    def check_plugins(self) -> None:
        """Check every option against the plugin that gets it; loads the plugins."""
        import fusionzoo

        if self.data.options.get("media") is not None:
            from fusionzoo.data.clips.corpus import check_clip_options

            check_clip_options(self.data.options)
        elif self.data.source in fusionzoo.names("dataset"):
            given = check_options(self.data.source, "dataset", self.data.options, "data")
            known = {f.name for f in fields(DataConfig)}
            defaults = default_options(self.data.source, "dataset")
            self.data.options = {k: v for k, v in defaults.items() if k not in known} | given
        self.host.options = check_options(self.host.name, "host", self.host.options, "host")
        self.fusion.options = check_options(self.fusion.name, "fusion", self.fusion.options, "fusion")
        for index, (name, _, options) in enumerate(self.objective.terms()):
            where = "objective" if index == 0 else f"objective.also.{name}"
            checked = check_options(name, "objective", options, where)
            if index == 0:
                self.objective.options = checked
            else:
                given = self.objective.also[name]
                weight = given.get("weight", 1.0) if isinstance(given, Mapping) else given
                self.objective.also[name] = {"weight": weight, **checked}
        placements = accepted_options(self.host.name, "host").placements
        if self.host.placement is not None and placements and self.host.placement not in placements:
            raise ConfigError(
                f"host {self.host.name!r} has no placement {self.host.placement!r}"
                f"{close_matches_hint(self.host.placement, placements) or '.'} It has: {', '.join(placements)}."
            )

    def to_dict(self) -> dict[str, dict[str, object]]:
        """Sections of plain values."""
        return {f.name: getattr(self, f.name).to_dict() for f in fields(self)}

    def to_yaml(self) -> str:
        """The effective configuration, enough to run again: every key with its value."""
        from fusionzoo._yaml import dump_yaml

        return dump_yaml(self.to_dict())

    def fingerprint(self) -> str:
        """Hash of every key that can change a number, in hexadecimal.

        Section `data` is left out: what was read is identified by its own hash, wherever it lay.
        """
        flat = {k: v for k, v in flatten(self.to_dict()).items() if k not in INCIDENTAL and not k.startswith("data.")}
        return hashlib.sha256(json.dumps(flat, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def replaced(self, **values: object) -> RunConfig:
        """A checked copy; keys are `section__key` or whole sections: `replaced(training__seed=3, fusion={"name": "lmf"})`."""
        merged: dict[str, Any] = copy.deepcopy(self.to_dict())
        for key, value in values.items():
            section, _, name = key.partition("__")
            if name:
                merged[section][name] = value
            else:
                merged[section] = dict(cast(Options, value))
        config = RunConfig.from_dict(merged)
        config.check_plugins()
        return config


def model_title(host: str, fusion: str) -> str:
    """`bc-lstm + gated`, or what stands in the place of a fusion that was not built."""
    return f"{host}, {WITHOUT_FUSION}" if fusion == NO_FUSION else f"{host} + {fusion}"


def flatten(values: Options, prefix: str = "") -> dict[str, object]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; empty mappings vanish."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML mapping from a file."""
    from fusionzoo._yaml import read_yaml_file

    values = read_yaml_file(path, "the configuration", ConfigError)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"the configuration {str(path)!r} must hold sections (data, host, fusion, objective, training), "
            f"not a {type(values).__name__}"
        )
    return values


def parse_set(text: str) -> tuple[str, Any]:
    """`"section.key=value"` as its dotted key and its value, the value read as YAML: `1e-3`, `true`, `[text, audio]`."""
    from fusionzoo._yaml import parse_yaml

    key, equals, value = text.partition("=")
    if not equals or "." not in key:
        raise ConfigError(f"--set takes section.key=value, such as training.epochs=2, not {text!r}")
    return key.strip(), parse_yaml(value, f"the value in --set {shown(text)}", ConfigError)


def merge_sections(into: dict[str, Any], values: Mapping[str, Any], source: str) -> None:
    """Write the keys of `values` over those of `into`, section by section; `source` is what a refusal names."""
    for section, given in values.items():
        keys = _keys(section, given)
        if isinstance(keys, Mapping):
            _start_over(into, section, keys)
            into.setdefault(section, {}).update(keys)
        else:
            raise ConfigError(f"{source}: section {section!r} must be a mapping of keys to values, not {shown(keys)}")


def _keys(section: str, given: Any) -> Any:
    """What stands in a section: nothing as no keys, a name alone as the key that it is."""
    if given is None:
        return {}
    return {_NAMED[section]: given} if isinstance(given, str) and section in _NAMED else given


def _with_name(kind: str, given: object) -> Options:
    """A host, fusion or objective as a mapping."""
    if isinstance(given, Mapping) and isinstance(given.get("name"), str):
        return given
    raise ConfigError(
        f'{kind}: expected a name, or a mapping such as {{"name": "lmam", "rank": 4}}, not {type(given).__name__}; a run '
        f"builds its own {kind} for the widths of its data, so it takes no instance"
    )


def _assign(into: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    _start_over(into, section, {name: value})
    target = into.setdefault(section, {})
    *path, last = name.split(".")
    for step in path:
        target = target.setdefault(step, {})
        if not isinstance(target, dict):
            raise ConfigError(f"cannot set {key!r}: {step!r} is a single value, not a group of keys")
    target[last] = value


def _start_over(into: dict[str, Any], section: str, keys: Mapping[str, Any]) -> None:
    """Options belong to the plugin that they were written for: another name in a later source drops them."""
    named = "source" if section == "data" else "name"
    if section == "training" or named not in keys or section not in into:
        return
    if named in into[section] and into[section][named] != keys[named]:
        kind = {"data": DataConfig, "host": HostConfig, "fusion": FusionConfig, "objective": ObjectiveConfig}.get(
            section
        )
        kept = {f.name for f in fields(kind)} - {"placement", "options"} if kind else set()
        into[section] = {k: v for k, v in into[section].items() if k in kept}
