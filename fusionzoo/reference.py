"""Weights of the authors' official implementations: read by one table of names, checked before anything is copied.

A class says which of its modules holds what upstream goes by another name, and `load_reference` is the base class's:

```python
class OfficialLMAM(LMAM):
    def reference_names(self):
        return {"matchatt.": "matchatt", "transform.": "matchatt.transform"}
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fusionzoo.errors import ReferenceWeightsError, close_matches_hint


class WithReference(nn.Module if TYPE_CHECKING else object):
    """`load_reference` for what has an official implementation: fusions and hosts."""

    def reference_names(self) -> Mapping[str, str]:
        """Prefix of the official names, trailing dot included -> path of the own module or parameter that they belong to.

        Empty: there is no official implementation, or this form of the model is not it.
        """
        return {}

    def reference_unused(self) -> Sequence[str]:
        """Prefixes of official entries that take no part in the result."""
        return ()

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The official entries as `reference_names` expects them: where blocks are split or joined, and nowhere else."""
        return state_dict

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the weights of the authors' official implementation.

        Raises
        ------
        ReferenceWeightsError : there is none of this form of the model, or an entry is missing, unknown or of another
            shape; nothing has been copied then.
        """
        names = self.reference_names()
        if not names:
            raise ReferenceWeightsError(no_reference(self))
        copy_reference_parts(
            {prefix: self.get_submodule(path) for prefix, path in names.items()},
            self.reference_state(state_dict),
            self.reference_unused(),
        )


def no_reference(model: object) -> str:
    """Why there are no official weights for a model, and which form of it has them."""
    from fusionzoo._variants import plugin_class, variant_classes

    cls = plugin_class(type(model))
    forms = [c for c in variant_classes(cls)[1:] if c.reference_names is not WithReference.reference_names]
    if forms:
        wanted = " or ".join(f"variant={c.variant!r}" for c in forms)
        return f"{cls.__name__}: the official weights are those of {wanted}; build it that way to load them"
    return (
        f"{cls.__name__} has no official implementation whose weights could be loaded; "
        "use load_state_dict for weights saved by fusionzoo"
    )


def check_reference(module: nn.Module, state: Mapping[str, Tensor], prefix: str = "") -> None:
    """Raise `ReferenceWeightsError` when `state` does not have exactly the names and shapes of `module`'s own state.

    `prefix` is what the official names have in front; it appears in the message only.
    """
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    problems = [f"missing {', '.join(prefix + k for k in missing)}"] if missing else []
    if unknown:
        hint = close_matches_hint(unknown[0], own)
        problems.append(f"unknown {', '.join(prefix + k for k in unknown)}{hint}")
    problems += [
        f"{prefix}{k} has shape {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own
        if k in state and tuple(state[k].shape) != tuple(own[k].shape)
    ]
    if problems:
        raise ReferenceWeightsError(
            f"these are not the official weights of this {type(module).__name__}: {'; '.join(problems)}. "
            "Build the layer with the options that the weights were trained with."
        )


def copy_reference(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy an official state dict into `module`, whose entries carry the official names.

    Raises `ReferenceWeightsError`, before anything is copied, when an entry is missing, unknown or of another shape.
    """
    check_reference(module, state)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(state[name])


def copy_reference_parts(
    parts: Mapping[str, nn.Module], state: Mapping[str, Tensor], ignored: Sequence[str] = ()
) -> None:
    """Copy an official state dict into several modules, `{official prefix: module}`.

    Parameters
    ----------
    parts : prefixes with their trailing dot, each the name of a module upstream.
    ignored : prefixes of entries that exist upstream and take no part in the result.

    Raises `ReferenceWeightsError`, before anything is copied, when an entry is missing, unknown or of another shape.
    """
    known = (*parts, *ignored)
    unknown = [k for k in state if not k.startswith(known)]
    if unknown:
        raise ReferenceWeightsError(
            f"the state dict has {len(unknown)} entries that the official model does not have, the first is "
            f"{unknown[0]!r}; expected names that begin with {', '.join(known)}"
        )
    for prefix, module in parts.items():
        check_reference(module, prefixed(state, prefix), prefix)
    for prefix, module in parts.items():
        copy_reference(module, prefixed(state, prefix))


def prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of `state` below `prefix` (given with its trailing dot), without it."""
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
