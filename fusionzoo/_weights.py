"""Weights as safetensors: written whole, read without executing anything, loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from fusionzoo.errors import CheckpointError


def pack_weights(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as the bytes of a safetensors file; tensors that share memory are written out each."""
    from safetensors.torch import save

    return save({k: v.detach().to("cpu", copy=True).contiguous() for k, v in state.items()})


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors file, or `CheckpointError`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"there are no weights at {str(path)!r}; has the run been trained?") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"the weights {str(path)!r} are damaged or not a safetensors file: {error}") from error


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load strictly; names and shapes that do not fit raise `CheckpointError` in words."""
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
    model.load_state_dict(dict(state))
