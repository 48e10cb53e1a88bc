"""The module that a patch adds to a model: the fusion, the projections back, and how they are put between."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.errors import FusionZooError, ShapeError
from fusionzoo.fusion import Fusion
from fusionzoo.patching.fuse.arrange import Arranged, arrange, spread
from fusionzoo.patching.fuse.contexts import Context, read_context
from fusionzoo.patching.fuse.own_randomness import OwnRandomness
from fusionzoo.patching.running_calls import running_call
from fusionzoo.patching.torch_calls import tensors_in


@dataclass(frozen=True)
class Plan:
    """How a fusion sits at a site.

    kind : the site's.
    groups : modality -> positions of its operands.
    widths : modality -> width of its stream.
    slots : how many operands were joined when the site was found.
    width : features of what the projection gives back: of the result, or of one operand where rows are joined.
    """

    kind: str
    mode: str
    groups: dict[str, tuple[int, ...]]
    widths: dict[str, int]
    slots: int
    axis: int | None
    feature_axis: int
    layout: str
    width: int
    across: bool
    token: str
    varies: bool
    what: str
    unaligned: bool = False  # whether the fusion takes streams of different lengths
    leading: int = 1
    sources: tuple[tuple[int, int], ...] = ()  # where operands of earlier expressions belong to the join: the site's
    separate: bool = field(default=False)  # rows and stacks: every modality's rows get a projection of their own


class FusionLayer(nn.Module):
    """A fusion at a site of a host.

    fusion : the fusion itself.
    out : projections to the host's width, one per modality where rows are joined, else one called `joined`; starting at zero
        in residual mode.
    """

    def __init__(self, fusion: nn.Module, plan: Plan, out: Mapping[str, nn.Module], context: Context | None = None):
        super().__init__()
        self.fusion = fusion
        self.out = nn.ModuleDict(out)
        self._parts: tuple[Any, Any]
        self._now: list[Any]
        self.plan = plan
        self.context = context
        self._count = [0]
        self._random: dict[str, Any] = {}
        # The usual join, whose operands are the streams: a time loop passes here at every step.
        single = all(len(where) == 1 for where in plan.groups.values())
        self._direct = (
            single and not plan.sources and plan.kind in ("cat", "sum", "product") and plan.feature_axis == -1
        )
        own = tuple(getattr(fusion, "dims", plan.widths))  # an instance may have names of its own
        self._names = tuple(plan.widths) if set(own) == set(plan.widths) else own
        self._usual: list[Any] = []  # shapes that were found to fit
        self._in_place = plan.mode == "residual"
        self._order = [where[0] for where in plan.groups.values() if where]
        self._first = next(iter(self.out))
        self.names = frozenset(self.state_dict())  # of its weights, as they are saved
        named = itertools.chain(*(m.named_parameters(prefix=n) for n, m in self.named_children()))
        # By its place: replicas of nn.DataParallel hold their weights as plain attributes.
        *self._place, self._leaf = next((n for n, p in named if p.is_floating_point()), "").split(".")

    @property
    def calls(self) -> int:
        """How often the host came by."""
        return self._count[0]

    @calls.setter
    def calls(self, count: int) -> None:
        self._count[0] = count

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("fusion", "out"):
            # Beside the registered ones, because nn.Module finds an attribute of its own slowly. Whoever exchanges one of them
            # (a wrapper, a replica of nn.DataParallel) comes by here; what is inside them is looked up at every call.
            self.__dict__["_parts"] = tuple(getattr(self, n, None) for n in ("fusion", "out"))
            # Dtype and device of the weights during a call of the host's; each replica has its own.
            self.__dict__["_now"] = []

    def begin(self) -> None:
        """A call of the host's method begins: what does not change during it is found out once."""
        self._now[:] = [None]

    def forward(
        self,
        result: Any,
        function: Callable[..., Any] | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        kept: Mapping[int, tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]] | None = None,
    ) -> Any:
        """Act on what a join returned, or on an argument that holds joined features.

        kept : earlier expressions of the same join, with their arguments.
        """
        if self.plan.kind == "input":
            return self._input(result)
        assert function is not None
        if self._direct and isinstance(result, Tensor) and kwargs.keys() <= _AXIS:
            xs = args[0] if self.plan.kind == "cat" else args
            if len(xs) == self.plan.slots:
                streams = [xs[i] for i in self._order]
                shapes = [getattr(x, "shape", None) for x in streams]
                if shapes == self._usual or shapes == [(*result.shape[:-1], w) for w in self.plan.widths.values()]:
                    self._usual[:] = shapes  # nn.Module assigns slowly
                    self._count[0] += 1
                    fused, arranged = self._fuse(streams)
                    delta = arranged.back(self._project("joined", fused))
                    if self._in_place and function in _FRESH and delta.dtype is result.dtype:
                        return result.sub_(delta)  # as in _combine; nobody else holds what cat has just made
                    return self._combine(result, delta)
        target = result if isinstance(result, Tensor) else next(iter(tensors_in(result)), None)
        if target is None:
            return result
        operands = _operands(function, args, kwargs)
        if self.plan.sources:
            known = {-1: operands, **{k: _operands(*call) for k, call in (kept or {}).items()}}
            try:
                operands = [known[k][j] for k, j in self.plan.sources]
            except (KeyError, IndexError):  # another way through the host's code led here
                return self._misfit(result, f"no operands of {len(self.plan.sources)} streams")
        changed = self._at_join(target, operands)
        if changed is target:
            return result
        self._count[0] += 1
        if isinstance(result, Tensor):
            return changed
        return type(result)([changed, *list(result)[1:]]) if type(result) in (list, tuple) else changed

    def _input(self, joined: Any) -> Tensor:
        """Act on an argument that holds the joined features."""
        plan = self.plan
        total = sum(plan.widths.values())
        if not isinstance(joined, Tensor) or joined.shape[-1] != total:
            shape = tuple(joined.shape) if isinstance(joined, Tensor) else type(joined).__name__
            raise ShapeError(f"{plan.what}: expected {total} features ({plan.widths}), got {shape}")
        parts = list(joined.split(list(plan.widths.values()), -1))
        fused, arranged = self._fuse(parts)
        self._count[0] += 1
        return self._combine(joined, arranged.back(self._project("joined", fused)))

    # -- joins ----------------------------------------------------------------------------------------------------

    def _at_join(self, target: Tensor, operands: list[Tensor]) -> Tensor:
        plan = self.plan
        groups = plan.groups
        if plan.kind in ("cat", "rows", "stack") and len(operands) != plan.slots:
            groups = spread(groups, plan.slots, len(operands))
        if len(operands) < 2:  # `0 + x` at the beginning of a sum: nothing is joined yet
            return target
        if groups is None or any(i >= len(operands) for where in groups.values() for i in where):
            return self._misfit(target, f"{len(operands)} operands instead of {plan.slots}")
        streams = {m: [operands[i] for i in where] for m, where in groups.items()}
        if plan.kind in ("rows", "stack"):
            return self._rows(target, operands, streams)
        if plan.kind == "outer":
            lead = target.shape[: plan.leading]
            xs = [torch.cat([x.reshape(*lead, -1) for x in parts], -1) for parts in streams.values()]
            if not self._fits(xs):
                return self._misfit(target, _shapes(xs))
            fused, arranged = self._fuse(xs)
            return self._combine(target, arranged.back(self._project("joined", fused)).reshape(target.shape))
        axis = plan.feature_axis
        if plan.kind == "cross-attention":
            return self._attention(target, streams)
        lead = target.movedim(axis, -1).shape[:-1]
        xs = []
        for parts in streams.values():
            wide = [p.movedim(axis, -1) if p.dim() >= -axis else p for p in parts]
            wide = [p.expand(*lead, p.shape[-1]) for p in wide]
            xs.append(wide[0] if len(wide) == 1 else torch.cat(wide, -1))
        if not self._fits(xs):
            return self._misfit(target, _shapes(xs))
        fused, arranged = self._fuse(xs)
        delta = arranged.back(self._project("joined", fused))
        return self._combine(target, delta.movedim(-1, axis))

    def _rows(self, target: Tensor, operands: list[Tensor], streams: dict[str, list[Tensor]]) -> Tensor:
        """Rows or slots joined: what is fused goes back into every modality's."""
        plan = self.plan
        axis, feature = plan.axis or 0, plan.feature_axis
        stacked = plan.kind == "stack"
        slots = not stacked and operands[0].dim() > 2 and all(o.shape[axis] == 1 for o in operands)
        xs = []
        for parts in streams.values():
            wide = [(p.squeeze(axis) if slots else p).movedim(feature, -1) for p in parts]
            if stacked and feature == -2:
                wide = [p.squeeze(-2) for p in wide]
            if len(wide) == 1:
                xs.append(wide[0])
            else:
                xs.append(torch.cat(wide, -1 if stacked or slots else axis))
        if not self._fits(xs):
            return self._misfit(target, _shapes(xs))
        pieces = None
        if not stacked and not slots and plan.layout == "(N, d)":
            first = next(iter(streams.values()))
            pieces = [p.shape[axis] for p in first] if len(first) > 1 else None
        if stacked or slots or len({x.shape for x in (x[..., 0] for x in xs)}) == 1:
            fused, arranged = self._fuse(xs, {"lengths": pieces} if pieces else None)
            deltas = {m: arranged.back(self._project(m, fused)) for m in streams}
        else:
            deltas = self._unaligned_rows(xs, list(streams), axis)
        out: list[Tensor] = []
        places = {i: (m, j) for m, where in self._places(len(operands)).items() for j, i in enumerate(where)}
        for i, o in enumerate(operands):
            if i not in places:
                out.append(torch.zeros_like(o))
                continue
            m, j = places[i]
            delta = deltas[m]
            if not (stacked or slots) and len(streams[m]) > 1:
                sizes = [p.shape[axis] for p in streams[m]]
                delta = delta.split(sizes, axis)[j]
            delta = delta.unsqueeze(-1) if stacked and feature == -2 else delta.movedim(-1, feature)
            out.append(delta.unsqueeze(axis) if slots else delta.expand(o.shape))
        joined = torch.stack(out, axis) if stacked else torch.cat(out, axis)
        return self._combine(target, joined)

    def _places(self, count: int) -> dict[str, tuple[int, ...]]:
        plan = self.plan
        return plan.groups if count == plan.slots else spread(plan.groups, plan.slots, count) or {}

    def _unaligned_rows(self, xs: list[Tensor], names: list[str], axis: int) -> dict[str, Tensor]:
        """Lists of different lengths: an unaligned fusion follows its anchor, others see each list's mean."""
        if self.plan.unaligned and self.plan.layout in ("(B, T, d)", "(T, B, d)"):
            fused, arranged = self._fuse(xs)
            steps = fused if fused.dim() == 3 and fused.shape[1] == arranged.streams[0].shape[1] else None
            vector = fused.mean(1) if fused.dim() == 3 else fused
        else:
            steps, arranged = None, None
            flat = [x.mean(axis) for x in xs]
            flat = [x.unsqueeze(0) for x in flat] if flat[0].dim() == 1 else flat
            vector = self._call(flat, None)
        out = {}
        for i, (m, x) in enumerate(zip(names, xs, strict=True)):
            if i == 0 and steps is not None and arranged is not None:
                out[m] = arranged.back(self._project(m, steps))
            else:
                delta = self._project(m, vector)
                delta = delta.squeeze(0) if x.dim() == 2 else delta
                out[m] = delta.unsqueeze(axis).expand(*x.shape[:-1], delta.shape[-1])
        return out

    def _attention(self, target: Tensor, streams: dict[str, list[Tensor]]) -> Tensor:
        """An attention between streams: the query's steps are those of the result."""
        time = 0 if self.plan.layout == "(T, B, d)" else -2
        xs = []
        for parts in streams.values():
            x = parts[0]  # keys and values are one stream
            if x.shape[:-1] != target.shape[:-1] and not (self.plan.unaligned and self.plan.layout != "(..., d)"):
                x = x.mean(time, keepdim=True).expand(*target.shape[:-1], x.shape[-1])
            xs.append(x)
        if not self._fits(xs):
            return self._misfit(target, _shapes(xs))
        fused, arranged = self._fuse(xs)
        delta = arranged.back(self._project("joined", fused))
        if delta.shape != target.shape:
            return self._misfit(target, f"a result of {tuple(target.shape)}")
        return self._combine(target, delta)

    def _fits(self, xs: list[Tensor]) -> bool:
        return [x.shape[-1] for x in xs] == list(self.plan.widths.values())

    def _misfit(self, target: Tensor, got: str) -> Tensor:
        """A place where the same line joins streams of other widths is left alone there; else it is an error."""
        if self.plan.varies:
            return target
        raise ShapeError(
            f"{self.plan.what}: the fusion was built for {self.plan.widths}, the host gave {got}; look for sites again with "
            "inputs of this kind"
        )

    # -- the fusion -----------------------------------------------------------------------------------------------

    def _fuse(self, xs: list[Tensor], known: dict[str, Any] | None = None) -> tuple[Tensor, Arranged]:
        if self.plan.layout == "(B, d)" and xs[0].dim() == 2:
            return self._call(xs, None), _AS_IT_IS
        context = {**self._context(xs[0]), **(known or {})}
        if known and "mask" in context:
            del context["mask"]
        arranged = arrange(xs, self.plan.layout, context, self.plan.across, self.plan.what)
        return self._call(arranged.streams, arranged.mask), arranged

    def _context(self, stream: Tensor) -> dict[str, Any]:
        if self.context is None:
            return {}
        call = running_call(self.plan.token)
        past = self._random.setdefault("contexts", [])
        if call is None:
            # Gradient checkpointing runs a part of the host again, outside its forward: with the same values.
            alike = [found for found, shape, _ in past if shape == stream.shape]
            if len(alike) > 1:
                head = _head(stream)
                alike = [found for found, shape, h in past if shape == stream.shape and torch.equal(h, head)] or alike
            return alike[-1] if alike else past[-1][0] if past else {}
        model, args, kwargs, scratch = call
        if self.plan.token not in scratch:
            scratch[self.plan.token] = read_context(self.context, model, args, kwargs, self.plan.what)
        found = scratch[self.plan.token]
        if self.training:
            past.append((found, stream.shape, _head(stream)))
            del past[:-64]
        return found

    def _call(self, xs: list[Tensor], mask: Tensor | None) -> Tensor:
        kind = self._now[0] if self._now else None
        if kind is None:
            like = self._like()
            if like is None:
                return self._parts[0](dict(zip(self._names, xs, strict=True)), mask)
            kind = like.dtype, like.device
            if self._now:
                self._now[0] = kind
        dtype, device = kind
        xs = [x if x.dtype is dtype and x.device == device else x.to(device, dtype) for x in xs]
        streams = dict(zip(self._names, xs, strict=True))
        if not self.training:
            return self._parts[0](streams, mask)
        with OwnRandomness(self, xs[0].device):
            return self._parts[0](streams, mask)

    def _like(self) -> Tensor | None:
        """One of the layer's weights as it is now: wrappers exchange weights for others of another dtype between calls."""
        weight = getattr(self._parts[1][self._first], "weight", None)
        if isinstance(weight, Tensor) and weight.is_floating_point():
            return weight
        module: nn.Module = self
        try:
            for name in self._place:
                module = getattr(module, name)
            return getattr(module, self._leaf)
        except AttributeError:  # none, or its module was exchanged
            return next((p for p in self.parameters() if p.is_floating_point()), None)

    def _project(self, name: str, fused: Tensor) -> Tensor:
        return self._parts[1][name if self.plan.separate else "joined"](fused)

    def _combine(self, target: Tensor, delta: Tensor) -> Tensor:
        if delta.dtype != target.dtype or delta.device != target.device:
            delta = delta.to(target.device, target.dtype)
        # Subtracted, because x - 0 is x for every x, while x + 0 turns the negative zero into a positive one.
        return target - delta if self.plan.mode == "residual" else delta

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_random": {}}

    def extra_repr(self) -> str:
        return f"{self.plan.mode} at {self.plan.what}"


_FRESH = (torch.cat, torch.concat, torch.concatenate)
_AXIS = frozenset(("dim", "axis"))
_AS_IT_IS = Arranged([], None, lambda y: y)


def _operands(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    bound = getattr(function, "__self__", None)
    named = {k: v for k, v in kwargs.items() if k != "out"}
    return [x for x in tensors_in([bound, list(args), named]) if x.dim() > 0]


def _shapes(xs: Sequence[Tensor]) -> str:
    return ", ".join(str(tuple(x.shape)) for x in xs)


def _head(x: Tensor) -> Tensor:
    """The first values of a stream, which tell one batch from another."""
    return x.detach()[(slice(1),) * (x.dim() - 1)].flatten()[:32].clone()


def zero_projection(inputs: int, outputs: int) -> nn.Linear:
    """A linear map that starts at zero."""
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def takes_unaligned(fusion: Fusion) -> bool:
    """Whether a fusion, as it was built, takes streams of different lengths."""
    if not fusion.unaligned:
        return False
    training = fusion.training
    try:
        with torch.no_grad():
            fusion.eval()({m: torch.zeros(1, 2 + i, w) for i, (m, w) in enumerate(fusion.dims.items())})
    except FusionZooError:
        return False
    finally:
        fusion.train(training)
    return True
