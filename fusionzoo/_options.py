"""Constructors that answer a wrong option with a sentence instead of a TypeError."""

from __future__ import annotations

import inspect
from typing import Any

from fusionzoo.errors import OptionError, close_matches_hint


def accepted_options(cls: type) -> list[str]:
    """Names of the keyword arguments that a class's constructor takes."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


class CheckedOptions(type):
    """Metaclass of fusions, hosts and objectives: an unknown or missing argument raises `OptionError` with a hint."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        try:
            signature.bind(None, *args, **kwargs)
        except TypeError as error:
            accepted = accepted_options(cls)
            unknown = [k for k in kwargs if k not in accepted]
            if unknown:
                raise OptionError(
                    f"{cls.__name__} has no option {unknown[0]!r}{close_matches_hint(unknown[0], accepted)} "
                    f"It takes: {', '.join(accepted)}"
                ) from None
            raise OptionError(f"{cls.__name__}: {error}; it takes: {', '.join(accepted)}") from None
        return super().__call__(*args, **kwargs)


def check_choice(value: str, choices: tuple[str, ...], option: str, owner: object) -> str:
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
