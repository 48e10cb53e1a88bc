"""What names the arguments of a call: the signature of a function, or of a model's forward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn


def bind(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> value of a call's arguments, in order."""
    try:
        signature = signature_of(function)
        bound = signature.bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {**{f"input{i}": a for i, a in enumerate(args)}, **kwargs}
    out: dict[str, Any] = {}
    for name, value in bound.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            out |= {f"{name}[{i}]": v for i, v in enumerate(value)}
        elif kind is inspect.Parameter.VAR_KEYWORD:
            out |= value
        else:
            out[name] = value
    return out


def _signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """As `inspect.signature`, which takes longer than a join; that of a function or method is kept while it lives."""
    bound = isinstance(function, MethodType)
    inner = function.__func__ if isinstance(function, MethodType) else function
    if not isinstance(inner, FunctionType):
        return inspect.signature(function)
    kept = _signatures.setdefault(inner, {})
    if bound not in kept:
        kept[bound] = inspect.signature(function)
    return kept[bound]


# A compiled program would be guarded by all that is kept, and fail when some of it dies.
signature_of: Callable[[Callable[..., Any]], inspect.Signature] = cast(Any, torch.compiler.disable)(_signature_of)


def forward_of(model: nn.Module, forward: Any = None) -> Callable[..., Any]:
    """What names the arguments of a model's call: its forward, or its class's where a wrapper stands there that takes anything."""
    given = model.forward if forward is None else forward
    own = MethodType(type(model).forward, model)
    if getattr(given, "__fz_base__", None) is own.__func__:
        return own
    try:
        kinds = [p.kind for p in signature_of(given).parameters.values()]
    except (TypeError, ValueError):
        return given
    anything = kinds == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]
    return own if anything and own.__func__ is not nn.Module.forward else given


_signatures: WeakKeyDictionary[FunctionType, dict[bool, inspect.Signature]] = WeakKeyDictionary()
