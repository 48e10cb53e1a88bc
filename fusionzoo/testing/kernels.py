"""What every pair of a plain and a fast kernel must show: the same values and gradients, and no state kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.kernels import Pair

#: Tolerance by precision, relative and absolute; gradients are measured by the largest of their tensor.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-4}
DTYPES = list(TOLERANCES)

#: `make(dtype)` gives the arguments of one call; the random numbers that it draws are the same for both forms.
Make = Callable[[torch.dtype], tuple[Any, ...]]


def tensors(value: Any) -> Iterator[Tensor]:
    """All floating-point tensors in arguments or results, those of modules included."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            yield from tensors(getattr(value, part.name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from tensors(part)


def run(form: Callable[..., Any], args: tuple[Any, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """The results of a call, and the gradients of all its arguments and weights."""
    results = list(tensors(form(*args)))
    generator = torch.Generator().manual_seed(7)
    loss = torch.zeros((), dtype=torch.float64)
    for x in results:
        loss = loss + (x * torch.randn(x.shape, generator=generator, dtype=torch.float64)).sum()
    leaves = [x for x in tensors(args) if x.requires_grad]
    grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [x.detach() for x in results], list(grads)


def compare(pair: Pair, make: Make, dtype: torch.dtype) -> None:
    """Raise an AssertionError unless both forms give the same, and the same again."""
    found = []
    for form in (pair.plain, pair.fast):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            args = make(dtype)
        found.append(run(form, args))
        for first, second in zip(found[-1], run(form, args), strict=True):
            for a, b in zip(first, second, strict=True):
                assert torch.equal(a, b), "a second call with the same arguments gives something else"
    assert found[0][0], "the kernel returned no tensor"
    tolerance = TOLERANCES[dtype]
    for plain, fast in zip(found[0], found[1], strict=True):
        assert len(plain) == len(fast)
        for a, b in zip(plain, fast, strict=True):
            assert a.isfinite().all()
            largest = max(1.0, float(a.abs().max()) if a.numel() else 0.0)
            torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance * largest)


def random(*shape: int, dtype: torch.dtype, grad: bool = True) -> Tensor:
    """A leaf tensor of normal numbers."""
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_(grad)


def around(pair: Pair, prepare: Callable[..., tuple[Any, ...]]) -> Pair:
    """The pair with arguments that `prepare` makes of those given, zeroed where something is missing for example."""
    return Pair(lambda *args: pair.plain(*prepare(*args)), lambda *args: pair.fast(*prepare(*args)))
