"""What checks share: comparisons that explain themselves, masks, copies, and the search for unregistered tensors."""

from __future__ import annotations

import contextlib
import pickle
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.errors import FusionZooError
from fusionzoo.testing._suite import describe_error, fail


def ragged(batch: int = 3, steps: int = 5) -> Tensor:
    """bool `(batch, steps)`: the first row is full, the others end two steps earlier each, at least one step."""
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
        for name, tensor in (*value.named_parameters(), *value.named_buffers()):
            if id(tensor) not in known:
                yield f"{path}.{name}", tensor
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from _walk(v, f"{path}[{k!r}]", known, seen)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for i, v in enumerate(value):
            yield from _walk(v, f"{path}[{i}]", known, seen)
    elif hasattr(value, "__dict__") and not callable(value):
        for k, v in vars(value).items():
            yield from _walk(v, f"{path}.{k}", known, seen)


def first_words(items: list[str], limit: int = 4) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")
