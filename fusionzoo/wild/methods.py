"""Models that a script trains without calling them: `model.get_loss(batch)`, `model.forward(batch)`.

What stands for such a method on the instance turns the call into a call of the module, so that everything that acts on calls
(hooks, patches) acts on it; what runs in the end is the method, as the class has it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn


def trained_through(
    module: nn.Module, share: Callable[[nn.Module], float], least: float
) -> tuple[nn.Module, str] | None:
    """The module in one of whose methods a call of a part of it stands, and the method; None where there is none.

    Parameters
    ----------
    module : the part that is about to be called.
    share : how much of what an optimizer holds is a module's.
    least : the module found has a larger share than this.
    """
    found, frame = None, inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(first, nn.Module) and first is not module and _is_method(first, code.co_name, code):
            larger = share(first)
            if larger > least:
                least, found = larger, (first, code.co_name)
            elif found is not None and first is found[0]:
                found = first, code.co_name  # the method that the script calls, not one of which that makes use
        frame = frame.f_back
    return found


def _is_method(module: nn.Module, name: str, code: Any) -> bool:
    function = inspect.getattr_static(type(module), name, None)
    return getattr(function, "__code__", None) is code and function is not inspect.getattr_static(nn.Module, name, None)


def turn_into_calls(module: nn.Module, name: str) -> None:
    """From now on, a method of this instance is run by calling the instance."""
    if name == "forward":
        module.__dict__["forward"] = _Once(module)
        return
    forward = _Forward(module)
    module.__dict__["forward"] = forward
    module.__dict__[name] = _Method(module, name, forward)


class _Once:
    """Stands for `forward` until it is called: what stands there after that is a patch's business."""

    def __init__(self, owner: nn.Module):
        self.owner = owner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.owner.__dict__.pop("forward", None)
        return self.owner(*args, **kwargs)


class _Forward:
    """Stands for `forward`: runs the method by which the module is being called, else the class's."""

    def __init__(self, owner: nn.Module):
        self.owner = owner
        self.through: str | None = None

    def _function(self) -> Callable[..., Any]:
        return getattr(type(self.owner), self.through or "forward")

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self._function())
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function, through = self._function(), self.through
        self.through = None  # the method may call the module itself
        try:
            return function(self.owner, *args, **kwargs)
        finally:
            self.through = through


class _Method:
    """Stands for a method, and calls the module instead."""

    def __init__(self, owner: nn.Module, name: str, forward: _Forward):
        self.owner, self.name, self.forward = owner, name, forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.forward.through = self.name
        try:
            return self.owner(*args, **kwargs)
        finally:
            self.forward.through = None
