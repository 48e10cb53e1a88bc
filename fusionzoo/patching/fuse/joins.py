"""The kinds of joins, one class for each: what is one, what its streams are, and where the fused stream goes back.

A join is told from the shapes of what a torch operation was called with. `find` asks it how a site reads, the layer in the
host asks it for the streams and puts what the fusion gives back through it. To add a kind, add a class here and name it in
`KINDS`; nothing else lists them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fusionzoo.errors import ShapeError
from fusionzoo.patching.fuse.arrangement import Masks, mean_of_real
from fusionzoo.patching.fuse.join import Called, Groups, Join, Parts, Shape
from fusionzoo.patching.layouts import STEP_AXES, TIMED
from fusionzoo.patching.torch_calls import ATTENTIONS, PRODUCTS, is_outer, name_of, tensors_in

if TYPE_CHECKING:
    from fusionzoo.patching.fuse.layer import FusionLayer, Plan


class SideBySide(Join):
    """Streams of the same steps, each with its features: what concatenation, sum and product have in common."""

    direct = True

    def streams(self, plan: Plan, parts: Parts, target: Tensor) -> list[Tensor]:
        axis = plan.feature_axis
        lead = target.movedim(axis, -1).shape[:-1]
        xs = []
        for mine in parts.values():
            wide = [p.movedim(axis, -1) if p.dim() >= -axis else p for p in mine]
            wide = [p.expand(*lead, p.shape[-1]) for p in wide]
            xs.append(wide[0] if len(wide) == 1 else torch.cat(wide, -1))
        return xs

    def put_back(
        self, plan: Plan, target: Tensor, operands: Sequence[Tensor], groups: Groups, fused: Mapping[str, Tensor]
    ) -> Tensor | None:
        return fused["joined"].movedim(-1, plan.feature_axis)


class Cat(SideBySide):
    """Features one after the other: `cat([t, a, v], -1)`."""

    kind, weight, listed = "cat", 60, True
    operations = ("cat", "concat", "concatenate", "hstack", "vstack", "dstack", "column_stack", "row_stack")

    def usual_axis(self, name: str, rank: int) -> int | None:
        return {"hstack": 1 if rank > 1 else 0, "column_stack": 1, "dstack": 2}.get(name, 0)

    def along(self, axis: int | None, feature: int, rank: int) -> Join:
        return JOINS["rows"] if axis is not None and axis % rank != feature % rank else self

    def result_width(self, widths: Sequence[int]) -> int:
        return sum(widths)

    def operands(self, args: Sequence[Any]) -> Sequence[Any]:
        return args[0]


class Sum(SideBySide):
    """Streams added up: `t + a + v`, a maximum, a difference."""

    kind, weight, nests, continues, unit_last = "sum", 40, True, True, True
    operations = ("add", "sub", "maximum", "minimum", "lerp", "addcmul", "max", "min")


class Product(SideBySide):
    """Streams multiplied element by element: a gate."""

    kind, weight, nests, unit_last = "product", 15, True, True
    operations = ("mul", "div")

    def as_called(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]
    ) -> Join | None:
        return JOINS["outer"] if len(inputs) == 2 and spreads(inputs[0].shape, inputs[1].shape) else self


class Outer(Join):
    """Every feature times every feature: `einsum("bi,bj->bij", t, a)`. The axes in front are samples and steps."""

    kind, weight, nests, continues, multiplies = "outer", 35, True, True, True
    without_sum = ("outer", "ger", "kron", "bilinear")
    operations = (*sorted(PRODUCTS), "einsum", "tensordot", *without_sum)

    def as_called(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]
    ) -> Join | None:
        if name == "einsum":
            left, right = args[0].split("->")[0], args[0].split("->")[-1]
            contracts = any(c not in right for c in left if c.isalpha())
        else:
            contracts = name not in self.without_sum and not is_outer(inputs[0])
        return JOINS["cross-attention"] if contracts else self

    def leading(self, shapes: Sequence[Shape], result: Shape) -> int:
        count = min(len(s) for s in shapes) - 1
        return next((d for d in range(count) if any(s[d] != result[d] for s in shapes)), count)

    def step_axes(self, feature: int, axis: int | None, leading: int, shapes: Sequence[Shape]) -> list[int]:
        return list(range(leading))

    def features(self, shape: Shape, feature_axis: int, leading: int) -> int:
        return math.prod(shape[leading:])

    def streams(self, plan: Plan, parts: Parts, target: Tensor) -> list[Tensor]:
        lead = target.shape[: plan.leading]
        return [torch.cat([x.reshape(*lead, -1) for x in mine], -1) for mine in parts.values()]

    def put_back(
        self, plan: Plan, target: Tensor, operands: Sequence[Tensor], groups: Groups, fused: Mapping[str, Tensor]
    ) -> Tensor | None:
        return fused["joined"].reshape(target.shape)


class CrossAttention(Join):
    """One stream attends to another: the query's steps are those of the result."""

    kind, weight, attends = "cross-attention", 12, True
    operations = ATTENTIONS

    def ordered(self, groups: Groups) -> Groups:
        return dict(sorted(groups.items(), key=lambda group: group[1][0]))  # the query first

    def stream_width(self, widths: Sequence[int]) -> int:
        return widths[0]  # keys and values are one stream

    def streams(self, plan: Plan, parts: Parts, target: Tensor) -> list[Tensor]:
        time = _time(plan)
        vectors = plan.layout in TIMED
        return [  # of another stream, one vector of each sample is one step
            x.unsqueeze(time) if vectors and x.dim() == target.dim() - 1 else x for x, *_ in parts.values()
        ]

    def fused(self, layer: FusionLayer, xs: list[Tensor], parts: Parts) -> dict[str, Tensor]:
        plan, lead = layer.plan, xs[0].shape[:-1]
        if (plan.unaligned and plan.layout != "(..., d)") or all(x.shape[:-1] == lead for x in xs):
            return super().fused(layer, xs, parts)
        time, real = _time(plan), layer.real_steps(xs)
        means = [mean_of_real(x, real.get(m), time) for m, x in zip(parts, xs, strict=True)]
        xs = [
            x if x.shape[:-1] == lead else mean.unsqueeze(time).expand(*lead, x.shape[-1])
            for x, mean in zip(xs, means, strict=True)
        ]
        query = next(iter(parts))
        y, arranged = layer.fuse(xs, {"mask": real[query]} if query in real else {})
        return {"joined": arranged.back(layer.project("joined", y))}

    def put_back(
        self, plan: Plan, target: Tensor, operands: Sequence[Tensor], groups: Groups, fused: Mapping[str, Tensor]
    ) -> Tensor | None:
        return fused["joined"] if fused["joined"].shape == target.shape else None


def _time(plan: Plan) -> int:
    """Which axis of a stream that attends is time."""
    return 0 if plan.layout == "(T, B, d)" else -2


class Stack(Join):
    """Streams along a new axis: `stack([t, a, v])`."""

    kind, weight, listed, separate, unit_last = "stack", 45, True, True, True
    operations = ("stack",)

    def usual_axis(self, name: str, rank: int) -> int | None:
        return 0

    def back_width(self, operand: int, result: int) -> int:
        return operand

    def streams(self, plan: Plan, parts: Parts, target: Tensor) -> list[Tensor]:
        return [torch.cat([self._features_last(plan, p) for p in mine], -1) for mine in parts.values()]

    def _features_last(self, plan: Plan, x: Tensor) -> Tensor:
        x = x.movedim(plan.feature_axis, -1)
        unit = plan.feature_axis == -2 and x.dim() - 2 == STEP_AXES.get(plan.layout, x.dim() - 2)
        return x.squeeze(-2) if unit else x

    def put_back(
        self, plan: Plan, target: Tensor, operands: Sequence[Tensor], groups: Groups, fused: Mapping[str, Tensor]
    ) -> Tensor | None:
        out = [torch.zeros_like(o) for o in operands]
        for m, where in groups.items():
            unit = fused[m].dim() < operands[where[0]].dim()
            delta = fused[m].unsqueeze(-1) if unit else fused[m].movedim(-1, plan.feature_axis)
            for i in where:
                out[i] = delta.expand(operands[i].shape)
        return torch.stack(out, plan.axis or 0)


class Rows(Join):
    """Rows one below the other: `cat([t, a, v], 0)` of nodes or tokens. A modality's rows may come in pieces."""

    kind, weight, listed, separate = "rows", 40, True, True

    def along(self, axis: int | None, feature: int, rank: int) -> Join:
        return JOINS["cat"].along(axis, feature, rank)

    def step_axes(self, feature: int, axis: int | None, leading: int, shapes: Sequence[Shape]) -> list[int]:
        dims = super().step_axes(feature, axis, leading, shapes)
        if axis is not None and len(dims) > 1 and all(s[axis] == 1 for s in shapes):
            return [d for d in dims if d != axis]  # one slot per modality
        return dims

    def tells_dialogues(self, groups: Groups) -> bool:
        return any(len(where) > 1 for where in groups.values())  # a piece per dialogue

    def stream_width(self, widths: Sequence[int]) -> int:
        return widths[0]

    def back_width(self, operand: int, result: int) -> int:
        return operand

    def as_given(self, plan: Plan, operands: Sequence[Tensor], call: Called) -> Join:
        axis = plan.axis or 0
        slots = operands[0].dim() > 2 and all(o.shape[axis] == 1 for o in operands)
        return _SLOTS if slots else self

    def streams(self, plan: Plan, parts: Parts, target: Tensor) -> list[Tensor]:
        axis, feature = plan.axis or 0, plan.feature_axis
        wide = [[p.movedim(feature, -1) for p in mine] for mine in parts.values()]
        return [mine[0] if len(mine) == 1 else torch.cat(mine, axis) for mine in wide]

    def fused(self, layer: FusionLayer, xs: list[Tensor], parts: Parts) -> dict[str, Tensor]:
        plan = layer.plan
        if any(x.shape[:-1] != xs[0].shape[:-1] for x in xs):
            return self._of_other_lengths(layer, xs, list(parts), plan.axis or 0)
        pieces = [p.shape[plan.axis or 0] for p in next(iter(parts.values()))]
        known = {"lengths": pieces} if plan.layout == "(N, d)" and len(pieces) > 1 else None
        y, arranged = layer.fuse(xs, known)
        return {m: arranged.back(layer.project(m, y)) for m in parts}

    @staticmethod
    def _of_other_lengths(layer: FusionLayer, xs: list[Tensor], names: list[str], axis: int) -> dict[str, Tensor]:
        """An unaligned fusion follows its anchor's steps; others see each list's mean, of its real steps."""
        plan, out = layer.plan, {}
        real = layer.real_steps(xs)
        if plan.unaligned and plan.layout in TIMED:
            y, arranged = layer.fuse(xs)
            follows = y.dim() == 3 and y.shape[1] == arranged.streams[0].shape[1]
            if follows:
                out[names[0]] = arranged.back(layer.project(names[0], y))
            vector = mean_of_real(y, real.get(names[0]) if follows else None, 1) if y.dim() == 3 else y
        else:
            means = [mean_of_real(x, real.get(m), axis) for m, x in zip(names, xs, strict=True)]
            vector = layer.fuse_vectors([x.unsqueeze(0) for x in means] if means[0].dim() == 1 else means)
        for m, x in zip(names, xs, strict=True):
            if m not in out:
                delta = layer.project(m, vector)
                delta = delta.squeeze(0) if x.dim() == 2 else delta
                out[m] = delta.unsqueeze(axis).expand(*x.shape[:-1], delta.shape[-1])
        return out

    def put_back(
        self, plan: Plan, target: Tensor, operands: Sequence[Tensor], groups: Groups, fused: Mapping[str, Tensor]
    ) -> Tensor | None:
        axis = plan.axis or 0
        out = [torch.zeros_like(o) for o in operands]
        for m, where in groups.items():
            for i, piece in zip(where, self._pieces(fused[m], [operands[i] for i in where], axis), strict=True):
                out[i] = self._as_operand(piece.movedim(-1, plan.feature_axis), operands[i], axis)
        return torch.cat(out, axis)

    def _pieces(self, delta: Tensor, operands: Sequence[Tensor], axis: int) -> Sequence[Tensor]:
        return delta.split([o.shape[axis] for o in operands], axis) if len(operands) > 1 else [delta]

    def _as_operand(self, delta: Tensor, operand: Tensor, axis: int) -> Tensor:
        return delta.expand(operand.shape)


class _Slots(Rows):
    """Rows of one step, a slot for each modality: `cat([t.unsqueeze(1), a.unsqueeze(1)], 1)`, which is a stack."""

    def streams(self, plan: Plan, parts: Parts, target: Tensor) -> list[Tensor]:
        axis, feature = plan.axis or 0, plan.feature_axis
        return [torch.cat([p.squeeze(axis).movedim(feature, -1) for p in mine], -1) for mine in parts.values()]

    def fused(self, layer: FusionLayer, xs: list[Tensor], parts: Parts) -> dict[str, Tensor]:
        return Join.fused(self, layer, xs, parts)

    def _pieces(self, delta: Tensor, operands: Sequence[Tensor], axis: int) -> Sequence[Tensor]:
        return [delta] * len(operands)

    def _as_operand(self, delta: Tensor, operand: Tensor, axis: int) -> Tensor:
        return delta.unsqueeze(axis)


class Written(Join):
    """Vectors of one stream written into another's rows: `x.masked_scatter(image_mask, features)`, `x[:, a:b] = features`.

    Every row belongs to one stream; in the other one stands, at that row, the mean of its rows so far. Nothing comes from
    later rows, so that a host that generates step by step stays sound, and samples into which nothing was written stay as
    they are.
    """

    kind, weight, grows = "written", 30, True
    operations = ("masked_scatter", "index_put", "index_copy", "scatter", "select_scatter", "slice_scatter",
                  "where", "__setitem__")  # fmt: skip

    def as_called(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]
    ) -> Join | None:
        try:
            found = written(name, args, kwargs)
        except (RuntimeError, TypeError):  # a form of the call that does not write one tensor into another
            return None
        rows = bool(found) and all(m.dim() > 1 and bool((m == m[..., :1]).all()) for m in found.values())
        if name == "where" and not (rows and max(x.dim() for x in inputs) > 2):
            return JOINS["sum"]
        return self if rows else None

    def axis(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], rank: int) -> int | None:
        mine = next(iter(written(name, args, kwargs).values()))
        return next((d for d in reversed(range(rank - 1)) if bool((mine != mine.narrow(d, 0, 1)).any())), None)

    def stream_width(self, widths: Sequence[int]) -> int:
        return widths[0]

    def as_given(self, plan: Plan, operands: Sequence[Tensor], call: Called) -> Join:
        function, args, kwargs = call
        if not args or args[0] is not operands[0]:  # a method, whose tensor torch.compile may not find in `__self__`
            args, kwargs = (operands[0], *args), {k: v for k, v in kwargs.items() if v is not operands[0]}
        return _WrittenHere(written(name_of(function), args, kwargs))


class _WrittenHere(Written):
    """Of one call: by position of the operand, which rows of the result are its."""

    def __init__(self, rows: dict[int, Tensor]):
        self.rows = {i: mine[..., 0] for i, mine in rows.items()}

    def streams(self, plan: Plan, parts: Parts, target: Tensor) -> list[Tensor]:
        self.mine = [self.rows[where[0]] for where in plan.groups.values()]
        xs = [target.masked_fill(~mine.unsqueeze(-1), 0) for mine in self.mine]
        if plan.layout != "(..., d)" or plan.axis is None:
            return xs
        out = []
        for x, mine in zip(xs, self.mine, strict=True):  # no axis of time, but a place for each modality
            count = mine.sum(plan.axis, keepdim=True).clamp(min=1).unsqueeze(-1)
            out.append(torch.where(mine.unsqueeze(-1), x, x.sum(plan.axis, keepdim=True) / count))
        return out

    def fused(self, layer: FusionLayer, xs: list[Tensor], parts: Parts) -> dict[str, Tensor]:
        y, arranged = layer.fuse(xs, prepare=self._with_means)
        return {"joined": arranged.back(layer.project("joined", y))}

    def _with_means(self, xs: list[Tensor], mask: Masks) -> list[Tensor]:
        """Streams `(B, T, d)` in which every row has something of each."""
        if isinstance(mask, dict):  # of one sequence, into which all are written
            mask = torch.stack(list(mask.values())).all(0)
        out = []
        for x, mine in zip(xs, self.mine, strict=True):
            mine = mine if mine.shape == x.shape[:2] else mine.T if mine.dim() == 2 else mine.unsqueeze(0)
            real = mine if mask is None else mine & mask
            count = real.cumsum(1).clamp(min=1).unsqueeze(-1)
            wide = torch.promote_types(x.dtype, torch.float32)  # sums in half precision would overflow
            mean = x.masked_fill(~real.unsqueeze(-1), 0).to(wide).cumsum(1) / count
            out.append(torch.where(mine.unsqueeze(-1), x, mean.to(x.dtype)))
        return out

    def put_back(
        self, plan: Plan, target: Tensor, operands: Sequence[Tensor], groups: Groups, fused: Mapping[str, Tensor]
    ) -> Tensor | None:
        time = {"(B, T, d)": 1, "(..., d)": plan.axis or 0}.get(plan.layout, 0)
        touched = torch.stack([m.any(time, keepdim=True) for m in self.mine]).all(0).unsqueeze(-1)
        y = fused["joined"]
        return torch.where(touched, y, torch.zeros_like(y) if plan.mode == "residual" else target.to(y.dtype))


def written(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[int, Tensor]:
    """By position of the operand, where the result of a call that writes holds it; empty where that is not told."""
    tensors = [x for x in tensors_in([list(args), dict(kwargs)]) if x.dim() > 0]
    if name == "where":
        which = next((i for i, x in enumerate(tensors) if x.dtype == torch.bool), None)
        if which is None or len(tensors) != 3:
            return {}
        a, b = (i for i in range(3) if i != which)
        mine = tensors[which].expand(torch.broadcast_shapes(*(x.shape for x in tensors)))
        return {a: mine, b: ~mine}
    target, value = args[0], tensors[-1]
    new = torch.ones_like(value, dtype=torch.bool)
    marks = torch.zeros_like(target, dtype=torch.bool)
    swapped = [new if a is value else a for a in args[1:]]
    named = {k: new if v is value else v for k, v in kwargs.items()}
    found = getattr(marks, name)(*swapped, **named)
    mine = marks if found is None else found
    return {0: ~mine, len(tensors) - 1: mine}


class Input(Join):
    """Features that the trainer joined: one argument of the model."""

    kind = "input"

    def streams(self, plan: Plan, parts: Parts, target: Tensor) -> list[Tensor]:
        total = sum(plan.widths.values())
        if target.shape[-1] != total:
            raise ShapeError(f"{plan.what}: expected {total} features ({plan.widths}), got {tuple(target.shape)}")
        return list(target.split(list(plan.widths.values()), -1))

    def put_back(
        self, plan: Plan, target: Tensor, operands: Sequence[Tensor], groups: Groups, fused: Mapping[str, Tensor]
    ) -> Tensor | None:
        return fused["joined"]


KINDS = (Cat(), Rows(), Stack(), Sum(), Product(), Outer(), CrossAttention(), Written(), Input())
JOINS: dict[str, Join] = {join.kind: join for join in KINDS}
#: Torch operation -> what it joins as.
OPERATIONS: dict[str, Join] = {name: join for join in KINDS for name in join.operations}
_SLOTS = _Slots()


def spreads(a: Shape, b: Shape) -> bool:
    """Whether two shapes broadcast against each other: `(B, n, 1) * (B, 1, m)`."""
    rank = min(len(a), len(b))
    pairs = list(zip(a[len(a) - rank :], b[len(b) - rank :], strict=True))
    return any(x == 1 < y for x, y in pairs) and any(y == 1 < x for x, y in pairs)
