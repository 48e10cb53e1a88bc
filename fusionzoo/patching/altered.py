"""Calls made from the caller's: one sample changed, padding poisoned, the clip cut, one dialogue doubled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.patching.arguments import set_argument
from fusionzoo.patching.calls import Call
from fusionzoo.patching.modalities import Leaf, ModalitiesLike, find_modalities
from fusionzoo.patching.promises import ONE_SAMPLE
from fusionzoo.patching.signatures import bind, forward_of
from fusionzoo.patching.sites import AnySite, InputSite
from fusionzoo.patching.trace.events import Trace

AMBIGUOUS = "nothing tells which axis of the streams counts samples; give layout="
#: Of a stream: the axis of samples, the places of one sample, and those of the others.
Samples = dict[str, tuple[int, Tensor, Tensor]]


class Altered:
    """A call of a host, taken apart, and what can be made of it.

    Attributes
    ----------
    samples : dict or str
        For each stream the axis of samples, the places of one and of the others; or why that is not known.
    """

    def __init__(
        self,
        host: nn.Module,
        call: Call,
        site: AnySite,
        modalities: ModalitiesLike,
        axis: int | None = None,
        shuffles: bool = False,
    ):
        self.host, self.call, self.site = host, call, site
        self.arguments = bind(forward_of(host), call.args, call.kwargs)
        self.leaves = find_modalities(self.arguments, None if isinstance(site, InputSite) else modalities)
        self.streams = [x for x in self.leaves if x.modality or x.widths]
        if isinstance(site, InputSite):
            self.streams = [x for x in self.streams if x.path == site.arg] or self.streams
        self.shuffles = shuffles  # whether tokens only change places: some stand for pictures, one for each vector
        self.flat = False  # whether the streams are rows of one dialogue after the other
        self.counts = _counts(self.leaves, self.arguments)
        self.samples: Samples | str = "no stream is found among the arguments"
        if self.streams:
            self.samples = self._sample_rows() if axis is None else self._along(axis)

    @property
    def modalities(self) -> list[str]:
        """The modalities, each once."""
        return list(dict.fromkeys(x.modality for x in self.streams if x.modality))

    def __str__(self) -> str:
        return ", ".join(f"{x.path} {list(x.tensor.shape)}" for x in self.streams)

    @property
    def trace(self) -> Trace:
        """What is known of the arguments, as the trace of a forward has it."""
        return Trace([], [], self.leaves, self.arguments)

    # -- what can be made of it -------------------------------------------------------------------------------------

    def changed(self, others: bool = False) -> Call | str:
        """One sample has other values, or all the others have; why not, where that is not known."""
        if isinstance(self.samples, str):
            return self.samples
        place = 2 if others else 1
        return self.changed_at({x.path: self._changed(x.tensor, *self._at(x, place)) for x in self.streams})

    def half_of_tokens(self, second: bool) -> Call | str:
        """One half of a sample's tokens is another; why not, where no stream is tokens."""
        if isinstance(self.samples, str):
            return self.samples
        changed: dict[str, Tensor] = {}
        for x in self.streams:
            if x.tensor.is_floating_point() or x.tensor.dim() != 2:
                continue
            axis, rows = self._at(x, 1)
            steps = x.tensor.shape[1 - axis]
            halves = list(x.tensor.detach().split([steps // 2, steps - steps // 2], 1 - axis))
            halves[second] = self._changed(halves[second], axis, rows)
            changed[x.path] = torch.cat(halves, 1 - axis)
        return self.changed_at(changed) if changed else "no stream is tokens"

    @property
    def tokens(self) -> bool:
        """Whether a stream is tokens."""
        return any(not x.tensor.is_floating_point() for x in self.streams)

    def _changed(self, x: Tensor, axis: int, where: Tensor) -> Tensor:
        return _changed(x, axis, where, self.shuffles)

    def _at(self, x: Leaf, place: int) -> tuple[int, Tensor]:
        assert not isinstance(self.samples, str)
        rows = self.samples[x.path]
        return rows[0], rows[1] if place == 1 else rows[2]

    def only(self, modality: str) -> Call:
        """One modality has other values."""
        mine = [x for x in self.streams if x.modality == modality]
        return self.changed_at({x.path: self._changed(x.tensor, 0, torch.arange(len(x.tensor))) for x in mine})

    def smaller(self) -> Iterator[Call]:
        """Fewer samples and shorter clips, then one of the two.

        Clips are cut along the axis beside the samples, or along those behind the second, where a convolution has time and places.
        """
        cuts = self._cuts()
        whole: dict[str, Any] = {x.path: x.tensor.detach() for x in self.leaves}
        whole.update({name: v for name, v in self.arguments.items() if _whole_numbers(v)})
        fewer = self._fewer(whole)
        for start in (fewer, whole):
            for cut in cuts:
                smaller = None if start is None else self._cut(start, cut)
                if smaller is not None:
                    yield self.changed_at({path: v for path, v in smaller.items() if v is not whole[path]})
        if fewer is not None:
            yield self.changed_at({path: v for path, v in fewer.items() if v is not whole[path]})

    def _cuts(self) -> list[dict[str, tuple[int, ...]]]:
        """The axes of every stream along which clips may be cut, in the order in which they are tried."""
        timed = [x for x in self.streams if x.tensor.dim() > 2 or not x.tensor.is_floating_point()]
        if not timed:
            return []
        axes = (1, 0) if isinstance(self.samples, str) else (None,)
        beside = [{x.path: (self._beside(x) if d is None else d,) for x in timed} for d in axes]
        return [*beside, {x.path: tuple(range(2, x.tensor.dim())) or (1,) for x in timed}]

    @property
    def count(self) -> int:
        """How many samples there are, where they are counted along an axis."""
        if self.flat or isinstance(self.samples, str):
            return 0
        return sum(map(len, next(iter(self.samples.values()))[1:]))

    def _fewer(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Without the last sample; None where samples are not counted along an axis of another size than others."""
        batch, out = self.count, dict(values)
        if batch < 2 or isinstance(self.samples, str):
            return None
        for path, value in values.items():
            if not isinstance(value, Tensor):
                out[path] = value[:-1] if len(value) == batch else value
                continue
            axes = [d for d, n in enumerate(value.shape[:2]) if n == batch]
            if len(axes) > 1:
                return None
            for axis in axes if path not in self.samples else [self.samples[path][0]]:
                out[path] = value.narrow(axis, 0, batch - 1)
        return out

    def _beside(self, x: Leaf) -> int:
        assert not isinstance(self.samples, str)
        return 1 - self.samples[x.path][0]

    def _cut(self, values: Mapping[str, Any], axes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
        """Shorter along these axes of the streams, and wherever else an axis is as long; lengths follow."""
        sizes = {values[path].shape[axis] for path, along in axes.items() for axis in along}
        if min(sizes) < 3 or sizes & {self.count, self.count - 1}:
            return None
        to = {size: size - size // 3 for size in sizes}
        most, out, streams = min(to.values()), dict(values), {x.path for x in self.streams}
        for path, value in values.items():
            if not isinstance(value, Tensor):
                out[path] = type(value)(min(v, most) for v in value)
                continue
            where = axes.get(path, () if path in streams else [d for d, n in enumerate(value.shape) if n in to])
            for axis in where:
                out[path] = out[path].narrow(axis, 0, to[value.shape[axis]])
            if value.dim() == 1 and not value.is_floating_point() and not where:
                out[path] = value.clamp(max=most)
        return out

    def doubled(self) -> Call | None:
        """A batch of two, each of them the only sample that there is; None where it is not clear how."""
        rows = len(self.streams[0].tensor)
        flat = all(x.tensor.dim() == 2 and x.tensor.is_floating_point() for x in self.streams)
        flat = flat and [rows] in self.counts and rows > 1
        streams, new = {x.path for x in self.streams}, {}
        for x in self.leaves:
            size = rows if flat and rows in x.tensor.shape[:2] else 1
            ones = [d for d, n in enumerate(x.tensor.shape[:2]) if n == size]
            if len(ones) == 1:
                new[x.path] = torch.cat([x.tensor.detach()] * 2, ones[0])
            elif x.path in streams:
                return None
        for name, value in self.arguments.items():
            if _whole_numbers(value) and len(value) == 1:
                new[name] = value * 2
        return self.changed_at(new)

    def changed_at(self, values: Mapping[str, Any]) -> Call:
        """The call with other values at some paths."""
        args, kwargs = self.call.args, self.call.kwargs
        for path, value in values.items():
            args, kwargs = set_argument(forward_of(self.host), args, kwargs, path, value)
        return Call(*args, **kwargs)

    # -- which axis counts samples ----------------------------------------------------------------------------------

    def _sample_rows(self) -> Samples | str:
        streams = self.streams
        flat = all(x.tensor.dim() == 2 and x.tensor.is_floating_point() for x in streams)
        if flat and (self.site.layout in ("(N, d)", "(T, d)") or [len(streams[0].tensor)] in self.counts):
            return self._rows_of_dialogues()
        size = self._sample_count()
        if isinstance(size, str):
            return self._rows_by_counts() or size
        if size < 2:
            return ONE_SAMPLE
        axes = {x.path: [d for d in range(_outer_axes(x)) if x.tensor.shape[d] == size] for x in streams}
        if any(len(found) > 1 for found in axes.values()):
            return AMBIGUOUS
        return {path: (axis, torch.arange(1), torch.arange(1, size)) for path, (axis,) in axes.items()}

    def _rows_of_dialogues(self) -> Samples | str:
        """The first dialogue of a flat list of rows, and the others."""
        rows = len(self.streams[0].tensor)
        lengths = next((c for c in self.counts if len(c) > 1 and sum(c) == rows), None)
        if lengths is None and [rows] in self.counts:
            return ONE_SAMPLE
        if lengths is None or any(len(x.tensor) != rows for x in self.streams):
            return "nothing in the call tells which rows are one dialogue"
        self.flat = True
        return {x.path: (0, torch.arange(lengths[0]), torch.arange(lengths[0], rows)) for x in self.streams}

    def _rows_by_counts(self) -> Samples | None:
        """The first sample and the others, where some streams hold the rows of all samples, cut by counts of their own."""
        for batch in sorted({len(c) for c in self.counts if len(c) > 1}):
            found: Samples = {}
            for x in self.streams:
                axes = [d for d in range(_outer_axes(x)) if x.tensor.shape[d] == batch]
                firsts = {c[0] for c in self.counts if len(c) == batch and sum(c) == len(x.tensor)}
                if len(axes) == 1 or (not axes and len(firsts) == 1):
                    axis, first, rows = (axes[0], 1, batch) if axes else (0, firsts.pop(), len(x.tensor))
                    found[x.path] = axis, torch.arange(first), torch.arange(first, rows)
            if len(found) == len(self.streams):
                self.flat = True
                return found
        return None

    def _along(self, axis: int) -> Samples | str:
        """Taken to be along one axis of every stream; along the first one in blocks, where a sample has several rows there."""
        sizes = {x.path: x.tensor.shape[axis] for x in self.streams if _outer_axes(x) > axis}
        count = min(sizes.values(), default=0)
        if len(sizes) < len(self.streams) or any(n % max(count, 1) or (axis and n > count) for n in sizes.values()):
            return "the streams have no such axis in common"
        if count < 2:
            return ONE_SAMPLE
        self.flat = any(n > count for n in sizes.values())
        blocks = {path: (torch.arange(n // count), torch.arange(n // count, n)) for path, n in sizes.items()}
        return {path: (axis, *rows) for path, rows in blocks.items()}

    def _sample_count(self) -> int | str:
        streams = self.streams
        sizes = set.intersection(*({*x.tensor.shape[: _outer_axes(x)]} for x in streams))
        if not sizes:
            return "the streams have no axis of one size that could count samples"
        if len(sizes) > 1 and len(told := sizes & {len(c) for c in self.counts}) == 1:
            sizes = told
        first = next((x.tensor for x in streams if x.tensor.dim() > 2), None)
        if len(sizes) > 1 and first is not None:
            pair = tuple(first.shape[:2])
            masks = [tuple(x.tensor.shape) for x in self.leaves if "mask" in x.hint.lower() and x.modality is None]
            if pair in masks or pair[::-1] in masks:
                sizes = {pair[0] if pair in masks else pair[1]}
        return sizes.pop() if len(sizes) == 1 else AMBIGUOUS


def _outer_axes(x: Leaf) -> int:
    return 1 if x.tensor.dim() == 2 and x.tensor.is_floating_point() else 2


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(type(i) is int for i in value)


def _counts(leaves: Sequence[Leaf], arguments: Mapping[str, Any]) -> list[list[int]]:
    """Lists of whole numbers in the call, which may be lengths."""
    out = [list(v) for v in arguments.values() if _whole_numbers(v)]
    for x in leaves:
        if x.modality is None and x.tensor.dim() == 1 and x.tensor.dtype in (torch.int32, torch.int64):
            out.append(x.tensor.tolist())
    return out


def noise(x: Tensor) -> Tensor:
    """Random values, the same ones every time."""
    generator = torch.Generator().manual_seed(11)
    return torch.randn(x.shape, generator=generator).to(x.device, x.dtype) + 1


def _changed(x: Tensor, axis: int, where: Tensor, shuffles: bool = False) -> Tensor:
    """A stream with other values at some places of an axis, which a host that looks values up can take: the batch's own.

    Token ids become others of the batch, those aside that a sample has several times; where a host does not take that, because
    some stand for pictures, they change their order only. Random values come last.
    """
    where, x = where.to(x.device), x.detach()
    part = x.index_select(axis, where)
    own = [part.roll(1, d) for d in range(x.dim() - 1, -1, -1) if d != axis]
    if x.is_floating_point():
        new = [x.roll(1, axis).index_select(axis, where), *own[1:], part + noise(part)]
    else:
        new = [*(() if shuffles else (_other_tokens(x, part, axis),)), *own, x.max() - part + x.min()]
    return x.index_copy(axis, where, next((y for y in new if not torch.equal(y, part)), new[-1]))


def _other_tokens(x: Tensor, part: Tensor, axis: int) -> Tensor:
    """Token ids, each the next one of those in the batch that no sample has twice."""
    ids = x.unique()
    most = torch.stack([(x == i).sum(tuple(d for d in range(x.dim()) if d != axis)).max() for i in ids])
    once = ids[most == 1]
    if len(once) < 2:
        return part
    place = torch.searchsorted(once, part.contiguous()).clamp(max=len(once) - 1)
    return torch.where(once[place] == part, once[(place + 1) % len(once)], part)
