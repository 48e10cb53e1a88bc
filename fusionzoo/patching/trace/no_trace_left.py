"""Running a host to look at it, and leaving no trace of the run: buffers, attributes, flags, random numbers."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restores what a forward of the model changes beside its output.

    Values of buffers; every module's attributes and what those hold that are dictionaries, in which parameters, buffers and
    submodules lie too; torch's, Python's and numpy's random state. A module that becomes another class meanwhile (a lazy
    one) stays so.
    """
    modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    buffers = [(b, b.clone()) for b in model.buffers()]
    before = [(type(m), dict(vars(m)), _dictionaries(m)) for m in modules]
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    python, numpy = random.getstate(), sys.modules.get("numpy.random")
    state = numpy.get_state() if numpy is not None else None
    try:
        with torch.random.fork_rng(devices=sorted(devices)):
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.set_state(state)
        fsdp: Any = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", ())
        shards: list[Any] = [m for m in modules if isinstance(m, fsdp)]
        for module in shards:
            module.reshard()  # its parameters are others while it runs
        for module, (kind, attributes, dictionaries) in zip(modules, before, strict=True):
            if type(module) is kind:
                _restore(vars(module), attributes)
                for dictionary, members in dictionaries:
                    _restore(dictionary, members)
        with torch.no_grad():
            for b, saved in buffers:
                b.copy_(saved)


def _dictionaries(module: nn.Module) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    """The plain dictionaries among a module's attributes, each with what it holds."""
    return [(d, dict(d)) for d in vars(module).values() if type(d) in (dict, OrderedDict)]


def _restore(now: dict[Any, Any], before: dict[Any, Any]) -> None:
    for name in [n for n in now if n not in before]:
        del now[name]
    changed = {n: v for n, v in before.items() if n not in now or now[n] is not v}
    if any(n not in now for n in changed):  # in their order
        now.clear()
        changed = before
    now.update(changed)
