"""What the adapters of public repositories share: reading a call's arguments, saying what is real, known widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from fusionzoo.errors import ModalityError


def named(model: nn.Module, cls: str, *parts: str) -> bool:
    """Whether a model is of a class of this name and has these attributes."""
    return type(model).__name__ == cls and all(hasattr(model, p) for p in parts)


def given(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    """An argument of a call, by position or name; None where it was not given."""
    return kwargs[name] if name in kwargs else args[place] if len(args) > place else None


def mask_of(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> dict[str, Any]:
    """Context from an argument that holds a mask `(B, T)`, one where a step is real."""
    mask = given(args, kwargs, place, name)
    return {} if mask is None else {"mask": mask.bool()}


def lengths_of(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> dict[str, Any]:
    """Context from an argument that holds the dialogues' lengths."""
    lengths = given(args, kwargs, place, name)
    return {} if lengths is None else {"lengths": lengths}


def shares(total: int, known: Sequence[Mapping[str, int]], argument: str) -> dict[str, int]:
    """The widths of modalities that were joined before the model, told by their sum."""
    for widths in known:
        if sum(widths.values()) == total:
            return dict(widths)
    sums = "; ".join(f"{sum(w.values())} ({', '.join(f'{k} {v}' for k, v in w.items())})" for w in known)
    raise ModalityError(
        f"the model takes {total} features, which are not the known {sums}; say what they are: "
        f"site=fusionzoo.InputSite({argument!r}, widths={{modality: width, ...}}, layout=...)"
    )
