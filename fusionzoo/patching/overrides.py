"""What stands in an instance's `__dict__` for one of its methods, and the calls that are running."""

from __future__ import annotations

import copy
import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import CodeType, FunctionType
from typing import Any

from torch import Tensor, nn

from fusionzoo.errors import HostChangedError
from fusionzoo.patching import frames as F
from fusionzoo.patching.frames import Step
from fusionzoo.patching.install import MISSING, Node, Route, Swap, closed_over

_running = threading.local()


def running_call(token: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any], dict[str, Any]] | None:
    """Model, arguments and scratch space of the innermost running forward that a patch watches."""
    for tokens, *call in reversed(getattr(_running, "calls", [])):
        if token in tokens:
            return tuple(call)  # type: ignore[return-value]
    return None


def keep_operands(token: str, index: int, operands: list[Tensor]) -> None:
    """Put by what an expression joined, for a later one in the same function and thread."""
    _running.__dict__.setdefault("kept", {}).setdefault(token, {})[index] = operands


def kept_operands(token: str) -> dict[int, list[Tensor]]:
    """Take what was put by."""
    return _running.__dict__.get("kept", {}).pop(token, {})


class Override:
    """Stands in an instance's `__dict__` for one of its methods, rewritten or watched."""

    def __init__(
        self,
        owner: nn.Module,
        name: str,
        routes: Sequence[Route] = (),
        tokens: Sequence[str] = (),
        inputs: Sequence[str] = (),
        fallbacks: Sequence[Any] = (),
        original: Any = MISSING,
    ):
        self.owner, self.name = owner, name
        self.routes, self.tokens, self.inputs = tuple(routes), tuple(tokens), tuple(inputs)
        self.fallbacks = tuple(fallbacks)
        self.original = original
        self._function: Callable[..., Any] | None = None

    @property
    def __fz_base__(self) -> Any:
        """What the instance would call without the patch."""
        if not isinstance(self.original, str):
            return self.original
        for cls in type(self.owner).__mro__:
            if self.name in vars(cls):
                return vars(cls)[self.name]
        raise AttributeError(self.name)

    @property
    def __name__(self) -> str:
        return getattr(self.__fz_base__, "__name__", self.name)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return getattr(self.__fz_base__, "__doc__", None)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._bound())

    @property
    def __code__(self) -> CodeType:
        return self._bound().__code__

    def _bound(self) -> Any:
        base = self.__fz_base__
        return base.__get__(self.owner, type(self.owner)) if isinstance(self.original, str) else base

    def build(self) -> Callable[..., Any]:
        """What runs instead of the method."""
        function = self._function
        if function is None:
            function = self._function = self._rewritten() if self.routes else self._bound()
        return function

    def _rewritten(self) -> Callable[..., Any]:
        node = Node()
        for route in self.routes:
            node.add(route)
        assert node.step is not None
        step = node.step
        swap = Swap(self.owner, step, node)
        new = swap.value(self._bound())
        if new is None:
            raise HostChangedError(
                f"{type(self.owner).__name__}.{self.name} is not {step.qualname} of {step.file} any more, in which the site is"
            )
        return new

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function = self._function
        if function is None:
            function = self.build()
        if not (self.tokens or self.inputs or self.fallbacks):
            return function(*args, **kwargs)
        return self._watched(function, args, kwargs)

    def _watched(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls = _running.__dict__.setdefault("calls", [])
        calls.append((self.tokens, self.owner, args, kwargs, {}))
        try:
            for name in self.inputs:
                layer = self.owner.get_submodule(name)
                args, kwargs = layer.fuse_input(self._bound(), args, kwargs)  # type: ignore[operator]
            with ExitStack() as stack:
                for watch in self.fallbacks:
                    stack.enter_context(watch.enter(self.owner))
                return function(*args, **kwargs)
        finally:
            calls.pop()

    def __reduce__(self) -> Any:
        values = (self.owner, self.name, self.routes, self.tokens, self.inputs, self.fallbacks, self.original)
        return type(self), (self.owner, self.name), dict(zip(_STATE, values, strict=True))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _function=None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Override:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        for k in _STATE:
            v = getattr(self, k)
            new.__dict__[k] = copy.deepcopy(v, memo) if k in ("owner", "original") else v
        new.__dict__["_function"] = None
        return new


_STATE = ("owner", "name", "routes", "tokens", "inputs", "fallbacks", "original")


def methods(owner: nn.Module, step: Step) -> list[str]:
    """Attributes of a module that run the function of a step when called."""
    probe = Swap(owner, step, Node())
    out = []
    for name, value in F.attributes(owner):
        if isinstance(value, Override):
            value = value.__fz_base__
        function = getattr(value, "__func__", value)
        if isinstance(function, (FunctionType, functools.partial)) and (
            probe._is(function)
            or (isinstance(function, FunctionType) and any(probe._is(f) for f in closed_over(function)))
        ):
            out.append(name)
    return out


def change(owner: nn.Module, name: str, **parts: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> None:
    """Change an instance's override of one method (routes, tokens, inputs, fallbacks); one that does nothing goes."""
    current = owner.__dict__.get(name, MISSING)
    if isinstance(current, Override):
        values = {k: getattr(current, k) for k in _STATE[2:]}
    else:
        values = {"routes": (), "tokens": (), "inputs": (), "fallbacks": (), "original": current}
    for key, function in parts.items():
        values[key] = tuple(function(values[key]))
    if any(values[k] for k in ("routes", "tokens", "inputs", "fallbacks")):
        new = Override(owner, name, **values)
        new.build()
        owner.__dict__[name] = new
    elif isinstance(values["original"], str):
        owner.__dict__.pop(name, None)
    else:
        owner.__dict__[name] = values["original"]
