"""What a kind of join answers, and what holds for most of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from fusionzoo.patching.fuse.layer import FusionLayer, Plan

Shape = Sequence[int]
Groups = dict[str, tuple[int, ...]]
Parts = dict[str, list[Tensor]]
#: A call of a torch operation: function, arguments, keyword arguments.
Called = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]


class Join:
    """A kind of join.

    Attributes
    ----------
    kind : str
        Its name, which sites and saved patches have.
    operations : tuple of str
        The torch operations that are one, where nothing in their arguments says otherwise.
    weight : float
        How likely a site of this kind is what a fusion should replace.
    attends : bool
        Whether the streams attend to each other, so that the call which holds the attention is the site.
    nests : bool
        Whether one inside another is one join of all: `a + b + c`.
    continues : bool
        Whether a later statement may go on with one: `h = a + b`, then `h += c`.
    grows : bool
        Whether the first operand of a later pass may hold what earlier ones wrote into it.
    listed : bool
        Whether the operands come in a list, which may be of another length in the next call.
    separate : bool
        Whether every modality's own operands are still there afterwards and get the fused stream, each by a projection.
    multiplies : bool
        Whether all axes behind the leading ones are features.
    direct : bool
        Whether the operands are the streams as they stand, where each modality has one and features are last.
    unit_last : bool
        Whether features may stand before a last axis of size one.
    """

    kind: ClassVar[str] = ""
    operations: ClassVar[tuple[str, ...]] = ()
    weight: ClassVar[float] = 0
    attends = nests = continues = grows = listed = separate = multiplies = direct = unit_last = False

    # -- reading a call ---------------------------------------------------------------------------------------------

    def as_called(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]
    ) -> Join | None:
        """The kind of a call of one of the operations; None where it joins nothing that a fusion could be put at."""
        return self

    def axis(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], rank: int) -> int | None:
        """The axis along which operands are joined; None where there is none."""
        dim = kwargs.get("dim", kwargs.get("axis"))
        if dim is None and len(args) > 1 and isinstance(args[1], int):
            dim = args[1]
        dim = self.usual_axis(name, rank) if dim is None else dim
        return None if dim is None else dim % rank

    def usual_axis(self, name: str, rank: int) -> int | None:
        """The axis where a call names none."""
        return None

    def along(self, axis: int | None, feature: int, rank: int) -> Join:
        """The kind, once it is known which axis holds features."""
        return self

    # -- reading a site ---------------------------------------------------------------------------------------------

    def ordered(self, groups: Groups) -> Groups:
        """The streams in the order in which a fusion takes them."""
        return groups

    def leading(self, shapes: Sequence[Shape], result: Shape) -> int:
        """How many axes in front the join leaves alone, where it multiplies out the others."""
        return 1

    def step_axes(self, feature: int, axis: int | None, leading: int, shapes: Sequence[Shape]) -> list[int]:
        """The axes of an operand that hold samples and steps; the first of `shapes` is a stream's."""
        rank = len(shapes[0])
        dims = [d for d in range(rank) if d != feature % rank]
        unit = self.unit_last and feature == -2 and all(s[-1] == 1 for s in shapes if s)
        return [d for d in dims if d != rank - 1] if unit else dims

    def tells_dialogues(self, groups: Groups) -> bool:
        """Whether the operands themselves tell which rows are one dialogue."""
        return False

    def features(self, shape: Shape, feature_axis: int, leading: int) -> int:
        """Features of an operand, or of the result, of this shape."""
        return shape[feature_axis] if shape else 1

    def stream_width(self, widths: Sequence[int]) -> int:
        """Features of a stream whose operands have these."""
        return sum(widths)

    def back_width(self, operand: int, result: int) -> int:
        """Features of what goes back, from those of one operand and of the result."""
        return result

    def result_width(self, widths: Sequence[int]) -> int:
        """Features of the result, from those of the operands, where nobody ran the model."""
        return widths[0]

    # -- while the host runs ----------------------------------------------------------------------------------------

    def operands(self, args: Sequence[Any]) -> Sequence[Any]:
        """The operands of a `direct` join among an operation's arguments."""
        return args

    def places(self, plan: Plan, count: int) -> Groups | None:
        """Modality -> positions in so many operands; None where they are not joined in the manner that was found."""
        groups = spread(plan.groups, plan.slots, count) if self.listed and count != plan.slots else plan.groups
        return None if groups is None or any(i >= count for where in groups.values() for i in where) else groups

    def as_given(self, plan: Plan, operands: Sequence[Tensor], call: Called) -> Join:
        """The kind for these operands of a call."""
        return self

    def streams(self, plan: Plan, parts: Parts, target: Tensor) -> list[Tensor]:
        """The modalities' streams, features last, from each one's operands; `target` is what the host computed."""
        raise NotImplementedError

    def fused(self, layer: FusionLayer, xs: list[Tensor], parts: Parts) -> dict[str, Tensor]:
        """What goes back, features last, by the projection's name."""
        y, arranged = layer.fuse(xs)
        return {m: arranged.back(layer.project(m, y)) for m in (parts if self.separate else ("joined",))}

    def put_back(
        self, plan: Plan, target: Tensor, operands: Sequence[Tensor], groups: Groups, fused: Mapping[str, Tensor]
    ) -> Tensor | None:
        """What was fused in the shape of `target`; None where it does not fit."""
        raise NotImplementedError


def spread(groups: Groups, before: int, now: int) -> Groups | None:
    """Positions of the modalities in a list of another length, made in the same manner: in blocks, or in turn."""
    order = [""] * before
    for m, where in groups.items():
        for i in where:
            order[i] = m
    count = len(groups)
    if before % count or now % count or "" in order:
        return None
    size = before // count
    if all(len(set(order[i * size : (i + 1) * size])) == 1 for i in range(count)):
        blocks = order[::size] if size else order
        new = [m for m in blocks for _ in range(now // count)]
    elif all(order[i] == order[i % count] for i in range(before)):
        new = [order[i % count] for i in range(now)]
    else:
        return None
    return {m: tuple(i for i, x in enumerate(new) if x == m) for m in groups}
