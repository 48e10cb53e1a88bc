"""Where a model has a fusion registered, and finding it again."""

from __future__ import annotations

import itertools
from typing import Any

from torch import nn

ATTRIBUTE = "fusionzoo_patch"
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def holder_of(owner: nn.Module) -> nn.Module:
    """Where the layer is registered: a container runs whatever is registered in it, so the first part that is none."""
    if not isinstance(owner, CONTAINERS):
        return owner
    return next((m for m in owner.modules() if not isinstance(m, CONTAINERS)), owner)


def layer_in(owner: nn.Module, name: str) -> Any:
    """The fusion of this name, which acts in a method of the owner; None where it is gone."""
    layer = getattr(owner, name, None)
    return getattr(holder_of(owner), name, None) if layer is None and isinstance(owner, CONTAINERS) else layer


def path_to(owner: nn.Module, holder: nn.Module) -> str:
    """The holder's path in the owner, ending in a dot; empty where they are the same."""
    path = next(name for name, m in owner.named_modules() if m is holder)
    return f"{path}." if path else ""


def free_name(model: nn.Module, owner: nn.Module) -> str:
    """A name for a fusion that nothing in the model has."""
    taken = {name.rpartition(".")[2] for root in (model, owner) for name, _ in root.named_modules()}
    return next(n for i in itertools.count() if (n := f"{ATTRIBUTE}_{i}") not in taken)
