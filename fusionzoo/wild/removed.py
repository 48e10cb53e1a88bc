"""What libraries have removed or turned round since a script was written, put back while it runs.

What a model's own forward needs is `fusionzoo.modernise`'s; these are names that anything in a script may ask for.
"""

from __future__ import annotations

import collections
import collections.abc
import importlib
import inspect
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fusionzoo.wild.replaced import Replaced

_NUMPY = {
    "int": int,
    "float": float,
    "bool": bool,
    "object": object,
    "str": str,
    "complex": complex,
    "float_": np.float64,
    "unicode_": np.str_,
    "Inf": np.inf,
    "NaN": np.nan,
    "infty": np.inf,
    "product": np.prod,
    "cumproduct": np.cumprod,
    "sometrue": np.any,
    "alltrue": np.all,
    "in1d": np.isin,
}


@contextmanager
def put_back(device: torch.device | None = None) -> Iterator[None]:
    """Removed names of numpy, pandas, torch, torch-geometric and the standard library, while the block runs."""
    with Replaced() as replaced:
        for name, value in _NUMPY.items():
            if name not in vars(np):
                replaced.set(np, name, value)
        for name in ("Mapping", "MutableMapping", "Sequence", "Iterable", "Callable", "Hashable"):
            if not hasattr(collections, name):
                replaced.set(collections, name, getattr(collections.abc, name))
        replaced.set(torch, "load", _load(torch.load, device))
        replaced.set(F, "kl_div", _kl_div(F.kl_div))
        _without_verbose(replaced)
        _pandas(replaced)
        _geometric(replaced)
        six = _six()
        added = "torch._six" not in sys.modules
        if added:
            sys.modules["torch._six"] = six
        try:
            yield
        finally:
            if added:
                sys.modules.pop("torch._six", None)


def _six() -> ModuleType:
    """Torch's old module of names of Python 2 and 3."""
    six: Any = ModuleType("torch._six")
    six.string_classes, six.int_classes, six.container_abcs, six.inf = (str, bytes), int, collections.abc, float("inf")
    return six


def _load(load: Callable[..., Any], device: torch.device | None) -> Callable[..., Any]:
    """`torch.load`, which since torch 2.6 refuses whole models: those that the script has just written are read.

    A file from elsewhere is refused as before, because reading it would run what it holds.
    """
    start = time.time()

    def torch_load(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        if device is not None and (map_location is None or str(map_location).startswith("cuda")):
            map_location = device
        try:
            return load(f, map_location, *args, **kwargs)
        except pickle.UnpicklingError as error:
            path = f if isinstance(f, (str, os.PathLike)) else getattr(f, "name", None)
            if "weights_only" in kwargs:
                raise
            if not isinstance(path, (str, os.PathLike)) or os.path.getmtime(path) < start - 1:
                error.add_note(
                    "fusionzoo run reads whole pickled models only from files that the script itself has written. Where "
                    "you trust this one: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 fusionzoo run ..."
                )
                raise
            again: Any = f
            if hasattr(again, "seek"):
                again.seek(0)
            return load(again, map_location, *args, weights_only=False, **kwargs)

    return torch_load


def _kl_div(kl_div: Callable[..., Any]) -> Callable[..., Any]:
    """`kl_div`, whose gradient to a target of 0 was 0 once and is not a number today: padding has such targets."""

    def with_zeros(input: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(kl_div).bind(input, target, *args, **kwargs)
        bound.apply_defaults()
        reduction, given = bound.arguments["reduction"], bound.arguments
        named = (
            given["size_average"] is None
            and given["reduce"] is None
            and reduction in ("none", "sum", "mean", "batchmean")
        )
        if not target.requires_grad or given["log_target"] or not named:
            return kl_div(input, target, *args, **kwargs)
        positive = target > 0
        known = torch.where(positive, target, torch.ones_like(target))
        values = torch.where(positive, known * (known.log() - input), torch.zeros_like(target))
        if reduction == "batchmean":
            return values.sum() / input.shape[0]
        return values if reduction == "none" else getattr(values, reduction)()

    return with_zeros


def _without_verbose(replaced: Replaced) -> None:
    """Schedulers took `verbose=` until torch 2.7."""
    for kind in (LRScheduler, *_subclasses(LRScheduler), ReduceLROnPlateau):
        init = vars(kind).get("__init__")
        if init is not None and "verbose" not in inspect.signature(init).parameters:
            replaced.set(kind, "__init__", _dropping(init, "verbose"))


def _subclasses(kind: type) -> Iterator[type]:
    for sub in kind.__subclasses__():
        if sub.__module__.startswith("torch."):
            yield sub
            yield from _subclasses(sub)


def _dropping(function: Callable[..., Any], argument: str) -> Callable[..., Any]:
    def without(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop(argument, None)
        return function(*args, **kwargs)

    return without


def _pandas(replaced: Replaced) -> None:
    """`DataFrame.append`, where pandas is imported already or is installed."""
    try:
        pd = importlib.import_module("pandas")
    except ImportError:
        return

    def append(self: Any, other: Any, ignore_index: bool = False, **_: Any) -> Any:
        if isinstance(other, dict):
            other = pd.DataFrame([other])
        elif isinstance(other, pd.Series) and isinstance(self, pd.DataFrame):
            other = other.to_frame().T
        more = list(other) if isinstance(other, (list, tuple)) else [other]
        return pd.concat([self, *more], ignore_index=ignore_index)

    for kind in (pd.DataFrame, pd.Series):
        if not hasattr(kind, "append"):
            replaced.set(kind, "append", append)


# Where a name was, its name, and where it is now.
_MOVED = (
    ("torch_geometric.data", "DataLoader", "torch_geometric.loader"),
    ("torch_geometric.nn.pool.topk_pool", "topk", "torch_geometric.nn.pool.select.topk"),
)


def _geometric(replaced: Replaced) -> None:
    """Names of torch-geometric that have moved to other modules."""
    for old, name, new in _MOVED:
        try:
            module, value = importlib.import_module(old), getattr(importlib.import_module(new), name)
        except (ImportError, AttributeError):
            continue
        if vars(module).get(name) is not value:
            replaced.set(module, name, value)
