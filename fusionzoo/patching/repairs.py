"""What an official repository needs to run on current libraries, for one instance.

A repair watches torch's calls while the instance's forward runs, or hooks submodules of this instance. Neither the
repository's modules nor torch nor torch-geometric are changed, and other instances behave as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fusionzoo.patching.rewrite.override import change, entries


@dataclass(frozen=True)
class Repair:
    """One repair.

    Attributes
    ----------
    summary : str
        What is wrong without it, for people.
    operations : tuple of str
        Names of the torch operations concerned (`cuda`, `__getitem__`, ...).
    act : callable, optional
        `act(func, args, kwargs) -> result`, called in place of the operation.
    hooks : callable, optional
        `hooks(model)` registers hooks on those submodules that need one, and gives their handles.
    """

    summary: str
    operations: tuple[str, ...] = ()
    act: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] | None = field(default=None, compare=False)
    hooks: Callable[[nn.Module], Sequence[Any]] | None = field(default=None, compare=False)


def _cuda(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs) if torch.cuda.is_available() else args[0]


def _index(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    index = args[1]
    if (
        hasattr(index, "__array__")
        and not isinstance(index, Tensor)
        and getattr(index, "ndim", 0) == 2
        and len(index) <= args[0].dim()
    ):
        index = tuple(torch.as_tensor(i, device=args[0].device) for i in index)
    elif isinstance(index, list) and index and all(isinstance(i, (list, range)) for i in index):
        index = tuple(torch.as_tensor(list(i), device=args[0].device) for i in index)
    return func(args[0], index, *args[2:], **kwargs)


def _view(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        return args[0].reshape(*args[1:])


def _weightless(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args[:3]


def _drop_weights(model: nn.Module) -> list[Any]:
    found = [m for m in model.modules() if type(m).__name__ in ("RGCNConv", "FastRGCNConv")]
    return [m.register_forward_pre_hook(_weightless) for m in found if len(signature(m.forward).parameters) == 3]


def _reversed_size(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    edges, size, kwargs = inputs
    if module.flow != "target_to_source" or size is None:
        return None
    return edges, tuple(reversed(size)), kwargs


def _reverse_sizes(model: nn.Module) -> list[Any]:
    # Whose own code turns the flow round between two calls: the library's own convolution does not need it.
    found = [m for m in model.modules() if type(m).__name__ == "HypergraphConv" and is_foreign(m)]
    return [m.register_propagate_forward_pre_hook(_reversed_size) for m in found]  # type: ignore[operator]


def is_foreign(module: nn.Module) -> bool:
    """Whether a message-passing layer is the repository's own and not torch-geometric's."""
    return not type(module).__module__.startswith("torch_geometric") and hasattr(
        module, "register_propagate_forward_pre_hook"
    )


CUDA = Repair("hard-coded .cuda where there is no CUDA", ("cuda",), _cuda)
NUMPY_INDEX = Repair(
    "an array (2, n) as index means (rows, columns), as in torch before 2.0", ("__getitem__", "__setitem__"), _index
)
VIEW = Repair("view() of a tensor whose strides do not allow it any more", ("view",), _view)
EDGE_WEIGHTS = Repair(
    "edge weights handed to RGCNConv, which torch-geometric has not taken since 1.6: they are dropped",
    hooks=_drop_weights,
)
HYPERGRAPH_SIZE = Repair(
    "propagate(size=...) against the flow is (nodes, edges) since torch-geometric 1.7: turned round",
    hooks=_reverse_sizes,
)


class _Repairs(TorchFunctionMode):
    def __init__(self, repairs: Sequence[Repair]):
        super().__init__()
        self.by_op = {op: r for r in repairs for op in r.operations}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        repair = self.by_op.get(getattr(func, "__name__", ""))
        if repair is None or repair.act is None:
            return func(*args, **(kwargs or {}))
        return repair.act(func, tuple(args), kwargs or {})


def _watching(repairs: Sequence[Repair]) -> AbstractContextManager[Any]:
    watched = [r for r in repairs if r.operations]
    return _Repairs(watched) if watched else nullcontext()


@contextmanager
def in_force(model: nn.Module, repairs: Sequence[Repair]) -> Iterator[None]:
    """The repairs while a block runs; a model that is modernised already needs none."""
    if is_repaired(model):
        yield
        return
    handles = [h for r in repairs if r.hooks is not None for h in r.hooks(model)]
    try:
        with _watching(repairs):
            yield
    finally:
        for handle in handles:
            handle.remove()


def is_repaired(model: nn.Module) -> bool:
    """Whether `modernise` watches the model."""
    return any(isinstance(f, _Watch) for entry in entries(model) for f in entry.override.fallbacks)


@dataclass(frozen=True)
class _Watch:
    repairs: tuple[Repair, ...]
    name: str = "fusionzoo_modernise"

    def enter(self, owner: nn.Module) -> AbstractContextManager[Any]:
        """What watches while the owner runs."""
        del owner
        return _watching(self.repairs)


def repair(model: nn.Module, repairs: Sequence[Repair]) -> list[str]:
    """Put repairs in force for a model as long as it lives; what was changed, in words."""
    if not repairs or is_repaired(model):
        return []
    # A hook that no submodule needs is no change, and is not listed as one.
    needed = tuple(r for r in repairs if r.operations or (r.hooks is not None and r.hooks(model)))
    if needed:
        change(model, "forward", fallbacks=lambda old: (*old, _Watch(needed)))
    return [r.summary for r in needed]
