"""The module that a patch adds to a model: the fusion, the projections back, and how they are put between."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo.errors import FusionZooError, ShapeError
from fusionzoo.fusion import Fusion
from fusionzoo.patching.fuse.arrangement import Arranged, Masks, arrange, masks_of
from fusionzoo.patching.fuse.contexts import Context, read_context
from fusionzoo.patching.fuse.join import Called, Join
from fusionzoo.patching.fuse.joins import JOINS
from fusionzoo.patching.fuse.own_randomness import OwnRandomness
from fusionzoo.patching.layouts import TIMED
from fusionzoo.patching.running import running_call
from fusionzoo.patching.signatures import signature_of
from fusionzoo.patching.torch_calls import sequences_in, tensors_in

#: Earlier expressions of a join by their number: function, arguments, keyword arguments.
Kept = Mapping[int, Called]
Prepare = Callable[[list[Tensor], Masks], list[Tensor]]


@dataclass(frozen=True)
class Plan:
    """How a fusion sits at a site.

    Attributes
    ----------
    kind : str
        The site's.
    groups : dict
        Modality -> positions of its operands.
    widths : dict
        Modality -> width of its stream.
    slots : int
        How many operands were joined when the site was found.
    width : int
        Features of what the projection gives back: of the result, or of one operand where rows are joined.
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

    @property
    def join(self) -> Join:
        """The kind, as an object."""
        return JOINS[self.kind]

    @property
    def separate(self) -> bool:
        """Whether every modality's own operands get the fused stream, each by a projection of its own."""
        return self.join.separate


class FusionLayer(nn.Module):
    """A fusion at a site of a host.

    Attributes
    ----------
    fusion : nn.Module
        The fusion itself.
    out : nn.ModuleDict
        Projections to the host's width, one per modality where rows are joined, else one called `joined`; starting at zero
        in residual mode.
    proof : Proof
        What was tried of the patch's promises.
    watch : callable or None
        What looks at the host's calls until one can show the rest of them; says whether the layer shall stand aside.
    """

    proof: Any = None
    watch: Callable[[FusionLayer], bool] | None = None

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
        self._direct = single and not plan.sources and plan.join.direct and plan.feature_axis == -1
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
        kept: Kept | None = None,
    ) -> Any:
        """Act on what a join returned, or, without a function, on an argument that holds joined features.

        Parameters
        ----------
        result : object
            What the host computed.
        function : callable or None
            What it computed it with.
        args, kwargs : tuple and dict
            What it called that with.
        kept : dict, optional
            Earlier expressions of the same join, with their arguments.
        """
        if self.watch is not None and self.watch(self):
            return result
        if self._direct and isinstance(result, Tensor) and kwargs.keys() <= _AXIS:
            changed = self._directly(result, function, args)
            if changed is not None:
                return changed
        if function is None:
            return self._at_argument(result)
        target = result if isinstance(result, Tensor) else next(iter(tensors_in(result)), None)
        if target is None:
            return result
        changed = self._at_join(target, function, args, kwargs, kept or {})
        if changed is target:
            return result
        self._count[0] += 1
        if isinstance(result, Tensor):
            return changed
        return type(result)([changed, *list(result)[1:]]) if type(result) in (list, tuple) else changed

    def _directly(self, result: Tensor, function: Any, args: Sequence[Any]) -> Tensor | None:
        """The usual join, in as few steps as it can be done."""
        xs = self.plan.join.operands(args)
        if len(xs) != self.plan.slots:
            return None
        streams = [xs[i] for i in self._order]
        shapes = [getattr(x, "shape", None) for x in streams]
        if shapes != self._usual and shapes != [(*result.shape[:-1], w) for w in self.plan.widths.values()]:
            return None
        self._usual[:] = shapes  # nn.Module assigns slowly
        self._count[0] += 1
        fused, arranged = self.fuse(streams)
        delta = arranged.back(self.project("joined", fused))
        if self._in_place and function in _FRESH and delta.dtype is result.dtype:
            return result.sub_(delta)  # as in _combine; nobody else holds what cat has just made
        return self._combine(result, delta)

    def _at_argument(self, joined: Any) -> Tensor:
        if not isinstance(joined, Tensor) or not joined.is_floating_point() or not joined.dim():
            got = f"{joined.dtype} {tuple(joined.shape)}" if isinstance(joined, Tensor) else type(joined).__name__
            raise ShapeError(f"{self.plan.what}: expected a tensor of features ({self.plan.widths}), got {got}")
        changed = self._changed(joined, [joined], self.plan.groups, (tuple, (), {}))
        self._count[0] += 1
        return changed

    def _at_join(
        self, target: Tensor, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], kept: Kept
    ) -> Tensor:
        operands = _operands(function, args, kwargs)
        if self.plan.sources:
            known = {-1: operands, **{k: _operands(*call) for k, call in kept.items()}}
            try:
                operands = [known[k][j] for k, j in self.plan.sources]
            except (KeyError, IndexError):  # another way through the host's code led here
                return self._misfit(target, f"no operands of {len(self.plan.sources)} streams")
        elif self.plan.join.attends and len(operands) != self.plan.slots:
            operands = sequences_in(operands)
        groups = self.plan.join.places(self.plan, len(operands))
        if len(operands) < 2:  # `0 + x` at the beginning of a sum: nothing is joined yet
            return target
        if groups is None:
            return self._misfit(target, f"{len(operands)} operands instead of {self.plan.slots}")
        return self._changed(target, operands, groups, (function, args, kwargs))

    def _changed(
        self, target: Tensor, operands: list[Tensor], groups: dict[str, tuple[int, ...]], call: Called
    ) -> Tensor:
        """What the host computed with the fusion in it."""
        join = self.plan.join.as_given(self.plan, operands, call)
        parts = {m: [operands[i] for i in where] for m, where in groups.items()}
        xs = join.streams(self.plan, parts, target)
        if [x.shape[-1] for x in xs] != list(self.plan.widths.values()):
            return self._misfit(target, ", ".join(str(tuple(x.shape)) for x in xs))
        delta = join.put_back(self.plan, target, operands, groups, join.fused(self, xs, parts))
        if delta is None:
            return self._misfit(target, f"a result of {tuple(target.shape)}")
        return self._combine(target, delta)

    def _misfit(self, target: Tensor, got: str) -> Tensor:
        """A place where the same line joins streams of other widths is left alone there; else it is an error."""
        if self.plan.varies:
            return target
        raise ShapeError(
            f"{self.plan.what}: the fusion was built for {self.plan.widths}, the host gave {got}; look for sites again with "
            "inputs of this kind"
        )

    # -- the fusion -----------------------------------------------------------------------------------------------

    def fuse(
        self, xs: list[Tensor], known: dict[str, Any] | None = None, prepare: Prepare | None = None
    ) -> tuple[Tensor, Arranged]:
        """Fuse streams in the host's layout: what comes out, and the way back.

        known : what tells the real steps, in the place of the context.
        prepare : what to do with streams `(B, T, d)` and their mask before.
        """
        if self.plan.layout == "(B, d)" and xs[0].dim() == 2:
            return self._call(xs, None), _AS_IT_IS
        context = self._context(xs[0]) if known is None else known
        arranged = arrange(xs, tuple(self.plan.widths), self.plan.layout, context, self.plan.across, self.plan.what)
        streams = arranged.streams
        if prepare is not None and self.plan.layout in ("(B, T, d)", "(T, B, d)", "(T, d)"):
            streams = prepare(streams, arranged.mask)
        return self._call(streams, arranged.mask), arranged

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

    def real_steps(self, xs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The mask `(B, T)` of every stream of which the context tells it, by modality; the streams in the host's layout."""
        if self.context is None or self.plan.layout not in TIMED:
            return {}
        turned = [x.transpose(0, 1) if self.plan.layout == "(T, B, d)" else x for x in xs]
        masks = masks_of(self._context(xs[0]), turned, tuple(self.plan.widths), self.plan.what)
        return dict.fromkeys(self.plan.widths, masks) if isinstance(masks, Tensor) else masks or {}

    def _call(self, xs: list[Tensor], mask: Masks) -> Tensor:
        if isinstance(mask, dict) and self._names != tuple(self.plan.widths):
            mask = {own: mask[m] for own, m in zip(self._names, self.plan.widths, strict=True) if m in mask}
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
            weight = getattr(module, self._leaf)
            if isinstance(weight, Tensor):
                return weight
        except AttributeError:  # none, or its module was exchanged
            pass
        return next((p for p in self.parameters() if p.is_floating_point()), None)

    def fuse_vectors(self, xs: list[Tensor]) -> Tensor:
        """Fuse streams `(B, d)`."""
        return self._call(xs, None)

    def project(self, name: str, fused: Tensor) -> Tensor:
        """The fused stream at the host's width."""
        return self._parts[1][name](fused)

    def _combine(self, target: Tensor, delta: Tensor) -> Tensor:
        if delta.dtype != target.dtype or delta.device != target.device:
            delta = delta.to(target.device, target.dtype)
        # Subtracted, because x - 0 is x for every x, while x + 0 turns the negative zero into a positive one.
        return target - delta if self.plan.mode == "residual" else delta

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_random": {}}

    def extra_repr(self) -> str:
        """What `print(model)` says of the layer."""
        return f"{self.plan.mode} at {self.plan.what}"


_FRESH = (torch.cat, torch.concat, torch.concatenate)
_AXIS = frozenset(("dim", "axis"))
_AS_IT_IS = Arranged([], None, lambda y: y)


def _operands(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    bound = getattr(function, "__self__", None)
    named = {k: v for k, v in kwargs.items() if k != "out"}
    if len(named) > 1 and isinstance(function, (FunctionType, MethodType)):  # as the function has them, not the call
        order = list(signature_of(function).parameters)
        named = dict(sorted(named.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))
    return [x for x in tensors_in([bound, list(args), named]) if x.dim() > 0]


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
