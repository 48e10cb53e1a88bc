"""Which steps of a call are real and which rows are one dialogue, as a `context=` says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.errors import LayoutError, PatchOptionError
from fusionzoo.patching.arguments import get_argument
from fusionzoo.patching.signatures import forward_of

#: What a `context=` says under "mask" or "lengths", of all streams or of one.
Steps = Tensor | Sequence[int] | Sequence[Sequence[bool]] | None

#: A function of the model and a call's arguments. What they are is the model's own affair, which is why a checker takes any.
Context = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Mapping[str, Steps | Mapping[str, Steps]] | None]


FORMS = ("lengths", "mask", "mask.T", "not mask", "not mask.T")


@dataclass(frozen=True)
class ArgumentContext:
    """Reads a mask or lengths from one argument of the model.

    path : the argument, or a path into it.
    form : "lengths"; "mask" for `(B, T)`, "mask.T" for `(T, B)`; with "not " in front where True means padding; "steps" for
        a stream `(B, T, ...)` whose samples all have T steps, "steps.T" for `(T, B, ...)`; "zeros" and "zeros.T" for one that
        holds nothing but zeros where it is padded; "packed" for token ids, their mask and more `(B, n, T)`.
    """

    path: str
    form: str

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Read it from a call; nothing where the call leaves the argument out."""
        value = get_argument(forward_of(model), args, kwargs, self.path)
        if value is None:
            return {}
        if self.form == "lengths":
            return {"lengths": value}
        if self.form.startswith("steps"):
            batch, steps = value.shape[:2] if self.form == "steps" else value.shape[1::-1]
            return {"lengths": [steps] * batch}
        if self.form.startswith("zeros"):
            return {"mask": before_zeros(value if self.form == "zeros" else value.transpose(0, 1))}
        mask = (value[:, 1] if self.form == "packed" else value).bool()
        if self.form.startswith("not "):
            mask = ~mask
        return {"mask": mask.T if self.form.endswith(".T") else mask}

    def __str__(self) -> str:
        return f"{self.form} from the argument {self.path}"


@dataclass(frozen=True)
class StreamContexts:
    """Reads every stream's own mask or lengths, by modality."""

    of: tuple[tuple[str, ArgumentContext], ...]

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Read them from a call."""
        found: dict[str, Any] = {}
        for name, context in self.of:
            for key, value in context(model, args, kwargs).items():
                found.setdefault(key, {})[name] = value
        return found

    def __str__(self) -> str:
        return ", ".join(f"{name}: {context}" for name, context in self.of)


def read_saved(saved: Mapping[str, Any]) -> ArgumentContext | StreamContexts:
    """What was written down of one of the two."""
    if "of" in saved:
        return StreamContexts(tuple((name, ArgumentContext(x["path"], x["form"])) for name, x in saved["of"]))
    return ArgumentContext(saved["path"], saved["form"])


def before_zeros(x: Tensor) -> Tensor:
    """Of a stream `(B, T, ...)`, the steps up to the last one that holds anything but zeros, `(B, T)`."""
    held = x.ne(0).flatten(2).any(-1) if x.dim() > 2 else x.ne(0)
    return held.flip(1).int().cummax(1).values.flip(1).bool()


def check_context(context: Any) -> None:
    """Refuse a `context=` that cannot be called."""
    if context is not None and not callable(context):
        raise PatchOptionError(
            f"context= is a function of (model, args, kwargs) that returns {{'mask': ...}} or {{'lengths': ...}}, not "
            f"{type(context).__name__}"
        )


def read_context(
    context: Callable[..., Any], model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], what: str
) -> dict[str, Any]:
    """What a context function says of a call, with mask and lengths as tensors."""
    try:
        found = context(model, args, kwargs)
    except Exception as error:
        raise LayoutError(
            f"{what}: context(model, args, kwargs) raises {type(error).__name__}: {error}; this call has {len(args)} positional "
            f"arguments{f' and {chr(44).join(kwargs)}' if kwargs else ''}"
        ) from error
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise LayoutError(
            f"{what}: the context returned {type(found).__name__}; return {{'mask': bool (B, T)}} or {{'lengths': ...}}"
        )
    unknown = found.keys() - {"mask", "lengths"}
    if unknown:
        raise LayoutError(f"{what}: the context may give 'mask' or 'lengths', not {sorted(map(str, unknown))[0]!r}")
    out: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, Mapping):  # a stream's own
            out[key] = {str(m): _tensor(key, one, f"{what}, {m}") for m, one in value.items()}
        else:
            out[key] = _tensor(key, value, what)
    return out


def _tensor(key: str, value: Any, what: str) -> Tensor | None:
    """A mask or lengths as a tensor."""
    try:
        x = None if value is None else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise LayoutError(
            f"{what}: the context's {key} is {type(value).__name__}, no tensor or list of numbers; where every stream has its own, "
            f"return {{{key!r}: {{'text': ..., 'audio': ...}}}}"
        ) from None
    if key == "lengths" and x is not None and (x.is_floating_point() or bool((x < 0).any())):
        raise LayoutError(f"{what}: the dialogues' lengths {x.tolist()} are not all whole numbers from 0 on")
    return x


def lengths_of(context: dict[str, Any]) -> Tensor | None:
    """Dialogue lengths from a context, on the CPU; where the streams have their own, the first one's."""
    context = {k: next(iter(v.values()), None) if isinstance(v, Mapping) else v for k, v in context.items()}
    lengths = context.get("lengths")
    if lengths is None:
        mask = context.get("mask")
        return None if mask is None else mask.bool().sum(-1).flatten().cpu()
    return torch.as_tensor(lengths).flatten().to("cpu", torch.int64)
