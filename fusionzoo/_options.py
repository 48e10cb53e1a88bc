"""Constructors that answer a wrong option with a sentence instead of a TypeError."""

from __future__ import annotations

import contextlib
import inspect
from abc import ABCMeta
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from fusionzoo._schema import plain
from fusionzoo._variants import (
    DEFAULT,
    plugin_class,
    signature_of,
    variant_class,
    variant_classes,
    with_preset,
)
from fusionzoo.errors import OptionError, close_matches_hint


def accepted_options(cls: type) -> list[str]:
    """Names of the keyword arguments that a class's constructor takes, in any of its variants."""
    parameters = {n: p for c in reversed(variant_classes(cls)) for n, p in signature_of(c).parameters.items()}
    return [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a string, None, or made of such."""
    if isinstance(value, Mapping):
        return all(map(is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


@dataclass(frozen=True)
class Built:
    """Stands for an argument that is itself a fusion, host or objective: its class and the arguments it was built with."""

    cls: type
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Unrecorded:
    """Stands for an argument that is no plain value (a tensor, a module, a function)."""

    type_name: str


# `class Mine(Fusion, SomeProtocol)` and `class Mine(Fusion, ABC)` need a metaclass below theirs.
_Meta = ABCMeta if TYPE_CHECKING else type(Protocol)


class CheckedOptions(_Meta):
    """Metaclass of fusions, hosts and objectives: an unknown or missing argument raises `OptionError` with a hint.

    What an instance was built with is kept in `_init_arguments`, plain values only and defaults included, so that
    `save_pretrained` can write down how to build it again even when a later version has other defaults.
    """

    # Plain classes' and not `typing`'s, which before Python 3.12 takes every class of the metaclass for a protocol.
    __instancecheck__ = ABCMeta.__instancecheck__
    __subclasscheck__ = ABCMeta.__subclasscheck__

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's, for `help`, editors and cards, which would otherwise show `__call__`'s `(*args, **kwargs)`."""
        return signature_of(cls)

    if not TYPE_CHECKING:  # checkers take a constructor's arguments and type from the class

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            told = {}
            if isinstance(cls.variants, Mapping):
                told = {"variant": kwargs.pop("variant", None) or cls.variant}
                if told["variant"] != cls.variant:
                    return variant_class(plugin_class(cls), told["variant"])(*args, **kwargs)
                kwargs = with_preset(cls, kwargs)
            try:
                bound = signature_of(cls).bind(*args, **kwargs)
            except TypeError as error:
                raise OptionError(_misfit(cls, kwargs, error)) from None
            bound.arguments |= cls.one_spelling(bound.arguments)
            # Recorded before the constructor runs, which may change what it was given.
            arguments = recorded_arguments(bound)
            instance = super().__call__(*bound.args, **bound.kwargs)
            instance.__dict__["_init_arguments"] = arguments | told
            return instance


def _misfit(cls: Any, kwargs: Mapping[str, Any], error: TypeError) -> str:
    accepted = list(signature_of(cls).parameters)
    for name in kwargs:
        if name in accepted:
            continue
        if name in accepted_options(plugin_class(cls)):
            owners = [c.variant for c in variant_classes(plugin_class(cls)) if name in signature_of(c).parameters]
            return f"{cls.__name__}: {name} belongs to variant={' or variant='.join(map(repr, owners))}"
        return (
            f"{cls.__name__} has no option {name!r}{close_matches_hint(name, accepted) or '.'} "
            f"It takes: {', '.join(accepted)}"
        )
    return f"{cls.__name__}: {error}; it takes: {', '.join(accepted)}"


class Configured(metaclass=CheckedOptions):
    """What fusions, hosts, objectives and parts with variants share: checked options, a repr of them and of own weights.

    Class attributes: `variants`, what `variant=` accepts beside `"default"`, each with the subclass that it builds
    (`"module:Class"`), or where one class is all of them, their names, the default first; and of such a subclass `variant`,
    its name, `preset`, those options whose defaults differ, and `fixed`, those that it does not have and the values that
    stand for them; and `without_effect`, options that change no number unless another option asks for them, each with the
    reason, which the conformance suite would otherwise call dead.
    """

    variants: ClassVar[Mapping[str, str] | tuple[str, ...]] = ()
    variant: str = DEFAULT
    preset: ClassVar[Mapping[str, object]] = {}
    fixed: ClassVar[Mapping[str, object]] = {}
    without_effect: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def one_spelling(cls, arguments: Mapping[str, object]) -> dict[str, object]:
        """Those arguments that may be spelt in several ways, as constructors want them; none here."""
        return {}

    def extra_repr(self) -> str:
        """What it maps, the options that are not at their default (one left open shows what was chosen), own weights."""
        arguments = vars(self).get("_init_arguments", {})
        defaults = {p.name: p.default for p in inspect.signature(type(self)).parameters.values()}
        options = {}
        for name, given in arguments.items():
            chosen = vars(self).get(name)
            options[name] = given if chosen is None or not is_plain(chosen) else chosen
        shown = [
            f"{k}={v!r}"
            for k, v in options.items()
            if k not in _IN_HEAD and is_plain(v) and not (k in defaults and _alike(v, defaults[k]))
        ]
        try:
            head = self._head_of_repr()
        except AttributeError:  # debuggers and tracebacks show what a constructor has only begun
            head = "under construction"
        weights = [f"{k}: {tuple(p.shape)}" for k, p in self.named_parameters(recurse=False)]  # type: ignore[attr-defined]
        return "\n".join(filter(None, (", ".join(filter(None, (head, *shown))), ", ".join(weights))))

    def _head_of_repr(self) -> str:
        """What the first words of a repr are; nothing where the options say it all."""
        return ""


def _alike(one: Any, other: Any) -> bool:
    """Whether two plain values are equal; a list, which is what a file gives back, equals the tuple that was written."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_alike, one, other))
    return one == other


#: Arguments that the first words of a repr tell.
_IN_HEAD = {"dims", "out_dim", "num_classes", "num_speakers", "class_counts"}


def recorded_arguments(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The arguments of a constructor by name, without `self`, as plain values."""
    bound.apply_defaults()
    parameters = list(bound.signature.parameters.values())
    out: dict[str, Any] = {}
    for p in parameters:
        value = bound.arguments[p.name]
        if p.kind is p.VAR_KEYWORD:
            out |= {k: record(v) for k, v in value.items()}
        elif p.kind is not p.VAR_POSITIONAL:
            out[p.name] = record(value)
        elif value:
            out[p.name] = Unrecorded("positional arguments")
    return out


def plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of recorded arguments that a configuration can hold: plain values, tuples as lists, no infinity."""
    out = {}
    for name, value in arguments.items():
        with contextlib.suppress(ValueError):
            out[name] = plain(value, name, ValueError)
    return out


def options_in_force(model: Any, supplied: Iterable[str]) -> dict[str, Any]:
    """What an instance was built with, defaults included, without what its builder supplies."""
    arguments = vars(model).get("_init_arguments", {})
    return plain_arguments({k: v for k, v in arguments.items() if k not in set(supplied)})


def record(value: Any) -> Any:
    """An argument as it is written down: plain, or a stand-in that says what it was."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {k: record(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        plain = [record(v) for v in value]
        return tuple(plain) if type(value) is tuple else plain
    if isinstance(type(value), CheckedOptions) and "_init_arguments" in vars(value):
        return Built(type(value), vars(value)["_init_arguments"])
    return Unrecorded(type(value).__name__)


def check_choice(value: str, choices: Collection[str], option: str, owner: object) -> str:
    """`value` if it is one of `choices`, else `OptionError`."""
    if value not in choices:
        raise OptionError(
            f"{_owner_name(owner)}: {option}={value!r} is not one of {', '.join(map(repr, choices))}"
            f"{close_matches_hint(str(value), choices)}"
        )
    return value


def check_probability(value: float, option: str, owner: object) -> float:
    """`value` if it is a probability in [0, 1), else `OptionError`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise OptionError(f"{_owner_name(owner)}: {option} must be a number in [0, 1), not {value!r}")
    return float(value)


def check_positive(value: int, option: str, owner: object) -> int:
    """`value` if it is a positive integer, else `OptionError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{_owner_name(owner)}: {option} must be a positive integer, not {value!r}")
    return value


def _owner_name(owner: object) -> str:
    return owner.__name__ if isinstance(owner, type) else type(owner).__name__
