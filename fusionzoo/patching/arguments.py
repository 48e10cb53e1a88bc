"""Reading and replacing one argument of a call, by its name, its number, or a path into it: `x`, `0`, `data['text']`, `x[0]`."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from fusionzoo.errors import PatchError, close_matches_hint
from fusionzoo.patching.signatures import bind, signature_of

Steps = list[tuple[str, Any]]


def parse_path(path: str) -> tuple[str, Steps]:
    """`"batch['t'].x"` is `("batch", [("item", "t"), ("attribute", "x")])`."""
    wrong = PatchError(f"{path!r} is no argument's name, number or path, such as 'x', 0, 'x[0]' or \"batch['text']\"")
    head = re.match(r"\w+", path)
    if head is None:
        raise wrong
    rest, steps = path[head.end() :], []
    while rest:
        if (m := re.match(r"\.(\w+)", rest)) is not None:
            steps.append(("attribute", m.group(1)))
        elif (m := re.match(r"\[([^\]]+)\]", rest)) is not None:
            try:
                steps.append(("item", ast.literal_eval(m.group(1))))
            except (ValueError, SyntaxError):
                raise wrong from None
        else:
            raise wrong
        rest = rest[m.end() :]
    return head.group(), steps


def check_argument(function: Callable[..., Any], path: str, who: str) -> None:
    """Refuse a path whose argument no call of a function can have."""
    name, _ = parse_path(path)
    try:
        parameters = signature_of(function).parameters
    except (TypeError, ValueError):
        return
    kinds = {p.kind for p in parameters.values()}
    named = [n for n, p in parameters.items() if p.kind not in _STARS]
    if name.isdigit():
        if int(name) >= len(named) and inspect.Parameter.VAR_POSITIONAL not in kinds:
            raise PatchError(
                f"{who} has no argument {name}: it takes {len(named)} ({', '.join(named)}), counted from 0"
            )
    elif name not in parameters and inspect.Parameter.VAR_KEYWORD not in kinds and not re.fullmatch(r"input\d+", name):
        raise PatchError(
            f"{who} has no argument {name!r}{close_matches_hint(name, named)}; it takes: {', '.join(named) or 'none'}"
        )


_STARS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def get_argument(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], path: str) -> Any:
    """The value at a path of a call's arguments."""
    where, key, steps = _place(function, args, kwargs, path)
    value = where[key]
    for i, step in enumerate(steps):
        value = _step(value, step, path, steps[:i])
    return value


def set_argument(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], path: str, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call's arguments with another value at a path; the caller's containers are left as they are."""
    where, key, steps = _place(function, args, kwargs, path)
    new = _replaced(where[key], steps, value)
    if where is kwargs:
        return args, {**kwargs, key: new}
    return (*args[:key], new, *args[key + 1 :]), kwargs


def _place(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], path: str
) -> tuple[Any, Any, Steps]:
    """Where an argument stands in a call: `args` or `kwargs`, the key there, and the path that is left inside it."""
    if path in kwargs:
        return kwargs, path, []
    name, steps = parse_path(path)
    try:
        parameters = list(signature_of(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters]
    if name.isdigit():
        if int(name) < len(args):
            return args, int(name), steps
        if int(name) < len(names) and parameters[int(name)].kind not in _STARS:
            name = names[int(name)]
    if name in kwargs:
        return kwargs, name, steps
    if name in names:
        place = names.index(name)
        if parameters[place].kind is inspect.Parameter.VAR_POSITIONAL and steps:
            place, steps = place + steps[0][1], steps[1:]
        if place < len(args):
            return args, place, steps
    elif (m := re.fullmatch(r"input(\d+)", name)) is not None and int(m.group(1)) < len(args):
        return args, int(m.group(1)), steps
    given = bind(function, args, kwargs)
    raise PatchError(
        f"this call of the model has no argument {name if name.isdigit() else repr(name)}{close_matches_hint(name, given)}; "
        f"it has {len(given)}: {', '.join(given) or 'none'}"
    )


def _step(value: Any, step: tuple[str, Any], path: str, before: Steps) -> Any:
    kind, key = step
    try:
        return getattr(value, key) if kind == "attribute" else value[key]
    except (AttributeError, LookupError, TypeError):
        if isinstance(value, Mapping):
            holds = f"a {type(value).__name__} with {', '.join(map(repr, value))}"
        elif isinstance(value, (list, tuple)):
            holds = f"a {type(value).__name__} of {len(value)}"
        else:
            holds = f"a {type(value).__name__}"
        what = f"attribute {key!r}" if kind == "attribute" else f"item {key!r}"
        inside = "".join(f".{k}" if how == "attribute" else f"[{k!r}]" for how, k in before)
        raise PatchError(
            f"{path!r} does not fit this call: there is no {what} in {parse_path(path)[0]}{inside}, which is {holds}"
        ) from None


def _replaced(container: Any, steps: Steps, value: Any) -> Any:
    """A copy of a container with another value at a path."""
    if not steps:
        return value
    (kind, key), rest = steps[0], steps[1:]
    new = _replaced(getattr(container, key) if kind == "attribute" else container[key], rest, value)
    if isinstance(container, tuple):
        place = container._fields.index(key) if kind == "attribute" else key % len(container)  # type: ignore[attr-defined]
        items = [new if i == place else v for i, v in enumerate(container)]
        return type(container)(*items) if hasattr(container, "_fields") else tuple(items)
    twin = copy.copy(container)
    if kind == "item":
        twin[key] = new
    elif dataclasses.is_dataclass(container):
        object.__setattr__(twin, key, new)  # a frozen one too
    else:
        setattr(twin, key, new)
    return twin
