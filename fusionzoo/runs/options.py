"""Types of configuration values, and the options that a plugin's constructor takes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from fusionzoo._options import plain_arguments, record
from fusionzoo._schema import shown
from fusionzoo._variants import variant_classes
from fusionzoo.errors import ConfigError, close_matches_hint

#: Constructor arguments that the trainer supplies itself, by kind of plugin.
SUPPLIED = {
    "fusion": ("dims", "out_dim"),
    "host": ("dims", "num_classes", "num_speakers", "fusion", "placement"),
    "objective": ("num_classes", "class_counts"),
}

#: The name of a fusion that is not there: with one modality no host builds one.
NO_FUSION = "none"

_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word"}


@dataclass(frozen=True)
class Accepted:
    """What a plugin takes: option name -> annotation as text, and a host's placements."""

    types: dict[str, str]
    placements: tuple[str, ...]


def coerce(value: Any, annotation: str, where: str, limits: Mapping[str, Any]) -> Any:
    """Check one value against a type written as text (`"int"`, `"str | None"`), choices and a range.

    Annotations other than int, float, bool, str, list and dict pass unchecked.

    Parameters
    ----------
    value : as it was given.
    annotation : of what is expected.
    where : the key, for messages.
    limits : `choices`, `min` and `max`, as far as there are any.

    Raises
    ------
    ConfigError : the value is something else.
    """
    names = [n.strip() for n in annotation.split("|")]
    if value is None and "None" in names:
        return None
    if names[0] == "str" and isinstance(value, bool):
        # YAML 1.1 reads the words no, off, yes and on as booleans.
        words = ("yes", "on") if value else ("no", "off")
        value = next((w for w in words if w in limits.get("choices", ())), value)
    checked = next((c for n in names if (c := _as_kind(value, n.split("[")[0])) is not _WRONG), _WRONG)
    if checked is _WRONG:
        expected = " or ".join("nothing (null)" if n == "None" else _WORDS.get(n, n) for n in names)
        raise ConfigError(f"configuration key {where!r} takes {expected}, not {_got(value)}")
    _check_limits(checked, where, limits)
    return checked


def _check_limits(value: Any, where: str, limits: Mapping[str, Any]) -> None:
    choices = limits.get("choices")
    if choices and value not in choices:
        raise ConfigError(
            f"configuration key {where!r} has no choice {shown(value)}{close_matches_hint(str(value), choices) or '.'} "
            f"Choices: {', '.join(choices)}."
        )
    low, high = limits.get("min"), limits.get("max")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        span = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ConfigError(f"configuration key {where!r} must be {span}, not {value}")


_WRONG = object()


def _got(value: Any) -> str:
    """A value as it was given, with its type: the text '3' is no number."""
    return f"{shown(value)} ({type(value).__name__})" if isinstance(value, (str, bool, int, float)) else shown(value)


def _as_kind(value: Any, kind: str) -> Any:
    """The value as one of a kind, or `_WRONG`; kinds that the table lacks take everything."""
    return _KINDS[kind](value) if kind in _KINDS else value


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else _WRONG


def _number(value: Any) -> Any:
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else _WRONG


def _text_or_path(value: Any) -> Any:
    return value if isinstance(value, str) else str(value) if hasattr(value, "__fspath__") else _WRONG


def _words(value: Any) -> Any:
    if isinstance(value, str):
        return [v.strip() for v in value.split(",") if v.strip()]
    return list(value) if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value) else _WRONG


_KINDS: dict[str, Callable[[Any], Any]] = {
    "int": _whole,
    "float": _number,
    "bool": lambda value: value if isinstance(value, bool) else _WRONG,
    "str": _text_or_path,
    "list": _words,
    "dict": lambda value: dict(value) if isinstance(value, Mapping) else _WRONG,
    "None": lambda value: None if value is None else _WRONG,
}


def accepted_options(name: str, kind: str) -> Accepted:
    """Options of an installed plugin, read from its constructors' signatures along the inheritance."""
    if kind == "fusion" and name == NO_FUSION:
        return Accepted({}, placements=())
    import fusionzoo

    target: Any = fusionzoo.get(name, kind=kind)
    types: dict[str, str] = {}
    for form in variant_classes(target) if isinstance(target, type) else [target]:
        found = _parameters_of(form).items()
        types |= {n: t for n, t in found if n not in types and n not in SUPPLIED.get(kind, ())}
    return Accepted(types, tuple(getattr(target, "placements", ()) or ()))


def _parameters_of(target: Any) -> dict[str, str]:
    """Types by parameter of a function, or of a class's constructors along the inheritance."""
    types: dict[str, str] = {}
    constructors = (
        [vars(c)["__init__"] for c in target.__mro__[:-1] if "__init__" in vars(c)]
        if isinstance(target, type)
        else [target]
    )
    for constructor in constructors:
        if constructor.__module__.startswith("torch."):
            break
        parameters = list(inspect.signature(constructor).parameters.values())
        try:
            hints = get_type_hints(constructor)
        except (NameError, TypeError):
            hints = {}
        for p in parameters[1:] if isinstance(target, type) else parameters:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                types.setdefault(p.name, _text(hints.get(p.name)))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return types


def default_options(name: str, kind: str) -> dict[str, Any]:
    """What a plugin's own signature says of its options, as far as they are plain values."""
    import fusionzoo

    if kind == "fusion" and name == NO_FUSION:
        return {}
    target: Any = fusionzoo.get(name, kind=kind)
    values = {p.name: p.default for p in inspect.signature(target).parameters.values() if p.default is not p.empty}
    return plain_arguments({k: record(v) for k, v in values.items() if k not in SUPPLIED.get(kind, ())})


def check_options(name: str, kind: str, options: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The options with checked types, or `ConfigError` naming the key and listing what the plugin takes."""
    if not options:
        accepted_options(name, kind)  # an unknown plugin is reported now, not after the data has been read
        return {}
    accepted = accepted_options(name, kind)
    out: dict[str, Any] = {}
    for key, value in options.items():
        if key in SUPPLIED.get(kind, ()):
            raise ConfigError(f"configuration key '{section}.{key}' cannot be set: the trainer supplies {key!r} itself")
        if key not in accepted.types:
            takes = ", ".join(sorted(accepted.types)) or "no options"
            raise ConfigError(
                f"unknown configuration key '{section}.{key}'{close_matches_hint(key, accepted.types) or '.'} "
                f"{kind.capitalize()} {name!r} takes: {takes}."
            )
        out[key] = coerce(value, accepted.types.get(key, "Any"), f"{section}.{key}", {})
    return out


def _text(hint: Any) -> str:
    """A resolved annotation as the text that `coerce` reads; `Any` for what it does not check."""
    if hint in (int, float, bool, str):
        return hint.__name__
    args = getattr(hint, "__args__", ())
    if args and all(a in (int, float, bool, str, type(None)) for a in args) and not hasattr(hint, "__metadata__"):
        origin = getattr(hint, "__origin__", None)
        if origin is None or str(origin) == "typing.Union":
            return " | ".join("None" if a is type(None) else a.__name__ for a in args)
    return "Any"
