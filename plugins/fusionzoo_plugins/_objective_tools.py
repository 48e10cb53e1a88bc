"""What objectives share: finding streams, which utterances count, and full precision under mixed precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError, ShapeError, close_matches_hint
from fusionzoo.numerics import zero_padded
from fusionzoo.objective import IGNORE

if TYPE_CHECKING:
    from fusionzoo.batch import Batch
    from fusionzoo.host import HostOutput

Names = Sequence[str] | None

#: Suffix of a stream's name -> who reports such streams.
REPORTED_BY = {
    "": "lmam, gated and most fusions with several queries report one stream per modality",
    "private": "the fusion misa reports it",
    "shared": "the fusion misa reports it",
    "reconstruction": "the fusion misa reports it",
    "logits": "the fusions late-average, late-product and multiplicative report it",
    "input": "the fusion foal-net reports it",
}


def exact(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 where it is already."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision(x: Tensor) -> torch.autocast:
    """A context in which products are not computed in half precision: losses divide small differences."""
    return torch.autocast(x.device.type, enabled=False)


def check_number(value: float, option: str, owner: object, *, low: float = 0.0, open_low: bool = False) -> float:
    """`value` if it is a number of at least `low` (above it with `open_low`), else `OptionError`."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and (value > low or value == low)
    if not good or (open_low and value == low):
        raise OptionError(
            f"{type(owner).__name__}: {option} must be a number {'above' if open_low else 'of at least'} {low:g}, "
            f"not {value!r}"
        )
    return float(value)


def check_names(names: Names, owner: object, least: int = 2) -> tuple[str, ...] | None:
    """Stream names as given, or None for those of the batch's modalities."""
    if names is None:
        return None
    if isinstance(names, str) or len(names) < least or len(set(names)) < len(names):
        raise OptionError(f"{type(owner).__name__}: streams must be {least} or more different names, not {names!r}")
    return tuple(str(n) for n in names)


def check_dims(dims: Mapping[str, int], owner: object) -> dict[str, int]:
    """Stream name -> width, as an option."""
    if not isinstance(dims, Mapping) or not dims:
        raise OptionError(f"{type(owner).__name__}: dims must map stream names to widths, not {dims!r}")
    return {str(k): check_positive(v, f"dims[{k!r}]", owner) for k, v in dims.items()}


def stream(out: HostOutput, name: str, owner: object) -> Tensor:
    """The stream of this name, `(B, T, d)`, or a `ShapeError` that says who reports it."""
    if name not in out.streams:
        suffix = name.partition(".")[2]
        by = "every host reports it" if name == "fused" else REPORTED_BY.get(suffix, "no built-in reports it")
        raise ShapeError(
            f"{type(owner).__name__} reads the stream {name!r}{close_matches_hint(name, out.streams)}, which the model does "
            f"not report ({by}); it reports {', '.join(out.streams) or 'none'}"
        )
    x = out.streams[name]
    if x.shape[:2] != out.logits.shape[:2]:
        raise ShapeError(
            f"{type(owner).__name__} compares streams utterance by utterance, but {name!r} is {tuple(x.shape)} beside "
            f"logits {tuple(out.logits.shape)}"
        )
    return x


def modality_streams(
    out: HostOutput, batch: Batch, owner: object, names: Names = None, suffix: str = "", least: int = 2
) -> dict[str, Tensor]:
    """The named streams; by default those of the batch's modalities, with `.suffix` behind.

    Raises `ShapeError` where fewer than `least` are there, unless the batch itself has fewer modalities.
    """
    if names is not None:
        return {n: stream(out, n, owner) for n in names}
    wanted = [f"{m}.{suffix}" if suffix else m for m in batch.modalities]
    found = [n for n in wanted if n in out.streams]
    if len(found) < least <= len(wanted):
        raise ShapeError(
            f"{type(owner).__name__} needs {least} of the streams {', '.join(wanted)}, and the model reports "
            f"{', '.join(out.streams) or 'none'}; {REPORTED_BY[suffix]}; or name others with streams=[...]"
        )
    return {n: stream(out, n, owner) for n in found}


def same_width(streams: Mapping[str, Tensor], owner: object) -> None:
    """Raise `ShapeError` unless all streams are equally wide."""
    widths = {n: x.shape[-1] for n, x in streams.items()}
    if len(set(widths.values())) > 1:
        raise ShapeError(
            f"{type(owner).__name__} compares streams of one width, not {widths}; use a fusion that projects its "
            "modalities to one width, or name streams with streams=[...]"
        )


def counted(batch: Batch, *names: str) -> Tensor:
    """bool `(B, T)`: labelled utterances at which the modalities of these streams were recorded."""
    mask = batch.labels != IGNORE
    for name in names:
        present = (batch.present or {}).get(name.partition(".")[0])
        mask = mask if present is None else mask & present
    return mask


def pairs(streams: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """All pairs of names."""
    return list(combinations(streams, 2))


def rows(x: Tensor, mask: Tensor) -> Tensor:
    """`(B T, d)` in full precision, zero where the mask is False."""
    return zero_padded(exact(x), mask).flatten(0, 1)


def nothing(out: HostOutput) -> Tensor:
    """Zero, attached to the graph with a gradient of zero."""
    return torch.where(torch.zeros_like(out.logits, dtype=torch.bool), out.logits, 0.0).sum()


def total(losses: Sequence[Tensor], out: HostOutput) -> Tensor:
    """The sum of the losses, of none too."""
    return torch.stack(list(losses)).sum() if losses else nothing(out)


def mean_over(losses: Tensor, mask: Tensor) -> Tensor:
    """Mean of the losses at which the mask is True; zero where it is nowhere."""
    return torch.where(mask, losses, 0.0).sum() / mask.sum().clamp(min=1)


def unit(x: Tensor) -> Tensor:
    """Rows of unit length; a row of zeros stays zero, with zero gradient."""
    square = x.square().sum(-1, keepdim=True)
    real = square > 1e-20
    return torch.where(real, x * torch.where(real, square, 1.0).rsqrt(), 0.0)


def log_complement(log_p: Tensor) -> Tensor:
    """`log(1 - p)` of `log p`, finite, with finite slope, where p is one."""
    return (-torch.expm1(log_p)).clamp(min=1e-12).log()


def unbound(owner: Any, what: str) -> OptionError:
    """The error of an objective whose weights were never built."""
    name = type(owner).__name__
    return OptionError(
        f"{name} has no {what} yet: the trainer builds them by {name}.bind(host); by hand call bind, or give "
        "dims={stream name: width}"
    )
