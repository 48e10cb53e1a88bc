"""Which steps of a call's streams are padding, and the call with other padding: other values in it, or more of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fusionzoo.patching.altered import Altered, noise
from fusionzoo.patching.calls import Call
from fusionzoo.patching.find.real_steps import Told, is_packed, of_stream
from fusionzoo.patching.fuse.contexts import ArgumentContext, Context, StreamContexts, before_zeros, read_context
from fusionzoo.patching.modalities import Leaf
from fusionzoo.patching.promises import NO_PADDING

UNTOLD = "nothing in the call tells which steps are padding"
WET = "in the model itself, padding reaches every output"
SEEN = "the model itself sees the last step of every sample, so that none is padding to it"
#: How many steps of padding are added.
MORE = 2


class Padding:
    """Which steps of the streams are real, as the call tells it.

    Attributes
    ----------
    real : dict
        Of every stream of which it is told which steps are real: they, to be broadcast over it.
    told : dict
        By the stream's path, the argument that tells it.
    zeros : dict
        Of every stream of which nothing but its zeros at the end tells it: the steps before them.
    untold : list of str
        Streams of several steps of which nothing tells it, and whose last step the bare host does not see in every sample.
    why : str
        Why padding cannot be tried with values of its own; empty where it can.
    """

    def __init__(self, altered: Altered, context: Context | None):
        self.altered, self.context = altered, context
        self.real: dict[str, Tensor] = {}
        self.told: dict[str, Told] = {}
        self.zeros: dict[str, Tensor] = {}
        self.untold: list[str] = []
        self.why = ""
        if isinstance(altered.samples, str):
            self.why = altered.samples
            return
        self.streams = [x for x in altered.streams if _has_steps(x)]
        given = None if context is None else self._read(context)
        for x in self.streams:
            self._find(x, given)
        if not self.streams:
            self.why = "the streams have no axis of time"
        elif not self.real:
            self.why = UNTOLD
        elif all(bool(steps.all()) for steps in self.real.values()):
            self.why = NO_PADDING

    def _find(self, x: Leaf, given: Mapping[str, Any] | None) -> None:
        axis = self._axis(x)
        told = of_stream(self.altered.trace, x, axis)
        by_argument = None if told is None else _real(self._read(told.context), x.tensor, axis)
        by_context = None if given is None else _real(_of_modality(given, x.modality), x.tensor, axis)
        if told is not None and by_argument is not None and (by_context is None or not told.guess):
            self.real[x.path], self.told[x.path] = by_argument, told
            return
        if by_context is not None:
            self.real[x.path] = by_context
            return
        self.untold.append(x.path)
        if x.tensor.is_floating_point():
            held = before_zeros(x.tensor if axis == 0 else x.tensor.transpose(0, 1))
            if not bool(held.all()) and bool(held[:, 0].all()):
                self.zeros[x.path] = (held if axis == 0 else held.T).unsqueeze(-1)

    def _axis(self, x: Leaf) -> int:
        assert not isinstance(self.altered.samples, str)
        return self.altered.samples[x.path][0]

    def _read(self, source: Context, call: Call | None = None) -> dict[str, Any]:
        call = call or self.altered.call
        return read_context(source, self.altered.host, call.args, call.kwargs, self.altered.site.where)

    # -- for a fusion -------------------------------------------------------------------------------------------------

    @property
    def contexts(self) -> list[ArgumentContext | StreamContexts]:
        """What a fusion could be told, the likeliest first: one argument for all streams, each stream's own, the zeros."""
        deepest = sorted(
            self.streams if not isinstance(self.altered.samples, str) else [], key=lambda x: -x.tensor.dim()
        )
        own: dict[str, ArgumentContext] = {}
        for x in deepest:
            if x.path in self.told and x.modality:
                own.setdefault(x.modality, self.told[x.path].context)
        out: list[ArgumentContext | StreamContexts] = [*list(own.values())[:1]]
        if own:
            out.append(StreamContexts(tuple(own.items())))
        out += [ArgumentContext(x.path, "zeros" + ".T" * self._axis(x)) for x in deepest if x.path in self.zeros][:1]
        return out

    # -- what can be made of it ---------------------------------------------------------------------------------------

    @property
    def guesses(self) -> set[str]:
        """Streams of which it is a guess which steps are real."""
        return {path for path, told in self.told.items() if told.guess}

    def poisoned(self, without: Iterable[str] = ()) -> Call | str:
        """Padded steps hold other values; why not, where there are none or nothing tells them."""
        if self.why:
            return self.why
        poisoned = {
            x.path: _other_values(x.tensor.detach(), self.real[x.path])
            for x in self.streams
            if x.path in self.real and x.path not in without and not bool(self.real[x.path].all())
        }
        return self.altered.changed_at(poisoned) if poisoned else NO_PADDING

    def last_step(self, path: str) -> Call:
        """The call with other values in the last step of one stream, in every sample."""
        (x,) = (x for x in self.streams if x.path == path)
        before = (
            getattr(self.altered.site, "feature_axis", -1) == -2 and x.tensor.dim() == 3
        )  # features stand before time
        time = 2 if before else 1 - self._axis(x)
        kept = torch.ones_like(x.tensor, dtype=torch.bool)
        kept.select(time, -1).fill_(False)
        return self.altered.changed_at({path: _other_values(x.tensor.detach(), kept)})

    def seen(self, path: str) -> None:
        """The bare host sees the last step of a stream in every sample: none is padding to it."""
        self.untold.remove(path)
        zeros = self.zeros.pop(path, None) is not None
        if self.why == UNTOLD and not self.untold:
            self.why = WET if zeros else SEEN

    def longer(self) -> Call | str:
        """The same with more steps of padding at the end, wherever the call counts steps."""
        known = {**self.zeros, **self.real}
        if not known or self.why not in ("", UNTOLD, SEEN):
            return self.why or UNTOLD
        axes = {x.path: _time(x.tensor, known[x.path], self._axis(x)) for x in self.streams if x.path in known}
        sizes = {x.tensor.shape[axes[x.path]] for x in self.streams if x.path in axes}
        batch = {x.tensor.shape[self._axis(x)] for x in self.streams}
        if sizes & batch:
            return "there are as many steps as samples"
        inverted = {t.context.path for t in self.told.values() if t.context.form.startswith("not ")}
        longer: dict[str, Tensor] = {}
        streams = {x.path for x in self.altered.streams}
        for x in self.altered.leaves:
            y = x.tensor.detach()
            where = [axes[x.path]] if x.path in axes else [] if x.path in streams else range(y.dim())
            for axis in where:
                if y.shape[axis] in sizes:
                    y = _extended(y, axis, known.get(x.path), x.path in inverted)
            if y.shape != x.tensor.shape:
                longer[x.path] = y
        call = self.altered.changed_at(longer)
        return "the context tells of this batch alone" if self._stays(call) else call

    def _stays(self, longer: Call) -> bool:
        """Whether the caller's context has masks of the same size for a longer batch."""
        if self.context is None or isinstance(self.context, (ArgumentContext, StreamContexts)):
            return False
        now, then = (_shapes(self._read(self.context, call)) for call in (self.altered.call, longer))
        return any(shape == then.get(name) for name, shape in now.items())

    @property
    def samples(self) -> list[int]:
        """Those with a padded step."""
        padded: set[int] = set()
        for x in self.streams:
            real = self.real.get(x.path)
            if real is not None:
                padded.update((~real).movedim(self._axis(x), 0).flatten(1).any(1).nonzero().flatten().tolist())
        return sorted(padded)


def _has_steps(x: Leaf) -> bool:
    return x.tensor.dim() == (3 if x.tensor.is_floating_point() else 2) or is_packed(x.tensor)


def _of_modality(given: Mapping[str, Any], modality: str | None) -> dict[str, Any]:
    """What a context tells of one stream."""
    return {k: v.get(modality) if isinstance(v, Mapping) else v for k, v in given.items()}


def _real(told: Mapping[str, Any], x: Tensor, axis: int) -> Tensor | None:
    """Which steps are real, to be broadcast over a stream; None where what was told is of another size."""
    batch, mask, lengths = x.shape[axis], told.get("mask"), told.get("lengths")
    times = [d for d in (1 - axis, 2)[: x.dim() - 1] if mask is None or x.shape[d] == mask.shape[-1]]
    if not times:
        return None
    steps = x.shape[times[0]]
    if mask is None and lengths is not None and lengths.numel() == batch:
        mask = torch.arange(steps) < lengths.flatten().cpu().view(-1, 1)
    if mask is None or tuple(mask.shape) != (batch, steps):
        return None
    shape = [n if d in (axis, times[0]) else 1 for d, n in enumerate(x.shape)]
    return (mask.bool() if axis < times[0] else mask.bool().T).reshape(shape)


def _shapes(told: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The masks in what a context tells, by the stream's name, which is empty for one of all."""
    mask = told.get("mask")
    each = mask if isinstance(mask, Mapping) else {"": mask}
    return {name: tuple(x.shape) for name, x in each.items() if x is not None}


def _time(x: Tensor, real: Tensor, batch_axis: int) -> int:
    """The axis of steps: the other one along which it is told which are real."""
    return next((d for d in range(real.dim()) if d != batch_axis and real.shape[d] == x.shape[d] > 1), 1 - batch_axis)


def _extended(x: Tensor, axis: int, real: Tensor | None, inverted: bool) -> Tensor:
    """With more steps at the end of an axis: as its own padding, where it has some, else zeros; ones in a mask of padding."""
    more = x.narrow(axis, 0, 1).repeat_interleave(MORE, axis).zero_()
    if inverted:
        more = torch.ones_like(more)
    elif real is not None and not x.is_floating_point():
        padded = x[~real.to(x.device).expand_as(x)] if real.dim() == x.dim() and not is_packed(x) else x[:0]
        more = more + padded.flatten()[0] if padded.numel() else more
    return torch.cat([x, more], axis)


def _other_values(x: Tensor, real: Tensor) -> Tensor:
    """A stream with other values where it is not real."""
    real = real.to(x.device)
    if is_packed(x):
        return torch.cat([_other_ids(x[:, :1], real[:, :1]), x[:, 1:]], 1)
    return torch.where(real, x, 10 * noise(x)) if x.is_floating_point() else _other_ids(x, real)


def _other_ids(x: Tensor, real: Tensor) -> Tensor:
    """Token ids with others of the batch's real ones at padded steps; those aside that a sample has several times."""
    kept = x[real.expand_as(x)]
    ids = kept.unique()
    once = torch.stack([((x == i) & real).flatten(1).sum(1).max() for i in ids]) == 1
    ids = ids[once] if int(once.sum()) > 1 else ids
    count = torch.arange(x.numel(), device=x.device).view(x.shape) % len(ids)
    new = torch.where(ids[count] == x, ids[(count + 1) % len(ids)], ids[count])
    return torch.where(real, x, new)
