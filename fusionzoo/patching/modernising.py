"""`modernise`: what an official repository needs to run on current libraries, for one instance.

A repair watches torch's calls while the instance's forward runs. Neither the repository's modules nor torch are changed, and
other instances behave as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fusionzoo.errors import NoSiteError
from fusionzoo.patching import overrides
from fusionzoo.patching.propagation import name_of


@dataclass(frozen=True)
class Repair:
    """One repair.

    summary : what is wrong without it, for people.
    operations : names of the torch operations concerned (`cuda`, `__getitem__`, ...).
    act : `act(func, args, kwargs) -> result`, called in place of the operation.
    """

    summary: str
    operations: tuple[str, ...]
    act: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] = field(compare=False)


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


CUDA = Repair("hard-coded .cuda where there is no CUDA", ("cuda",), _cuda)
NUMPY_INDEX = Repair(
    "an array (2, n) as index means (rows, columns), as in torch before 2.0", ("__getitem__", "__setitem__"), _index
)
VIEW = Repair("view() of a tensor whose strides do not allow it any more", ("view",), _view)
COMMON = (CUDA, NUMPY_INDEX, VIEW)


class _Repairs(TorchFunctionMode):
    def __init__(self, repairs: Sequence[Repair]):
        super().__init__()
        self.by_op = {op: r for r in repairs for op in r.operations}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        repair = self.by_op.get(name_of(func))
        return func(*args, **(kwargs or {})) if repair is None else repair.act(func, tuple(args), kwargs or {})


def in_force(repairs: Sequence[Repair]) -> AbstractContextManager[Any]:
    """The repairs while a block runs."""
    return _Repairs(repairs) if repairs else nullcontext()


@dataclass(frozen=True)
class _Watch:
    repairs: tuple[Repair, ...]
    name: str = "fusionzoo_modernise"

    def enter(self, owner: nn.Module) -> AbstractContextManager[Any]:
        """What watches while the owner runs."""
        del owner
        return _Repairs(self.repairs)


def modernise(module: nn.Module) -> list[str]:
    """Let a model of an official repository run on current torch, numpy and torch-geometric: this instance only.

    Returns what was changed, in words; nothing for a model that is modernised already.

    Raises
    ------
    NoSiteError : no adapter knows the model.
    """
    from fusionzoo.patching.adapters import adapter_for, part

    adapter = adapter_for(module)
    if adapter is None:
        raise NoSiteError(f"no adapter knows {type(module).__name__}, so it is not known what it needs")
    repairs: tuple[Repair, ...] = tuple(part(adapter, "repairs", module) or ())
    current = module.__dict__.get("forward")
    if not repairs or (
        isinstance(current, overrides.Override) and any(isinstance(f, _Watch) for f in current.fallbacks)
    ):
        return []
    overrides.change(module, "forward", fallbacks=lambda old: (*old, _Watch(repairs)))
    return [r.summary for r in repairs]
