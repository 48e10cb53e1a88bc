"""What a model is called with, read from what a caller has at hand: a tuple, a dict, a batch object, one tensor.

`forward`'s signature decides: whether a dict holds keyword arguments or is the argument, whether a list is the arguments or one
of them. Where several readings would be accepted, the first one that is documented goes first, and the others are tried if it
fails.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fusionzoo.errors import FusionZooError, PatchError, close_matches_hint
from fusionzoo.patching.signatures import forward_of, signature_of

T = TypeVar("T")


class Call:
    """What a model is called with, written as the call is: `Call(text, audio, mask=mask)`.

    `find_sites` and `patch` take one where a batch in another form could be meant in several ways.

    Attributes
    ----------
    args : tuple
        The positional arguments.
    kwargs : dict
        The keyword arguments.
    """

    def __init__(self, /, *args: Any, **kwargs: Any):
        self.args, self.kwargs = args, kwargs

    def __repr__(self) -> str:
        return (
            f"Call({', '.join([*map(describe, self.args), *(f'{k}={describe(v)}' for k, v in self.kwargs.items())])})"
        )

    def of(self, function: Callable[..., T]) -> T:
        """Call a function with the arguments."""
        return function(*self.args, **self.kwargs)

    def fresh(self) -> Call:
        """The call with containers and tensors copied, so that a host which writes into them leaves the caller's alone."""
        memo: dict[int, Any] = {}
        return Call(*_fresh(self.args, memo), **_fresh(self.kwargs, memo))


def readings(model: nn.Module, inputs: Any) -> list[tuple[str, Call]]:
    """The calls that `inputs=` may mean and that the model's forward accepts, in words and as arguments; never none."""
    if inputs is None or isinstance(inputs, (str, bytes, int, float, complex, torch.dtype, torch.device, type)):
        raise PatchError(
            f"inputs= is what the model is called with: a tuple of arguments, a pair (args, kwargs), a dict, or one batch object; "
            f"not {type(inputs).__name__}"
        )
    known = _readings(model, inputs)
    fitting = [(words, call) for words, call in known if misfit(model, call) is None]
    if fitting:
        return fitting
    tried = "; ".join(f"as {words}: {misfit(model, call)}" for words, call in known)
    raise PatchError(
        f"inputs= ({describe(inputs)}) does not fit {shown(model)}: {tried}. Give a tuple of arguments, "
        "or (args, kwargs) with a tuple and a dict; one argument alone is inputs=(batch,)"
    )


def _readings(model: nn.Module, inputs: Any) -> list[tuple[str, Call]]:
    one: tuple[str, Call] = ("one argument", Call(inputs))
    if isinstance(inputs, Call):
        return [("the call", inputs)]
    if isinstance(inputs, Mapping):
        if all(isinstance(k, str) for k in inputs):
            return [("keyword arguments", Call(**inputs)), one]
        return [one]
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        spread: tuple[str, Call] = (f"{len(inputs)} arguments", Call(*inputs))
        named = set(inputs._fields) <= set(_parameters(model))  # type: ignore[attr-defined]
        return [spread, one] if named else [one, spread]
    if isinstance(inputs, (tuple, list)):
        out: list[tuple[str, Call]] = [(f"{len(inputs)} arguments", Call(*inputs)), one]
        pair = len(inputs) == 2 and isinstance(inputs[0], (tuple, list)) and isinstance(inputs[1], Mapping)
        if pair and all(isinstance(k, str) for k in inputs[1]):
            out.insert(0, ("(args, kwargs)", Call(*inputs[0], **inputs[1])))
        return out
    return [one]


def attempt(model: nn.Module, inputs: Any, function: Callable[[Call], T]) -> T:
    """What a function of a call gives for the first reading with which it does not fail; else the first one's error."""
    found = readings(model, inputs)
    first: Exception | None = None
    for _, call in found:
        try:
            return function(call)
        # A wrong reading shows in whatever the host's own code raises at it, and in our own refusals: no narrower class has all
        # of them. Nothing is hidden: where no reading holds, what the first one raised is raised.
        except Exception as error:
            first = first or error
    assert first is not None
    if len(found) > 1:
        first.add_note(
            f"inputs= was read as {', then as '.join(words for words, _ in found)}; say which with "
            "inputs=(args, kwargs), a tuple and a dict, or inputs=fusionzoo.patching.Call(...)"
        )
    raise first


def misfit(model: nn.Module, call: Call) -> str | None:
    """Why forward's signature does not accept a call; None where it does or cannot be told."""
    signature = _signature(model)
    if signature is None:
        return None
    known, kinds = signature.parameters, {p.kind for p in signature.parameters.values()}
    strange = [k for k in call.kwargs if k not in known]
    if strange and inspect.Parameter.VAR_KEYWORD not in kinds:
        return f"got an unexpected keyword argument {strange[0]!r}{close_matches_hint(strange[0], list(known))}"
    try:
        signature.bind(*call.args, **call.kwargs)
    except TypeError as error:
        return str(error)
    return None


def explained(model: nn.Module, call: Call, function: Callable[[], T]) -> T:
    """Run a function that calls a model; arguments that do not fit its forward are said in words.

    What the model itself raises comes out as it is, with its traceback: it is the model's author who can read it.
    """
    try:
        return function()
    except FusionZooError:
        raise
    except Exception as error:
        why = misfit(model, call) if isinstance(error, TypeError) else None
        if why is not None:
            raise PatchError(f"{shown(model)} was called with {str(call).removeprefix('Call')}: {why}") from error
        error.add_note(f"raised while {type(model).__name__} was run with {str(call).removeprefix('Call')}")
        raise


def _fresh(value: Any, memo: dict[int, Any]) -> Any:
    """Containers and tensors of a call copied, so that a host which writes into them leaves the caller's alone."""
    if isinstance(value, Tensor):
        if id(value) not in memo:
            memo[id(value)] = value.detach().clone().requires_grad_(value.requires_grad)
        return memo[id(value)]
    if type(value) in (list, tuple):
        return type(value)(_fresh(v, memo) for v in value)
    if type(value) is dict:
        return {k: _fresh(v, memo) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_fresh(v, memo) for v in value))
    if hasattr(value, "__dict__") and not callable(value) and not isinstance(value, (nn.Module, type)):
        try:
            return copy.deepcopy(value)
        except Exception:  # somebody's class may refuse in any way to be copied; then it is given as the caller would
            return value
    return value


def shown(model: nn.Module) -> str:
    """`Net.forward(text, audio)`, for messages."""
    return f"{type(model).__name__}.forward({', '.join(_parameters(model))})"


def describe(value: Any) -> str:
    """A value in a word or two, for messages."""
    if isinstance(value, torch.Tensor):
        return f"tensor {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with {', '.join(map(str, list(value)[:8]))}{', ...' if len(value) > 8 else ''}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def _signature(model: nn.Module) -> inspect.Signature | None:
    try:
        return signature_of(forward_of(model))
    except (TypeError, ValueError):
        return None


def _parameters(model: nn.Module) -> list[str]:
    signature = _signature(model)
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return ["..."] if signature is None else [stars.get(p.kind, "") + p.name for p in signature.parameters.values()]
