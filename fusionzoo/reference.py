"""Weights of the authors' official implementations: read by one table of names, checked before anything is copied.

A class says which of its modules holds what upstream goes by another name, and `load_reference` is the base class's:

```python
class OfficialLMAM(LMAM):
    def reference_names(self):
        return {"transform.": "matchatt.transform"}

class MFN(Fusion):  # official weights without a variant: the same functions, in a module that is imported for them
    reference_table = "fusionzoo_plugins.official.mfn"
```
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from fusionzoo.errors import ReferenceWeightsError, close_matches_hint


class WithReference(nn.Module if TYPE_CHECKING else object):
    """`load_reference` for what has an official implementation: fusions, hosts, objectives and their parts."""

    #: The module whose functions of the same names stand in for the three methods below; they take the model first.
    reference_table: ClassVar[str] = ""

    def reference_names(self) -> Mapping[str, str]:
        """What holds the official entries: prefix of their names, trailing dot included, and path of the own module.

        The whole name stands for a parameter or buffer. Empty: there is no official implementation, or this form of the
        model is not it.
        """
        names = self._from_table("reference_names")
        return {} if names is None else names(self)

    def reference_unused(self) -> Sequence[str]:
        """Prefixes of official entries that take no part in the result."""
        unused = self._from_table("reference_unused")
        return () if unused is None else unused(self)

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The official entries as `reference_names` expects them: where blocks are split or joined, and nowhere else."""
        state = self._from_table("reference_state")
        return state_dict if state is None else state(self, state_dict)

    def _from_table(self, function: str) -> Callable[..., Any] | None:
        """A function of the table; None where it has no such."""
        return getattr(importlib.import_module(self.reference_table), function, None) if self.reference_table else None

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
            {prefix: _part(self, path) for prefix, path in names.items()},
            self.reference_state(state_dict),
            self.reference_unused(),
        )


def _part(model: nn.Module, path: str) -> nn.Module | Tensor:
    """The module, parameter or buffer of a path."""
    owner, _, name = path.rpartition(".")
    part = getattr(model.get_submodule(owner), name) if name else model
    assert isinstance(part, (nn.Module, Tensor)), path
    return part


def within(path: str, names: Mapping[str, str], prefix: str = "") -> dict[str, str]:
    """A part's `reference_names` as its owner has them: own paths below `path`, official names below `prefix`."""
    return {prefix + theirs: f"{path}.{own}".removesuffix(".") for theirs, own in names.items()}


def state_within(part: WithReference, state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Official entries of which those below `prefix` are as a part's `reference_names` expects them."""
    rest = {k: v for k, v in state.items() if not k.startswith(prefix)}
    return rest | {prefix + k: v for k, v in part.reference_state(prefixed(state, prefix)).items()}


def check_modalities(names: Sequence[str], count: int, model: str) -> None:
    """Raise `ReferenceWeightsError` unless there are as many modalities as the official model has.

    Parameters
    ----------
    names : modalities of the own model.
    count : how many the official model has.
    model : what the official model is called.
    """
    if len(names) != count:
        raise ReferenceWeightsError(
            f"the official {model} has {('one', 'two', 'three')[count - 1]} modalities, this one {len(names)} "
            f"({', '.join(names)}); build it for {count} to load them"
        )


def attention_names(prefix: str, path: str) -> dict[str, str]:
    """The names of torch's own attention below `prefix`, its joint matrix taken apart by `split_joint`.

    path : of a `fusionzoo.layers.MultiheadAttention`.
    """
    return within(path, {"query.": "query", "key.": "key", "value.": "value", "out_proj.": "mix"}, prefix)


def split_joint(
    state: Mapping[str, Tensor], joint: str = "in_proj_", parts: Sequence[str] = ("query.", "key.", "value.")
) -> dict[str, Tensor]:
    """Entries with every joint matrix of queries, keys and values taken apart, as torch's own attention keeps it.

    Parameters
    ----------
    state : official entries.
    joint : what the joint entries are called, before `weight` or `bias`.
    parts : what stands in its place for each of the equal parts, one after another.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        head, found, kind = name.partition(joint)
        if not found:
            out[name] = tensor
            continue
        # What does not divide is left whole: its shape is refused by name.
        blocks = tensor.unflatten(0, (len(parts), -1)) if len(tensor) % len(parts) == 0 else [tensor] * len(parts)
        out |= {f"{head}{part}{kind}": block for part, block in zip(parts, blocks, strict=True)}
    return out


def no_reference(model: object) -> str:
    """Why there are no official weights for a model, and which form of it has them."""
    from fusionzoo._variants import plugin_class, variant_classes

    cls = plugin_class(type(model))
    forms = [c for c in variant_classes(cls)[1:] if _has_reference(c)]
    if forms:
        wanted = " or ".join(f"variant={c.variant!r}" for c in forms)
        return f"{cls.__name__}: the official weights are those of {wanted}; build it that way to load them"
    return (
        f"{cls.__name__} has no official implementation whose weights could be loaded; "
        "use load_state_dict for weights saved by fusionzoo"
    )


def _has_reference(cls: type[WithReference]) -> bool:
    """Whether a class says how to load official weights."""
    own = (cls.reference_names, cls.load_reference) != (WithReference.reference_names, WithReference.load_reference)
    return own or bool(cls.reference_table)


def check_reference(module: nn.Module | Tensor, state: Mapping[str, Tensor], prefix: str = "") -> None:
    """Raise `ReferenceWeightsError` when `state` does not have exactly the names and shapes of `module`'s own state.

    `prefix` is what the official names have in front; it appears in the message only.
    """
    own = _entries(module)
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
        what = f"this {type(module).__name__}" if isinstance(module, nn.Module) else "this layer"
        raise ReferenceWeightsError(
            f"these are not the official weights of {what}: {'; '.join(problems)}. "
            "Build the layer with the options that the weights were trained with."
        )


def _entries(part: nn.Module | Tensor) -> Mapping[str, Tensor]:
    """What a part holds, by its name below it; a parameter or buffer is its own only entry."""
    return part.state_dict() if isinstance(part, nn.Module) else {"": part}


def copy_reference(module: nn.Module | Tensor, state: Mapping[str, Tensor]) -> None:
    """Copy an official state dict into `module`, whose entries carry the official names.

    Raises `ReferenceWeightsError`, before anything is copied, when an entry is missing, unknown or of another shape.
    """
    check_reference(module, state)
    with torch.no_grad():
        for name, tensor in _entries(module).items():
            tensor.copy_(state[name])


def copy_reference_parts(
    parts: Mapping[str, nn.Module | Tensor], state: Mapping[str, Tensor], ignored: Sequence[str] = ()
) -> None:
    """Copy an official state dict into several modules, parameters or buffers, `{official prefix: part}`.

    Parameters
    ----------
    parts : prefixes with their trailing dot, each the name of a module upstream; a parameter's is its whole name.
    ignored : prefixes of entries that exist upstream and take no part in the result.

    Raises `ReferenceWeightsError`, before anything is copied, when an entry is missing, unknown or of another shape.
    """
    known = (*parts, *ignored)
    unknown = [k for k in state if not k.startswith(known)]
    if unknown:
        raise ReferenceWeightsError(
            f"the state dict has {len(unknown)} entries that the official model does not have, the first is "
            f"{unknown[0]!r}; expected names that begin with "
            f"{', '.join(known if len(known) < 30 else dict.fromkeys(k.partition('.')[0] for k in known))}"
        )
    for prefix, module in parts.items():
        check_reference(module, prefixed(state, prefix), prefix)
    for prefix, module in parts.items():
        copy_reference(module, prefixed(state, prefix))


def prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of `state` below `prefix` (given with its trailing dot), without it."""
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
