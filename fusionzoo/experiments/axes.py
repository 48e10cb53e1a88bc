"""The axes of a comparison, and the entrants that they make: hosts x fusions x objectives x data sets x protocols."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fusionzoo
from fusionzoo._schema import shown
from fusionzoo._types import Options
from fusionzoo.data.folds import FoldPlan, FoldsLike
from fusionzoo.errors import ConfigError, OptionError, close_matches_hint
from fusionzoo.reporting.comparison import AXES, Contestant
from fusionzoo.runs.config import RunConfig, flatten, merge_sections, read_yaml
from fusionzoo.runs.options import accepted_options, check_options

#: A value of an axis: a name (of data: a source; of a protocol: `split`, or folds), or a mapping with the name, options, an
#: optional `label` for the tables, and `set`, the sections of the configuration that are otherwise for this value.
Entry = str | Options

#: The protocol of data that bring their splits along.
FIXED_SPLIT = "split"


@dataclass(frozen=True)
class Axes:
    """What is compared; None on an axis is the configuration's own value.

    Parameters
    ----------
    hosts, fusions, objectives, data : see `Entry`.
    protocols : `"split"`, or what is held out in turn: `"session"`, `"speaker"`, `5`, `"speaker:5"`.
    """

    hosts: Sequence[Entry] | None = None
    fusions: Sequence[Entry] | None = None
    objectives: Sequence[Entry] | None = None
    data: Sequence[Entry] | None = None
    protocols: Sequence[FoldsLike] | None = None


@dataclass(frozen=True)
class Entrant:
    """A row of the grid before its seeds and folds.

    Parameters
    ----------
    who : its labels.
    config : of its runs, apart from the seed.
    plan : the folds of its protocol, None with the splits of the data.
    place : the parts of a run folder's name that follow host and fusion.
    fixed : options (`section.key`) that its values on the axes name: they make the row what it is, and are not tuned.
    """

    who: Contestant
    config: RunConfig
    plan: FoldPlan | None = None
    place: tuple[str, ...] = ()
    fixed: frozenset[str] = frozenset()

    @property
    def data(self) -> str:
        """What stands for its data: their section of the configuration."""
        return json.dumps(self.config.data.to_dict(), sort_keys=True, default=str)

    def name(self, fold: str | None = None) -> str:
        """Of its folders, before the seed; where only hosts and fusions are compared, as it always was."""
        return "__".join([self.who.host, self.who.fusion, *self.place, *([] if fold is None else [fold])])

    def split_name(self, fold: str) -> str:
        """Of the file with the split of a fold, which all entrants with these data share."""
        labels = dict(self.who.axes)
        return "__".join([*([labels["data"]] if "data" in labels else []), self.place[-1], fold])


@dataclass(frozen=True)
class _Choice:
    """A value of an axis: its label, its section of the configuration, what else it changes, and what it names itself."""

    label: str
    section: dict[str, Any]
    changes: Mapping[str, Any] = field(default_factory=dict)
    plan: FoldPlan | None = None
    named: frozenset[str] = frozenset()

    @property
    def fixed(self) -> set[str]:
        """Options that it names."""
        return {*self.named, *flatten(self.changes)}


def in_file(config: str | Path | Options, keys: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A configuration file of a comparison, in two: the keys of the comparison, and the sections that all runs share.

    Parameters
    ----------
    config : the file, or what stands in it. A list under `data` is the axis, a mapping is the section.
    keys : of a comparison.
    """
    values = dict(config) if isinstance(config, Mapping) else read_yaml(config)
    found = {k: values.pop(k) for k in keys if k in values and (k != "data" or isinstance(values[k], list))}
    for name in (f.name for f in dataclasses.fields(Axes)):
        if found.get(name) is not None and not isinstance(found[name], list):
            raise ConfigError(f"{name!r} of a comparison is a list, such as {name}: [a, b], not {shown(found[name])}")
    return found, values


def entrants(base: RunConfig, axes: Axes) -> list[Entrant]:
    """The grid apart from seeds and folds, in the order of its tables; every configuration is checked.

    Parameters
    ----------
    base : what all share.
    axes : what is compared.

    Raises
    ------
    ConfigError : a value is there twice or is no such thing, or an option that nothing takes.
    """
    chosen = {
        "data": _choices("data", axes.data or [{"source": base.data.source}], lambda e: _data(e, base)),
        "protocol": _choices("protocol", axes.protocols or [FIXED_SPLIT], lambda e: _protocol(e, base)),
        "host": _plugins("host", axes.hosts, base),
        "objective": _plugins("objective", axes.objectives, base),
        "fusion": _plugins("fusion", axes.fusions, base),
    }
    varying = [axis for axis in AXES if len(chosen[axis]) > 1]
    out = []
    for combination in itertools.product(*chosen.values()):
        of = dict(zip(chosen, combination, strict=True))
        labels = tuple((axis, of[axis].label) for axis in varying)
        who = Contestant(of["host"].label, of["fusion"].label, labels)
        place = [of[a].label for a in ("objective", "data") if a in varying]
        place += [] if of["protocol"].plan is None else [of["protocol"].label]
        fixed = frozenset(key for choice in of.values() for key in choice.fixed)
        out.append(Entrant(who, _config(base, of), of["protocol"].plan, tuple(place), fixed))
    return out


def _config(base: RunConfig, of: Mapping[str, _Choice]) -> RunConfig:
    """The configuration with the sections of the values, then with what they change elsewhere."""
    sections = {axis: choice.section for axis, choice in of.items() if axis != "protocol"}
    merged: dict[str, Any] = copy.deepcopy(base.to_dict() | sections)
    for axis, choice in of.items():
        if "data" in choice.changes and axis not in ("data", "protocol"):
            raise ConfigError(
                f"{axis} {choice.label!r}: set.data would give it other data than the rows that it is compared with; "
                "data belong to the axis 'data'"
            )
        merge_sections(merged, choice.changes, f"'set' of {axis} {choice.label!r}")
    config = RunConfig.from_dict(merged)
    config.check_plugins()
    return config


def _choices(axis: str, entries: Sequence[Any], read: Callable[[Any], _Choice]) -> list[_Choice]:
    choices = [read(e) for e in entries]
    labels = [c.label for c in choices]
    for label in labels:
        if not label or any(c in label for c in "/\\ ") or label.startswith("."):
            raise ConfigError(f"the label {label!r} becomes part of a folder's name; use letters, digits, '-' and '='")
        if labels.count(label) > 1:
            key = "source" if axis == "data" else "name"
            raise ConfigError(
                f"{axis} {label!r} is in the comparison twice; give each a different label: {{{key}: ..., label: ...}}"
            )
    return choices


def _taken(entry: Entry, axis: str, key: str) -> tuple[dict[str, Any], str | None, Mapping[str, Any]]:
    """An entry as a mapping without its `label` and `set`, and these."""
    values: dict[str, Any] = dict(entry) if isinstance(entry, Mapping) else {key: entry}
    label, changes = values.pop("label", None), values.pop("set", {})
    if not isinstance(changes, Mapping):
        raise ConfigError(f"'set' of {axis} {shown(entry)} holds sections, such as {{training: {{lr: 0.001}}}}")
    return values, None if label is None else str(label), changes


# -- hosts, fusions, objectives ---------------------------------------------------------------------------------------


def _plugins(kind: str, given: Sequence[Entry] | None, base: RunConfig) -> list[_Choice]:
    entries = list(given) if given else [getattr(base, kind).name]
    if kind != "objective":
        _check_shared(entries, kind, base)
    return _choices(kind, entries, lambda e: _plugin(e, kind, base))


def _name(entry: Entry, kind: str) -> str:
    name = entry if isinstance(entry, str) else entry.get("name") if isinstance(entry, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError(f"{kind} {entry!r} must be a name or a mapping with a name")
    return name


def _check_shared(entries: Sequence[Entry], kind: str, base: RunConfig) -> None:
    """Refuse an option of the base configuration that no host (or fusion) of the grid takes."""
    names = [_name(e, kind) for e in entries]
    accepted = [accepted_options(n, kind) for n in names]
    for key, value in getattr(base, kind).options.items():
        if not any(key in a.types for a in accepted):
            if len(names) == 1:
                check_options(names[0], kind, {key: value}, kind)
            known = sorted({o for a in accepted for o in a.types})
            raise ConfigError(
                f"unknown configuration key '{kind}.{key}'{close_matches_hint(key, known) or '.'} "
                f"None of {', '.join(names)} takes it; together they take: {', '.join(known)}."
            )


def _plugin(entry: Entry, kind: str, base: RunConfig) -> _Choice:
    """A host, fusion or objective: the base configuration's options as far as it takes them, then its own."""
    name = _name(entry, kind)
    own, label, changes = _taken(entry, kind, "name")
    shared, named = getattr(base, kind), frozenset(f"{kind}.{key}" for key in own if key != "name")
    if kind == "objective":  # options of one loss mean nothing to another
        options = {k: getattr(shared, k) for k in ("weight", "also", "auxiliary")}
        options |= shared.options if name == shared.name else {}
        return _Choice(label or name, {**options, **own}, changes, named=named)
    accepted = accepted_options(name, kind)
    options = {k: v for k, v in shared.options.items() if k in accepted.types}
    if kind == "host" and shared.placement is not None:
        options["placement"] = shared.placement
    return _Choice(label or name, {**options, **own}, changes, named=named)


# -- data and protocols -----------------------------------------------------------------------------------------------


def _data(entry: Entry, base: RunConfig) -> _Choice:
    """A data set: how the base configuration reads its own, as far as that means something here, then its own keys."""
    own, label, changes = _taken(entry, "data", "source")
    source = own.get("source", base.data.source)
    if not isinstance(source, str):
        raise ConfigError(f"data {shown(entry)} must be a source or a mapping with a source")
    shared: dict[str, Any] = base.data.to_dict()
    if source != base.data.source and source in fusionzoo.names("dataset"):
        takes = accepted_options(source, "dataset").types
        shared = {k: v for k, v in shared.items() if k not in base.data.options or k in takes}
    name = source if source in fusionzoo.names("dataset") else Path(source).stem
    return _Choice(label or re.sub(r"[^\w.+=-]+", "-", name).strip("."), {**shared, "source": source, **own}, changes)


def _protocol(entry: Any, base: RunConfig) -> _Choice:
    """Splits of the data, or folds."""
    folds, label, changes = _taken(entry, "protocol", "name")
    name = folds.pop("name", None)
    if name in (FIXED_SPLIT, "none"):
        return _Choice(label or FIXED_SPLIT, {}, changes)
    plan = FoldPlan.read(folds if name is None else name if isinstance(name, FoldPlan) else str(name))
    if plan is None:
        raise ConfigError(f"protocol {shown(entry)} is {FIXED_SPLIT!r} or folds: session, speaker, 5, speaker:5")
    if base.data.split is not None:
        raise OptionError("--split and folds exclude each other: the folds are the split")
    own = f"{plan.k}-folds" if plan.by == "dialogue" else plan.by if plan.k is None else f"{plan.by}-{plan.k}"
    return _Choice(label or own, {}, changes, plan)
