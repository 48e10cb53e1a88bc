"""What `--tune` may change: one search space for everybody, with what hosts and fusions declare and people ask for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import fusionzoo
from fusionzoo._schema import shown
from fusionzoo.errors import ConfigError, close_matches_hint
from fusionzoo.runs.config import RunConfig, flatten
from fusionzoo.runs.options import NO_FUSION

#: Values of an option: choices, or a range `{"low", "high"}`, of whole numbers if both are, on a logarithmic scale with `log`.
Values = list[Any] | dict[str, Any]

#: What everybody's search begins with, as far as a model has the option as a number. A class's `search_space` (option ->
#: values) changes or adds to it.
SHARED: dict[str, Values] = {
    "training.lr": {"low": 2e-4, "high": 1e-2, "log": True},
    "host.dropout": {"low": 0.0, "high": 0.6},
    "fusion.dropout": {"low": 0.0, "high": 0.6},
    "fusion.rank": [4, 8, 16, 32],
    "fusion.heads": [1, 2, 4, 8],
}


def space_of(
    config: RunConfig, asked: Mapping[str, Any] | None = None, fixed: Collection[str] = ()
) -> dict[str, Values]:
    """Option (`section.key`) -> values, for one model; the values that it has already are among them.

    Parameters
    ----------
    config : every option with its value.
    asked : what somebody wants otherwise; options that this model does not have are left out.
    fixed : options that are not tuned.

    Raises
    ------
    ConfigError : values that are none.
    """
    have = flatten(config.to_dict())
    space: dict[str, Any] = dict(SHARED)
    for kind in ("host", "fusion", "objective"):
        name = getattr(config, kind).name
        if kind == "fusion" and name == NO_FUSION:
            continue
        for key, values in getattr(fusionzoo.get(name, kind=kind), "search_space", {}).items():
            space[key if "." in key else f"{kind}.{key}"] = values
    space |= asked or {}
    found = {}
    for key, values in space.items():
        if values is None or key not in have or key in fixed:
            continue
        checked = read_values(key, values)
        if not _may_be(have[key], checked):
            if key in SHARED and values == SHARED[key]:
                continue
            raise ConfigError(
                f"the search space of {key!r} is {shown(values)}, and {config.title} has {shown(have[key])} there"
            )
        found[key] = _with(checked, have[key])
    return found


def check_asked(asked: Mapping[str, Any], configs: Iterable[RunConfig]) -> None:
    """Refuse an option of a search space that no model of a comparison has."""
    known = sorted({k for c in configs for k in flatten(c.to_dict())})
    for key, values in asked.items():
        if key not in known:
            raise ConfigError(
                f"the search space names {key!r}, which no model here has{close_matches_hint(key, known) or '.'} "
                "Options are written section.key, such as training.lr or fusion.rank"
            )
        if values is not None:
            read_values(key, values)


def read_values(key: str, values: Any) -> Values:
    """Choices or a range, checked."""
    if isinstance(values, (list, tuple)) and values and all(_plain(v) for v in values):
        return list(values)
    if isinstance(values, Mapping) and {"low", "high"} <= values.keys() <= {"low", "high", "log"}:
        low, high, log = values["low"], values["high"], values.get("log", False)
        if _number(low) and _number(high) and isinstance(log, bool) and low < high and (low > 0 or not log):
            return {"low": low, "high": high, "log": log}
    raise ConfigError(
        f"the search space of {key!r} is a list of choices or {{low: 0.0001, high: 0.01, log: true}}, not {shown(values)}"
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))


def _may_be(value: Any, values: Values) -> bool:
    """Whether an option's value is of the kind that its values are."""
    if isinstance(values, dict):
        return _number(value) and (value > 0 or not values["log"])
    return _plain(value)


def _with(values: Values, value: Any) -> Values:
    """Values among which this one is."""
    if isinstance(values, list):
        return values if value in values else [*values, value]
    return values | {"low": min(values["low"], value), "high": max(values["high"], value)}
