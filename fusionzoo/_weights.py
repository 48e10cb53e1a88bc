"""Weights as safetensors: written whole, read without executing anything, loaded strictly, and built for no more than they hold."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from fusionzoo._schema import check_regular
from fusionzoo.errors import CheckpointError, FusionZooError, PluginError

#: Bytes of a file's header, which lists its tensors: enough for a hundred thousand.
HEADER = 16 << 20


def pack_weights(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as the bytes of a safetensors file; tensors that share memory are written out each."""
    from safetensors.torch import save

    return save({k: v.detach().to("cpu", copy=True).contiguous() for k, v in state.items()})


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors file, or `CheckpointError`."""
    return read_tensors(path)[0]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and its metadata, or `CheckpointError`."""
    from safetensors import SafetensorError, safe_open

    try:
        _check_header(path)
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"there are no weights at {str(path)!r}; has the run been trained?") from None
    except (SafetensorError, OSError, ValueError, OverflowError, UnicodeError) as error:
        raise CheckpointError(f"the weights {str(path)!r} are damaged or not a safetensors file: {error}") from error


def _check_header(path: Path) -> None:
    size = check_regular(path, CheckpointError)
    with open(path, "rb") as file:
        start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 0 < length <= min(size - 8, HEADER):
        raise CheckpointError(
            f"the weights {os.fspath(path)!r} are damaged or not a safetensors file: no header of such a size"
        )


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load strictly; names and shapes that do not fit raise `CheckpointError` in words."""
    strange = [k for k, v in state.items() if not isinstance(v, Tensor)] if isinstance(state, Mapping) else [""]
    if strange:
        got = f"{strange[0]!r} is {type(state[strange[0]]).__name__}" if strange[0] else f"not {type(state).__name__}"
        raise CheckpointError(f"{source} is to be a mapping of names to tensors: {got}")
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or unknown or other:
        parts = []
        if missing:
            parts.append(f"{len(missing)} tensors of the model are not in it (first: {missing[0]!r})")
        if unknown:
            parts.append(f"{len(unknown)} of its tensors are not in the model (first: {unknown[0]!r})")
        if other:
            k = other[0]
            parts.append(
                f"{len(other)} have another shape (first: {k!r}, {tuple(state[k].shape)} there, {tuple(own[k].shape)} here)"
            )
        raise CheckpointError(
            f"the weights in {source} belong to another model than this {type(model).__name__}: {'; '.join(parts)}. "
            "Use the host, fusion, options, modalities and data that it was trained with."
        )
    try:
        model.load_state_dict(dict(state))
    except (RuntimeError, TypeError) as error:  # a dtype that does not become the model's
        raise CheckpointError(f"the weights in {source} cannot be loaded: {error}") from error


class _TooLarge(Exception):
    """Ends the construction of a model that grows beyond its weights."""


@contextmanager
def building_for(state: Mapping[str, Tensor], source: str) -> Iterator[None]:
    """Around the construction of a model from what a file says: it gets no larger than the weights beside it.

    Sizes in a file decide how much memory a model takes, and only its weights tell whether to believe them. So the
    construction stops at the first parameter that the weights cannot be for, before it is filled. What a constructor
    raises for what the file says is a `CheckpointError`.
    """
    numbers = 4 * sum(x.numel() for x in state.values()) + (1 << 24)  # a constructor may build parts anew
    parts = 20 * len(state) + 10_000
    me, grown = threading.get_ident(), [0, 0]

    def count(_module: nn.Module, _name: str, value: Any) -> None:
        if threading.get_ident() != me:
            return
        grown[1] += 1
        if isinstance(value, Tensor) and not isinstance(value, (UninitializedBuffer, UninitializedParameter)):
            grown[0] += value.numel()
        if grown[0] > numbers or grown[1] > parts:
            raise _TooLarge

    handles = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
        hooks.register_module_module_registration_hook(count),
    ]
    try:
        yield
    except CheckpointError:
        raise
    except (_TooLarge, MemoryError) as error:
        raise CheckpointError(
            f"{source} describes a model that is far larger than the weights beside it: they belong to another model, or "
            "the description is damaged"
        ) from error
    except FusionZooError as error:
        if isinstance(error, (LookupError, PluginError)):  # a plugin that is not there says so itself
            raise
        raise CheckpointError(f"the model of {source} cannot be built with what is installed: {error}") from error
    except Exception as error:  # a constructor may raise anything for an option of the wrong kind
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"the model of {source} cannot be built with what is installed: {what}") from error
    finally:
        for handle in handles:
            handle.remove()
