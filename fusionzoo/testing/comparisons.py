"""What checks share: comparisons that explain themselves, masks, copies, and the search for unregistered tensors."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.errors import FusionZooError
from fusionzoo.testing.runner import CheckFailure, describe_error, fail


def ragged(batch: int = 3, steps: int = 5) -> Tensor:
    """Bool `(batch, steps)`: the first row is full, the others end two steps earlier each, at least one step."""
    lengths = torch.tensor([max(1, steps - 2 * b) for b in range(batch)])
    return torch.arange(steps) < lengths.unsqueeze(1)


def close(actual: Tensor, expected: Tensor, what: str, fix: str, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Fail unless two tensors agree within tolerance; `what` ends the sentence "the output differs ..."."""
    if actual.shape != expected.shape:
        fail(f"the shape is {tuple(actual.shape)} instead of {tuple(expected.shape)} {what}", fix)
    a, b = actual.detach().double(), expected.detach().double()
    if torch.allclose(a, b, rtol=rtol, atol=atol):
        return
    broken = int((~a.isfinite() & b.isfinite()).sum())
    seen = f"{broken} values are NaN or infinite" if broken else f"it differs by up to {(a - b).abs().max():.3g}"
    fail(f"the output must not change {what}, but {seen}", fix)


def same(actual: Tensor, expected: Tensor, what: str, fix: str) -> None:
    """Fail unless two tensors are bit-identical (NaN equals NaN)."""
    close(actual, expected, what, fix, rtol=0.0, atol=0.0)


def finite(x: Tensor, what: str, fix: str) -> None:
    """Fail when a tensor holds NaN or infinity."""
    bad = int((~x.isfinite()).sum())
    if bad:
        fail(f"{what}: {bad} of {x.numel()} values are NaN or infinite", fix)


def refuses(call: Callable[[], Any], error: type[FusionZooError], what: str, naming: tuple[str, ...] = ()) -> None:
    """Fail unless `call` raises `error` with a message that has one of the words in `naming`."""
    try:
        call()
    except error as raised:
        if naming and not any(word in str(raised) for word in naming):
            fail(
                f"{what} raises {error.__name__}, but the message does not say {' or '.join(naming)}: {raised}",
                "name it",
            )
        return
    except Exception as raised:
        fail(
            f"{what} raises {describe_error(raised)}",
            f"raise fusionzoo.errors.{error.__name__}, as the base class does: do not replace its checks",
        )
    fail(
        f"{what} is accepted",
        f"raise fusionzoo.errors.{error.__name__}, as the base class does: do not replace its checks",
    )


# -- what is zero, and what is not ---------------------------------------------------------------------------------------


def counts(x: Tensor, scale: Tensor | float, dtype: torch.dtype | None = None) -> Tensor:
    """Bool like `x`: where it is more than rounding in a computation with numbers as large as `scale`; NaN is.

    The one judge of whether a gradient or a difference is zero. What is zero in exact arithmetic comes out as 0 on one
    processor and as a rounding error on another; in float64 the two lie ten orders of magnitude from the smallest gradient
    that any built-in fusion or host sends.

    dtype : in which `x` was computed, where that is less precise than its own.
    """
    limit = torch.finfo(dtype or x.dtype).eps ** 0.75 * torch.as_tensor(scale, dtype=torch.float64)
    return ~(x.detach().abs().double() <= limit)


def reached(
    gradients: Mapping[str, Tensor | None], scale: float | None = None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """By name, where a gradient counts as not zero beside the largest of them all, or beside `scale`."""
    there = {k: torch.zeros(()) if g is None else g for k, g in gradients.items()}
    if scale is None:
        scale = max((largest(g) for g in there.values()), default=0.0)
    return {k: counts(g, scale, dtype) for k, g in there.items()}


def largest(x: Tensor) -> float:
    """The largest finite size of an element; 0 without any."""
    x = x.detach().abs().double()
    return float(torch.where(x.isfinite(), x, 0.0).max()) if x.numel() else 0.0


def differs(a: Tensor, b: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether two results differ by more than rounding; results of other shapes do."""
    return a.shape != b.shape or bool(counts(a - b, max(largest(a), largest(b)), dtype).any())


def in_dtype(value: Any, dtype: torch.dtype | None, leaves: bool = False) -> Any:
    """A copy of tensors in containers and dataclasses, the floating ones in a dtype, and with `leaves` wanting gradients."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return value
        return value.detach().to(dtype or value.dtype).clone().requires_grad_(leaves)
    if isinstance(value, Mapping):
        return {k: in_dtype(v, dtype, leaves) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(in_dtype(v, dtype, leaves) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: in_dtype(getattr(value, f.name), dtype, leaves) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def precisely(subject: Any, call: Callable[[torch.dtype | None], Any]) -> Any:
    """`call(torch.float64)` where the subject computes in it, else `call(None)`, in the dtype that it is built with.

    A call that fails in float64 is made again as it is: `float64` is a rule of its own.
    """
    if subject.precision is torch.float64:
        try:
            return call(torch.float64)
        except CheckFailure:
            raise
        except Exception:
            pass
    return call(None)


def run(subject: Any, inputs: Any, seed: int = 0, **options: Any) -> Tensor:
    """The main output of a new instance, in float64 where it can."""

    def call(dtype: torch.dtype | None) -> Tensor:
        module = subject.make(seed, **options)
        return subject.run(module if dtype is None else module.to(dtype), in_dtype(inputs, dtype)).detach()

    return precisely(subject, call)


def sent_back(
    subject: Any, inputs: Any, seed: int = 0, *, loss: Any = None, leaves: bool = False, **options: Any
) -> tuple[Any, Any, Tensor]:
    """A new instance, the inputs and the loss of a call, after that was sent backward; in float64 where it can.

    leaves : let floating inputs want gradients.
    loss : `loss(module, inputs)`; default the subject's.
    """

    def call(dtype: torch.dtype | None) -> tuple[Any, Any, Tensor]:
        module = subject.make(seed, **options)
        module = module if dtype is None else module.to(dtype)
        given = in_dtype(inputs, dtype, leaves)
        value = (loss or subject.loss)(module, given)
        if value.requires_grad:
            value.backward()
        return module, given, value.detach()

    return precisely(subject, call)


def step_after_step(loss_of: Callable[[int], Tensor]) -> None:
    """Fail unless the losses of several training steps in a row can be sent backward, each by itself."""
    for step in range(4):
        loss = loss_of(step)
        if not loss.requires_grad:
            return
        try:
            loss.backward()
        except Exception as error:
            fail(
                f"the backward pass of training step {step + 1} raises {describe_error(error)}",
                "what is kept from step to step (a queue, a mean, a centre) is a detached buffer",
            )


def without_gradient(module: nn.Module) -> dict[str, str]:
    """Parameters whose gradient is zero in exact arithmetic, and why, as the parts of a module declare it."""
    found: dict[str, str] = {}
    for prefix, part in module.named_modules():
        declared: Mapping[str, str] = getattr(part, "without_gradient", None) or {}
        found |= {f"{prefix}.{name}".lstrip("."): why for name, why in declared.items()}
    return found


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    """Gradient of every parameter by name."""
    return {name: p.grad for name, p in module.named_parameters()}


def tensor_state(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of the state dict; what else it may hold is the business of one check, `state_dict_tensors`."""
    return {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}


def pickled(module: nn.Module) -> Any:
    """The module after a pickle round trip, or a failure that says why not."""
    try:
        return pickle.loads(pickle.dumps(module))
    except Exception as error:
        fail(
            f"it cannot be pickled: {describe_error(error)}",
            "use named module-level functions instead of lambdas and closures, and keep no open files or hooks",
        )


@contextlib.contextmanager
def random_state_untouched(what: str) -> Iterator[None]:
    """Fail when the global random state of torch, numpy or Python moved."""
    numpy = sys.modules.get("numpy")
    before = torch.get_rng_state(), random.getstate(), _numpy_state(numpy)
    yield
    after = torch.get_rng_state(), random.getstate(), _numpy_state(numpy)
    moved = [
        name for name, a, b in (("Python's random", before[1], after[1]), ("numpy's", before[2], after[2])) if a != b
    ]
    if not torch.equal(before[0], after[0]):
        moved.insert(0, "torch's")
    if moved:
        fail(
            f"{what} draws from {' and '.join(moved)} global random state",
            "draw random numbers in training mode only (F.dropout(x, p, self.training)), and in __init__",
        )


def _numpy_state(numpy: Any) -> Any:
    if numpy is None:
        return None
    name, keys, *rest = numpy.random.get_state()
    return (name, keys.tobytes(), *rest)


# -- registration of tensors ------------------------------------------------------------------------------------------

_OWN = frozenset(vars(nn.Module()))


def unregistered(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that the module holds outside its parameters and buffers: `(path, tensor)`, containers included.

    Modules in plain containers count too: none of their parameters is registered.
    """
    known = {id(t) for t in (*module.parameters(), *module.buffers())}
    seen: set[int] = set()
    for prefix, part in module.named_modules():
        for key, value in vars(part).items():
            if key not in _OWN:
                yield from _walk(value, f"{prefix}.{key}".lstrip("."), known, seen)


def _walk(value: Any, path: str, known: set[int], seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if id(value) not in known:
            yield path, value
        return
    if id(value) in seen or isinstance(value, (str, bytes, int, float, type(None), type)):
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        tensors = (*value.named_parameters(), *value.named_buffers())
        yield from ((f"{path}.{name}", tensor) for name, tensor in tensors if id(tensor) not in known)
        return
    for name, inside in _held(value):
        yield from _walk(inside, f"{path}{name}", known, seen)


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    """What a container or an object holds, by how it is written."""
    if isinstance(value, Mapping):
        yield from ((f"[{k!r}]", v) for k, v in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{i}]", v) for i, v in enumerate(value))
    elif hasattr(value, "__dict__") and not callable(value):
        yield from ((f".{k}", v) for k, v in vars(value).items())


def first_words(items: list[str], limit: int = 4) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")
