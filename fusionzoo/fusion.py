"""The fusion contract: what goes in, what comes out, and everything every fusion needs done once.

A fusion is written by subclassing `Fusion` and implementing `combine`. The base class reads mappings and sequences,
`(B, d)` and `(B, T, d)`, one mask or one per modality; it keeps padding (NaN included) away from the mathematics, stands
in for missing modalities, projects to `out_dim` when the width differs, and zeroes the output at padded steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from fusionzoo._display import Displayed
from fusionzoo._masks import MaskWatch
from fusionzoo._options import Configured, check_choice
from fusionzoo._pretrained import Pretrained
from fusionzoo._registry import registry
from fusionzoo.errors import OptionError, ShapeError, close_matches_hint
from fusionzoo.numerics import fixed_in_trace, same_length, zero_padded
from fusionzoo.reference import WithReference

Dims = Mapping[str, int] | Sequence[int]
StreamsLike = Mapping[str, Tensor | None] | Sequence[Tensor | None]
MaskLike = Tensor | Mapping[str, Tensor] | None

MISSING = ("zero", "learned", "error")


@dataclass(repr=False)
class Fused(Displayed):
    """What `Fusion.fuse` returns.

    fused : `(B, out)` or `(B, T, out)`.
    streams : per-modality streams after fusion, by modality, where the method has them; `(B, T, d)`.
    attention : attention maps by name; the last axis sums to one over what was attended to.
    losses : auxiliary losses by name, scalars.
    """

    fused: Tensor
    streams: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)


@dataclass(repr=False)
class Streams(Displayed):
    """What `Fusion.combine` receives: clean, batch-first, complete.

    x : one tensor per modality in the order of `dims`, `(B, T, d_m)`; zero at padded and (with `missing="zero"`) at
        absent steps. Unaligned methods may find a different T in each.
    mask : bool `(B, T)` of the anchor's real steps, or None when every step is real.
    present : per modality, bool `(B, T_m)` where its values may be attended to, or None for everywhere.
    attention : whether the caller wants attention maps.
    """

    x: list[Tensor]
    mask: Tensor | None
    present: list[Tensor | None]
    attention: bool

    @property
    def shape(self) -> tuple[int, int]:
        """`(B, T)` of the anchor."""
        return self.x[0].shape[0], self.x[0].shape[1]

    def presence(self) -> Tensor | None:
        """bool `(B, T, M)` where each modality of aligned streams is present; None when all are, everywhere."""
        if all(p is None for p in self.present):
            return None
        full = torch.ones(self.shape, dtype=torch.bool, device=self.x[0].device)
        return torch.stack([full if p is None else p for p in self.present], -1)


def read_dims(dims: Dims, owner: object = "Fusion") -> dict[str, int]:
    """Mapping of modality name to width from a mapping, or from a sequence of widths (`m0`, `m1`, ...)."""
    name = owner if isinstance(owner, str) else type(owner).__name__
    if isinstance(dims, Mapping):
        out = {str(k): v for k, v in dims.items()}
    elif isinstance(dims, Sequence) and not isinstance(dims, str):
        out = {f"m{i}": v for i, v in enumerate(dims)}
    else:
        raise OptionError(
            f"{name}: dims must map modality names to widths, such as {{'text': 1024, 'audio': 1582}}, or be a sequence "
            f"of widths; got {type(dims).__name__}"
        )
    for modality, width in out.items():
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise OptionError(f"{name}: the width of {modality!r} must be a positive integer, not {width!r}")
    return out


def linear_parameters(inputs: int, outputs: int, bias: bool = True) -> int:
    """Parameters of a linear map."""
    return inputs * outputs + bias * outputs


def projection(inputs: int, outputs: int) -> nn.Module:
    """A linear map, or the identity where the widths agree already."""
    return nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)


def projection_parameters(inputs: int, outputs: int) -> int:
    """Parameters of `projection(inputs, outputs)`."""
    return 0 if inputs == outputs else linear_parameters(inputs, outputs)


class Fusion(Configured, Pretrained, WithReference, nn.Module):
    """Base class of every fusion.

    Parameters
    ----------
    dims : mapping of modality name to feature width, or a sequence of widths (names then are `m0, m1, ...`). The first
        modality is the anchor of methods that have one: text, in this field.
    out_dim : width of the output; None for the anchor's. A projection is built only where the method's own width differs.
    missing : what stands in for a missing modality: `"zero"`, `"learned"` (one vector per modality) or `"error"`.

    Shapes
    ------
    streams : mapping or sequence of float tensors, `(B, d_m)` or `(B, T, d_m)`; a modality may be None or absent.
    mask : bool `(B, T)`, True where a step is real (one that seems to mean the opposite gives a `MaskWarning`); or a mapping of modality to such masks, where a real step without a
        modality counts as missing. Methods with `unaligned = True` take a different T for each modality.
    returns : `(B, out_dim)` or `(B, T, out_dim)`; zero at padded steps.

    Subclasses set the class attributes below (modalities : smallest and largest number of them. unaligned : takes another
    length in each. variants : what `variant=` accepts, the default first. for_sequences : the options with which such a method takes frames and tokens of any lengths, where its
    defaults are made for utterances; hosts of clips use them. decides : returns log-probabilities, which are never positive,
    so that hosts do not rectify them. search_space : option -> choices or `{"low", "high", "log"}`, what `compare --tune`
    searches besides, or otherwise than, `fusionzoo.experiments.search_space.SHARED`), call `self.set_width(w)` with the width that `combine` returns, and
    implement `combine`. Any module may have `without_gradient`, a mapping of its parameters whose
    gradient is zero in exact arithmetic to the reason; the conformance suite holds it to that, and all others to learning.
    """

    kind: ClassVar[str] = "fusion"
    handles: ClassVar[frozenset[str]] = frozenset({"masks", "missing"})
    modalities: ClassVar[tuple[int, int | None]] = (2, None)
    unaligned: ClassVar[bool] = False
    for_sequences: ClassVar[Mapping[str, object]] = {}
    decides: ClassVar[bool] = False
    search_space: ClassVar[Mapping[str, object]] = {}

    def __init__(self, dims: Dims, out_dim: int | None = None, *, missing: str = "zero"):  # pyright: ignore[reportRedeclaration]
        super().__init__()
        self.dims = read_dims(dims, self)
        self.names = tuple(self.dims)
        self._check_count()
        self.anchor = self.names[0]
        if out_dim is not None and (isinstance(out_dim, bool) or not isinstance(out_dim, int) or out_dim < 1):
            raise OptionError(f"{type(self).__name__}: out_dim must be a positive integer or None, not {out_dim!r}")
        self.out_dim = self.dims[self.anchor] if out_dim is None else out_dim
        self.missing = check_choice(missing, MISSING, "missing", self)
        self.stand_ins = nn.ParameterList()
        if missing == "learned":
            self.stand_ins.extend(nn.Parameter(torch.empty(d).normal_(std=0.02)) for d in self.dims.values())
        self.out: nn.Module = nn.Identity()
        self.mask_watch = MaskWatch()

    if TYPE_CHECKING:
        # Of what `get` returns only the base class is known: the options that its constructor takes may be any.
        def __init__(self, dims: Dims, out_dim: int | None = None, *, missing: str = "zero", **options: object): ...

    # -- for subclasses -------------------------------------------------------------------------------------------

    def set_width(self, width: int) -> None:
        """Declare the width of what `combine` returns; builds the output projection where it is needed."""
        self.out = projection(width, self.out_dim)

    def combine(self, streams: Streams) -> Fused:
        """The method itself: `Fused.fused` of shape `(B, T, width)`."""
        raise NotImplementedError(f"{type(self).__name__} must implement combine(streams) -> Fused")

    @classmethod
    def parameter_count(cls, dims: Dims, out_dim: int | None = None, **options: object) -> int:
        """Number of trainable parameters that the constructor builds for these arguments; no memory is taken for them."""
        with torch.device("meta"):
            built = cls(dims, out_dim, **options)  # type: ignore[arg-type]
        return sum(p.numel() for p in built.parameters() if p.requires_grad)

    # -- calling --------------------------------------------------------------------------------------------------

    def forward(self, streams: StreamsLike, mask: MaskLike = None) -> Tensor:
        """The fused tensor, `(B, out_dim)` or `(B, T, out_dim)`."""
        return self._run(streams, mask, attention=False).fused

    def fuse(self, streams: StreamsLike, mask: MaskLike = None, *, attention: bool = True) -> Fused:
        """The fused tensor with the streams after fusion, attention maps and auxiliary losses.

        `attention=False` leaves the maps out, which lets fused attention kernels run.
        """
        return self._run(streams, mask, attention)

    def _run(self, streams: StreamsLike, mask: MaskLike, attention: bool) -> Fused:
        if torch.jit.is_tracing():
            # The example is checked; whether it has steps, masks and one length is what the trace is made for.
            with fixed_in_trace():
                flat, clean = self._receive(streams, mask, attention)
        else:
            flat, clean = self._receive(streams, mask, attention)
        result = self.combine(clean)
        result.fused = self.out(result.fused)
        if result.fused.dim() == 3:
            result.fused = zero_padded(result.fused, clean.mask)
        result.streams = {
            m: zero_padded(x, clean.mask if clean.mask is None or x.shape[1] == clean.mask.shape[1] else None)
            if x.dim() == 3
            else x
            for m, x in result.streams.items()
        }
        if flat:
            result.fused = result.fused.squeeze(1) if result.fused.dim() == 3 else result.fused
            result.streams = {m: x.squeeze(1) if x.dim() == 3 else x for m, x in result.streams.items()}
        return result

    # -- the door -------------------------------------------------------------------------------------------------

    def _receive(self, streams: StreamsLike, mask: MaskLike, attention: bool) -> tuple[bool, Streams]:
        """Whether the streams are `(B, d)`, and what `combine` gets.

        Sizes are compared with each other, never hashed, counted or converted to Python numbers: `torch.export` and
        `torch.compile` keep batch and lengths free.
        """
        tensors = self._named(streams)
        flat = self._check_tensors(tensors)
        if flat:
            tensors = [None if x is None else x.unsqueeze(1) for x in tensors]
        masks, step_mask = self._read_mask(mask, tensors, flat)
        if isinstance(mask, Tensor) or same_length([x for x in tensors if x is not None]):
            self.mask_watch.look(self, tensors, step_mask)
        return flat, self._stand_in(tensors, masks, step_mask, attention)

    def _check_count(self) -> None:
        low, high = self.modalities
        if len(self.dims) < low or (high is not None and len(self.dims) > high):
            wants = f"exactly {low}" if low == high else f"at least {low}" if high is None else f"{low} to {high}"
            others = ", ".join(registry.names_that("fusion", modalities=len(self.dims)))
            raise OptionError(
                f"{type(self).__name__} fuses {wants} modalities, got {len(self.dims)} ({', '.join(self.names)})"
                + (f"; so many are taken by: {others}" if others else "")
            )

    def _named(self, streams: StreamsLike) -> list[Tensor | None]:
        if isinstance(streams, Mapping):
            unknown = [str(k) for k in streams if k not in self.dims]
            if unknown:
                raise ShapeError(
                    f"{type(self).__name__} was given the stream {unknown[0]!r}"
                    f"{close_matches_hint(unknown[0], self.names)}; it was built for {', '.join(self.names)}"
                )
            tensors = [streams.get(m) for m in self.names]
        elif isinstance(streams, Sequence) and not isinstance(streams, str):
            if len(streams) != len(self.names):
                raise ShapeError(
                    f"{type(self).__name__} fuses {len(self.names)} streams ({', '.join(self.names)}), got {len(streams)}; "
                    "give None for a missing one"
                )
            tensors = list(streams)
        else:
            raise ShapeError(
                f"{type(self).__name__} takes a mapping or a sequence of streams, not {type(streams).__name__}"
            )
        absent = [m for m, x in zip(self.names, tensors, strict=True) if x is None]
        if len(absent) == len(tensors):
            raise ShapeError(f"every stream is missing; {type(self).__name__} needs one of {', '.join(self.names)}")
        if absent and self.missing == "error":
            raise ShapeError(
                f"the stream {absent[0]!r} is missing and {type(self).__name__} was built with missing='error'; "
                "give it, or build the fusion with missing='zero' or 'learned'"
            )
        return tensors

    def _check_tensors(self, tensors: list[Tensor | None]) -> bool:
        """Check ranks, widths, batch, length, dtype and device; return whether the streams are `(B, d)`."""
        first: tuple[str, Tensor] | None = None
        for (name, width), x in zip(self.dims.items(), tensors, strict=True):
            if x is None:
                continue
            if not isinstance(x, Tensor):
                raise ShapeError(f"the stream {name!r} must be a tensor, not {type(x).__name__}")
            if x.dim() not in (2, 3):
                raise ShapeError(f"the stream {name!r} must be (B, {width}) or (B, T, {width}), got {tuple(x.shape)}")
            if x.shape[-1] != width:
                raise ShapeError(
                    f"the stream {name!r} has width {x.shape[-1]}, but {type(self).__name__} was built for {width} "
                    f"(dims={self.dims}); got shape {tuple(x.shape)}"
                )
            if not x.is_floating_point():
                raise ShapeError(
                    f"the stream {name!r} must be of a float dtype, not {x.dtype}; convert it with .float()"
                )
            if first is None:
                first = (name, x)
                continue
            a, y = first
            fixed = 1 if self.unaligned else -1
            if x.dim() != y.dim() or x.shape[:fixed] != y.shape[:fixed]:
                hint = ""
                if not self.unaligned:
                    others = ", ".join(registry.names_that("fusion", handles="unaligned"))
                    hint = f"; {type(self).__name__} fuses aligned streams, step by step" + (
                        f"; another length in each modality is taken by: {others}" if others else ""
                    )
                raise ShapeError(
                    f"the streams {a!r} {tuple(y.shape)} and {name!r} {tuple(x.shape)} differ in batch or length{hint}"
                )
            if x.dtype != y.dtype or x.device != y.device:
                raise ShapeError(
                    f"the streams {a!r} ({y.dtype} on {y.device}) and {name!r} ({x.dtype} on {x.device}) differ; "
                    "convert them to one dtype and device"
                )
        assert first is not None
        return first[1].dim() == 2

    def _read_mask(
        self, mask: MaskLike, tensors: list[Tensor | None], flat: bool
    ) -> tuple[list[Tensor | None], Tensor | None]:
        """Per modality the bool mask that was given (None: everywhere), and the mask of the output's real steps."""
        if mask is None:
            return [None] * len(tensors), None
        there = [x for x in tensors if x is not None]
        if isinstance(mask, Mapping):
            unknown = [str(k) for k in mask if k not in self.dims]
            if unknown:
                raise ShapeError(f"the mask names {unknown[0]!r}; the modalities are {', '.join(self.names)}")
            masks = [
                None if m not in mask or x is None else self._check_mask(mask[m], x, flat, m)
                for m, x in zip(self.names, tensors, strict=True)
            ]
            if self.unaligned and not same_length(there):
                return masks, masks[0]
            given = [m for m, x in zip(masks, tensors, strict=True) if x is not None]
            if any(m is None for m in given):
                return masks, None
            step = given[0]
            for other in given[1:]:
                step = step | other  # type: ignore[operator]
            return masks, step
        if not same_length(there):
            raise ShapeError(
                f"the streams have different lengths {[int(x.shape[1]) for x in there]}; give a mapping of modality to mask "
                "instead of one mask"
            )
        one = self._check_mask(mask, there[0], flat, None)
        return [one] * len(tensors), one

    def _check_mask(self, mask: Tensor, x: Tensor, flat: bool, name: str | None) -> Tensor:
        """The mask of a stream `(B, T, d)`, as `(B, T)`."""
        of = f" of {name!r}" if name else ""
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise ShapeError(
                f"the mask{of} must be a bool tensor, True where a step is real, not {kind}; use mask.bool()"
            )
        if flat and mask.dim() == 1:
            mask = mask.unsqueeze(1)
        if mask.shape != x.shape[:2]:
            expected = tuple(x.shape[: 1 if flat else 2])
            raise ShapeError(f"the mask{of} must have shape {expected}, got {tuple(mask.shape)}")
        return mask

    def _stand_in(
        self, tensors: list[Tensor | None], masks: list[Tensor | None], step: Tensor | None, attention: bool
    ) -> Streams:
        like = next(x for x in tensors if x is not None)
        aligned = same_length([x for x in tensors if x is not None])
        xs: list[Tensor] = []
        present: list[Tensor | None] = []
        for i, (x, m) in enumerate(zip(tensors, masks, strict=True)):
            steps = like.shape[1] if aligned else 1
            if x is None:
                width = self.dims[self.names[i]]
                x = like.new_zeros(like.shape[0], steps, width)
                m = torch.zeros(like.shape[0], steps, dtype=torch.bool, device=like.device)
            elif m is None or m is step:
                xs.append(zero_padded(x, m))
                present.append(m)
                continue
            real = step if aligned or i == 0 else None
            if self.missing == "learned" and (real is None or real.shape == m.shape):
                x = torch.where(m.unsqueeze(-1), x, self.stand_ins[i].to(x.dtype))
                m = real
            elif self.missing == "error" and real is not None and bool((real & ~m).any()):
                raise ShapeError(
                    f"the modality {self.names[i]!r} is missing at real steps and {type(self).__name__} was built with "
                    "missing='error'; build it with missing='zero' or 'learned'"
                )
            xs.append(zero_padded(x, m))
            present.append(m)
        return Streams(xs, step, present, attention)

    def _head_of_repr(self) -> str:
        return f"{dict(self.dims)} -> {self.out_dim}"
