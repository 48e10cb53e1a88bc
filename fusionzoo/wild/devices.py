"""`--device`: what a script does with a CUDA device that it names itself happens on another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fusionzoo.errors import TrainingError
from fusionzoo.wild.replaced import Replaced

_TYPES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")


def read_device(name: str) -> torch.device:
    """A device that is there; raises `TrainingError`."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"--device {name!r} is not a device; expected cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(f"--device {name!r}: a script's devices are turned to cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(f"--device {name!r}: there are {torch.cuda.device_count()} CUDA devices; use --device cpu")
    return device


@contextmanager
def on(device: torch.device | None) -> Iterator[None]:
    """What asks for CUDA gets this device while the block runs; None leaves everything as it is."""
    if device is None:
        yield
        return
    with ExitStack() as stack:
        replaced = stack.enter_context(Replaced())
        if device.type == "cpu":
            _without_cuda(replaced)
        else:
            stack.enter_context(torch.cuda.device(device))
        stack.enter_context(_Redirect(device))
        yield


class _Redirect(TorchFunctionMode):
    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "cuda":
            return args[0].to(self.device, non_blocking=bool(kwargs.get("non_blocking", False)))
        if name == "pin_memory" and self.device.type == "cpu":
            return args[0]
        if name in ("to", "type"):
            args = (args[0], *(self._turned(a) for a in args[1:]))
        if kwargs:
            kwargs = {k: self._turned(v) if k in ("device", "dtype", "other") else v for k, v in kwargs.items()}
        elif len(args) > 1:
            args = tuple(self._turned(a) if isinstance(a, torch.device) else a for a in args)
        return func(*args, **kwargs)

    def _turned(self, value: Any) -> Any:
        if isinstance(value, torch.device):
            return self.device if value.type == "cuda" else value
        if isinstance(value, str) and value.startswith("cuda"):
            return self.device
        if isinstance(value, str) and value.startswith("torch.cuda.") and self.device.type == "cpu":
            return value.replace("torch.cuda.", "torch.")
        return value


def _without_cuda(replaced: Replaced) -> None:
    """`torch.cuda` as on a machine that has none, except that what a script calls without asking does nothing."""
    cuda = torch.cuda
    replaced.set(cuda, "is_available", lambda: False)
    for name in ("device_count", "current_device", "memory_allocated", "max_memory_allocated", "memory_reserved"):
        replaced.set(cuda, name, lambda *args, **kwargs: 0)
    for name in ("set_device", "synchronize", "empty_cache", "manual_seed", "manual_seed_all", "init", "ipc_collect"):
        replaced.set(cuda, name, lambda *args, **kwargs: None)
    replaced.set(cuda, "get_device_name", lambda *args, **kwargs: "cpu")
    for kind in _TYPES:
        replaced.set(cuda, f"{kind}Tensor", getattr(torch, f"{kind}Tensor"))
    default = torch.set_default_tensor_type

    def set_default_tensor_type(kind: Any) -> None:
        default(kind.replace("torch.cuda.", "torch.") if isinstance(kind, str) else kind)

    replaced.set(torch, "set_default_tensor_type", set_default_tensor_type)
