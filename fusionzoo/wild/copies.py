"""What a script has copied of its model before the model got its fusion: averages of weights, and models that follow it.

A copy is taken along: it gets the fusion with the weights that the model's has at first, as if the model had had it from the start.
An average that pairs `parameters()` of both in order would pair the wrong ones otherwise.
"""

from __future__ import annotations

import copy
import gc
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim.swa_utils import AveragedModel

import fusionzoo
from fusionzoo.errors import PatchError
from fusionzoo.patching import Patch
from fusionzoo.patching.fuse.layer import FusionLayer
from fusionzoo.wild.replaced import Replaced


def others_like(host: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """Other modules of the host's class and weights' names without a fusion; and whether the weights are equal, as `copy.deepcopy` makes them."""
    own = _without_fusion(host)
    for other in gc.get_objects():
        if type(other) is type(host) and other is not host and not has_fusion(other):
            state = dict(other.named_parameters())
            if state.keys() == own.keys():
                yield other, all(_equal(state[n], p) for n, p in own.items())


def take_along(patch: Patch, other: nn.Module) -> None:
    """Give a copy of the patched model a copy of its fusion."""
    fusion: Any = copy.deepcopy(patch.layer.fusion)
    again = fusionzoo.patch(other, fusion, patch.site, mode=patch.mode, context=patch.layer.context)
    again.layer.load_state_dict(patch.layer.state_dict())
    if not any(p.requires_grad for p in _without_fusion(other).values()):
        again.layer.requires_grad_(False)


def snapshots_of(host: nn.Module) -> list[str]:
    """Dicts of the host's weights by name, and lists of them in order, that hold tensors of their own: what they are."""
    own = _without_fusion(host)
    found = []
    for thing in gc.get_objects():
        if type(thing) in (dict, OrderedDict) and len(thing) >= len(own) > 0 and all(n in thing for n in own):
            if _are_copies([thing[n] for n in own], own):
                found.append("a dict by name")
        elif type(thing) in (list, tuple) and len(thing) == len(own) > 0 and _are_copies(thing, own):
            found.append(f"a {type(thing).__name__} in order")
    return found


def watch_averages(replaced: Replaced) -> None:
    """Refuse to average weights of a model with a fusion into a copy without: torch would pair the wrong ones, without a word."""
    original = AveragedModel.update_parameters

    def update_parameters(average: AveragedModel, model: nn.Module) -> None:
        if has_fusion(model) and not has_fusion(average):
            raise PatchError(
                f"the script averages the weights of {type(model).__name__} (AveragedModel), which has a fusion, into a copy that "
                "has none and had other weights when the fusion came: the wrong weights would be paired. It works with a copy "
                "that is made of the model's own weights before the first call in training, or after it"
            )
        original(average, model)

    replaced.set(AveragedModel, "update_parameters", update_parameters)


def has_fusion(module: nn.Module) -> bool:
    """Whether a fusion of a patch is in it."""
    return any(isinstance(m, FusionLayer) for m in module.modules())


def _are_copies(tensors: Sequence[Any], own: Mapping[str, Tensor]) -> bool:
    return all(
        isinstance(t, Tensor) and t is not p and _equal(t, p) and t.data_ptr() != p.data_ptr()
        for t, p in zip(tensors, own.values(), strict=True)
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    if isinstance(one, UninitializedParameter) or isinstance(other, UninitializedParameter) or one.is_meta:
        return False
    same = one.shape == other.shape and one.layout == other.layout
    return same and torch.equal(one.detach().to(other.device, other.dtype), other.detach())


def _without_fusion(host: nn.Module) -> dict[str, nn.Parameter]:
    fusions = {id(p) for m in host.modules() if isinstance(m, FusionLayer) for p in m.parameters()}
    return {n: p for n, p in host.named_parameters() if id(p) not in fusions}
