"""Recurrences over time that torch's tools take with any number of steps.

The plain form is a Python loop over time, and is what runs in eager mode. Under `torch.compile` and `torch.jit.trace` it
would be unrolled, one program for each length; there the whole recurrence is one operator, `fusionzoo::scan`, with its
gradient. `torch.export` writes a `torch.while_loop`, which stands in the program itself, so that it runs without
fusionzoo and as ONNX. Nothing is faster for it: this pair is for programs that take any number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fusionzoo.errors import OptionError
from fusionzoo.kernels import fast_form

#: `step(carry, inputs, constants) -> carry`: states `(B, h)` from states, one `(B, ...)` of each input, and the constants.
Step = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]

_STEPS: dict[str, Step] = {}


def recurrent(name: str) -> Callable[[Step], Step]:
    """Decorator of a step, a pure function of its tensors; `scan` and traced programs know it by its name."""

    def register(step: Step) -> Step:
        _STEPS[name] = step
        return step

    return register


def plain_scan(
    step: str, carry: Sequence[Tensor], xs: Sequence[Tensor], constants: Sequence[Tensor] = ()
) -> Sequence[Tensor]:
    """One step after another."""
    return _loop(_known(step), carry, xs, constants)


def _loop(step: Step, carry: Sequence[Tensor], xs: Sequence[Tensor], constants: Sequence[Tensor]) -> tuple[Tensor, ...]:
    out = []
    for t in range(xs[0].shape[1]):
        carry = step(carry, [x[:, t] for x in xs], constants)
        out.append(carry)
    return tuple(torch.stack(states, 1) for states in zip(*out, strict=True))


def _known(step: str) -> Step:
    if step not in _STEPS:
        raise OptionError(f"no recurrence is called {step!r} here; import the fusion that this program was traced from")
    return _STEPS[step]


@fast_form(plain_scan)
def scan(
    step: str, carry: Sequence[Tensor], xs: Sequence[Tensor], constants: Sequence[Tensor] = ()
) -> Sequence[Tensor]:
    """The carry after every step, `(B, T, h)` each.

    Parameters
    ----------
    step : the name of a function decorated with `recurrent`.
    carry : states before the first step, `(B, h)` each.
    xs : what a step reads of its own time, `(B, T, ...)` each.
    constants : what every step reads, weights for example.
    """
    if torch.compiler.is_compiling():
        if _exporting() and hasattr(torch, "while_loop"):
            return _while(_STEPS[step], carry, xs, constants)
        return operator(step, list(carry), list(xs), list(constants))
    if torch.jit.is_tracing():
        return operator(step, list(carry), list(xs), list(constants))
    return plain_scan(step, carry, xs, constants)


def _exporting() -> bool:
    # torch 2.6 does not tell export from compile.
    known = getattr(torch.compiler, "is_exporting", None)
    return known is not None and known()


def _while(
    step: Step, carry: Sequence[Tensor], xs: Sequence[Tensor], constants: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    count, steps = len(carry), xs[0].shape[1]
    places = torch.arange(steps, device=xs[0].device).view(1, -1, 1)
    kept = [c.unsqueeze(1).expand(-1, steps, -1).clone() for c in carry]

    def going_on(t: Tensor, *state: Tensor) -> Tensor:
        return t < steps

    def body(t: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        now = [x.index_select(1, t.view(1)).squeeze(1) for x in xs]
        new = [n.to(c.dtype) for n, c in zip(step(state[:count], now, constants), state, strict=False)]
        rows = [torch.where(places == t, n.unsqueeze(1), k) for n, k in zip(new, state[count:], strict=True)]
        return (t + 1, *new, *rows)

    first = torch.zeros((), dtype=torch.int64, device=xs[0].device)
    return tuple(torch.while_loop(going_on, body, (first, *carry, *kept))[1 + count :])


# -- the operator ------------------------------------------------------------------------------------------------------


@torch.library.custom_op(
    "fusionzoo::scan",
    mutates_args=(),
    schema="(str step, Tensor[] carry, Tensor[] xs, Tensor[] constants) -> Tensor[]",
)
def operator(step: str, carry: list[Tensor], xs: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
    """`scan` as one operator of torch, with a gradient of its own."""
    return [x.to(c.dtype) for x, c in zip(_loop(_known(step), carry, xs, constants), carry, strict=True)]


@operator.register_fake
def _(step: str, carry: list[Tensor], xs: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
    return [c.new_empty(c.shape[0], xs[0].shape[1], c.shape[1]) for c in carry]


@torch.library.custom_op(
    "fusionzoo::scan_backward",
    mutates_args=(),
    schema="(str step, Tensor[] carry, Tensor[] xs, Tensor[] constants, Tensor[] gradients) -> Tensor[]",
)
def _scan_backward(
    step: str, carry: list[Tensor], xs: list[Tensor], constants: list[Tensor], gradients: list[Tensor]
) -> list[Tensor]:
    given = [*carry, *xs, *constants]
    floats = [x for x in given if x.is_floating_point()]

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        left = iter(values)
        merged = [next(left) if x.is_floating_point() else x for x in given]
        a, b = len(carry), len(carry) + len(xs)
        out = _loop(_known(step), merged[:a], merged[a:b], merged[b:])
        return tuple(x.to(g.dtype) for x, g in zip(out, gradients, strict=True))

    pull: Any = torch.func.vjp(run, *floats)[1]
    return [g.contiguous().clone() for g in pull(tuple(gradients))]


@_scan_backward.register_fake
def _(
    step: str, carry: list[Tensor], xs: list[Tensor], constants: list[Tensor], gradients: list[Tensor]
) -> list[Tensor]:
    return [
        torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in [*carry, *xs, *constants] if x.is_floating_point()
    ]


def _save(ctx, inputs, output) -> None:
    ctx.step, carry, xs, constants = inputs
    ctx.sizes = len(carry), len(xs), len(constants)
    ctx.save_for_backward(*carry, *xs, *constants)


def _backward(ctx, gradients):
    given = list(ctx.saved_tensors)
    a, b = ctx.sizes[0], ctx.sizes[0] + ctx.sizes[1]
    found = iter(_scan_backward(ctx.step, given[:a], given[a:b], given[b:], list(gradients)))
    every = [next(found) if x.is_floating_point() else None for x in given]
    return None, every[:a], every[a:b], every[b:]


operator.register_autograd(_backward, setup_context=_save)
