"""Reading and replacing one argument of a call, by its name or by a path into it such as `data['text']` or `x[0]`."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable
from typing import Any

from fusionzoo.errors import PatchError, close_matches_hint
from fusionzoo.patching.names import bind, signature_of


def parse_path(path: str) -> tuple[str, list[tuple[str, Any]]]:
    """`"batch['t'].x"` is `("batch", [("item", "t"), ("attribute", "x")])`."""
    head = re.match(r"\w+", path)
    if head is None:
        raise PatchError(f"{path!r} is no argument's name or path, such as 'x', 'x[0]' or \"batch['text']\"")
    rest, steps = path[head.end() :], []
    while rest:
        if (m := re.match(r"\.(\w+)", rest)) is not None:
            steps.append(("attribute", m.group(1)))
        elif (m := re.match(r"\[([^\]]+)\]", rest)) is not None:
            steps.append(("item", ast.literal_eval(m.group(1))))
        else:
            raise PatchError(f"{path!r} is no argument's name or path, such as 'x', 'x[0]' or \"batch['text']\"")
        rest = rest[m.end() :]
    return head.group(), steps


def get_argument(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], path: str) -> Any:
    """The value at a path of a call's arguments."""
    arguments = bind(function, args, kwargs)
    if path.isdigit():  # by position
        return args[int(path)] if int(path) < len(args) else list(arguments.values())[int(path)]
    if path in arguments:
        return arguments[path]
    name, steps = parse_path(path)
    if name not in arguments:
        raise PatchError(
            f"the model has no argument {name!r}{close_matches_hint(name, arguments)}; this call has: {', '.join(arguments)}"
        )
    value = arguments[name]
    for kind, key in steps:
        value = getattr(value, key) if kind == "attribute" else value[key]
    return value


def set_argument(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], path: str, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call's arguments with another value at a path; the caller's containers are left as they are."""
    if path.isdigit():
        place = int(path)
        if place < len(args):
            return (*args[:place], value, *args[place + 1 :]), kwargs
        path = list(bind(function, args, kwargs))[place]
    name, steps = (path, []) if path in kwargs else parse_path(path)
    try:
        names = list(signature_of(function).parameters)
    except (TypeError, ValueError):
        names = []
    current: Any = None
    if name in kwargs:
        current = kwargs[name]
    elif name in names and names.index(name) < len(args):
        current = args[names.index(name)]
    elif name in names and steps:  # *args
        current, steps = args[names.index(name) + steps[0][1]], steps[1:]
    elif (m := re.fullmatch(r"input(\d+)", name)) is not None:
        current = args[int(m.group(1))]
    new = _replaced(current, steps, value)
    if name in kwargs:
        return args, {**kwargs, name: new}
    return tuple(new if a is current else a for a in args), kwargs


def _replaced(container: Any, steps: list[tuple[str, Any]], value: Any) -> Any:
    if not steps:
        return value
    (kind, key), rest = steps[0], steps[1:]
    twin = copy.copy(container)
    if kind == "attribute":
        setattr(twin, key, _replaced(getattr(container, key), rest, value))
    elif isinstance(container, tuple):
        items = [_replaced(v, rest, value) if i == key else v for i, v in enumerate(container)]
        twin = type(container)(*items) if hasattr(container, "_fields") else tuple(items)
    else:
        twin[key] = _replaced(container[key], rest, value)
    return twin
