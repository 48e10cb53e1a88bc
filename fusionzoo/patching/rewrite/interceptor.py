"""The fallback where a host has no source: torch's calls are watched while the owning module runs, and only then."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from fusionzoo.patching.call_chain import position_of
from fusionzoo.patching.holders import layer_in
from fusionzoo.patching.source import is_rewritten
from fusionzoo.patching.torch_calls import name_of
from fusionzoo.patching.whose_code import HostCode


@dataclass(frozen=True)
class Fallback:
    """A join to be recognised by its operation and its place in the bytecode."""

    name: str
    op: str
    file: str
    qualname: str
    position: tuple[int, int, int, int]

    def enter(self, owner: nn.Module) -> Interceptor:
        """What watches while the owner runs."""
        return Interceptor(owner, [self])


class Interceptor(TorchFunctionMode):
    """Applies patches to the operations of one module's forward."""

    def __init__(self, owner: nn.Module, fallbacks: Sequence[Fallback]):
        super().__init__()
        self.owner = owner
        self.by_op: dict[str, list[Fallback]] = {}
        for f in fallbacks:
            self.by_op.setdefault(f.op, []).append(f)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        for fallback in self.by_op.get(name_of(func), ()):
            frame: FrameType | None = sys._getframe(1)
            while frame is not None and not self._may_hold(frame.f_code.co_filename, fallback):
                frame = frame.f_back
            if frame is not None and is_rewritten(frame.f_code):
                continue  # which calls the layer itself
            if frame is None or not f"{frame.f_code.co_qualname}.".startswith(f"{fallback.qualname}."):
                continue  # functions and comprehensions written inside count as part of it
            if frame.f_code.co_filename == fallback.file and position_of(frame) == fallback.position:
                layer = layer_in(self.owner, fallback.name)
                if layer is not None and fallback.op == "__setitem__":
                    args[0].copy_(layer(args[0], func, args, kwargs))
                elif layer is not None:
                    result = layer(result, func, args, kwargs)
        return result

    @functools.cached_property
    def _host(self) -> HostCode:
        return HostCode(self.owner)

    def _may_hold(self, file: str, fallback: Fallback) -> bool:
        return file == fallback.file or file in self._host
