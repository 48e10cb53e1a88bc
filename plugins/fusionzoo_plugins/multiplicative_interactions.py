"""Multiplicative interactions: one modality makes the weights that the next is mapped with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import zero_padded
from fusionzoo_plugins._products import Widths, subspace_widths

FORMS = ("matrix", "vector", "scalar", "matrix3D")
#: Default width of a modality, by form and number of modalities: what a full map of products can afford.
FULL, DIAGONAL = {2: 32, 3: 16}, 128


class MultiplicativeMap(nn.Module):
    """`W'(z) x + b'(z)` with weights and bias that are affine in z, as MultiBench's two-modality class has it.

    Parameters
    ----------
    first, second : widths of z and x.
    form : one of `FORMS`.
    shape : of the output where W' is a full map; the diagonal (`vector`) and the `scalar` W' keep the width of x.
    grad_clip : bounds of every weight's gradient, or None.
    """

    def __init__(
        self, first: int, second: int, form: str, shape: tuple[int, ...] = (), grad_clip: Sequence[float] | None = None
    ):
        super().__init__()
        self.form, self.grad_clip = form, grad_clip
        sizes = _sizes(first, second, form, shape)
        self.W, self.U, self.V, self.b = (nn.Parameter(_initial(size)) for size in sizes)

    def _weights(self) -> tuple[Tensor, ...]:
        weights = (self.W, self.U, self.V, self.b)
        return weights if self.grad_clip is None else tuple(_clipped(w, self.grad_clip) for w in weights)

    def full(self) -> Tensor:
        """W, U, V and b of a full map one below the other, `(n m + n + m + 1, *shape)`: it is linear in `features`."""
        w, u, v, b = self._weights()
        return torch.cat([w.flatten(0, 1), u, v, b.unsqueeze(0)])

    @staticmethod
    def features(z: Tensor, x: Tensor) -> Tensor:
        """All products of z and x, then z, x and one."""
        products = (z.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)
        return torch.cat([products, z, x, torch.ones_like(x[..., :1])], -1)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """`(..., second)`, for a full map `(..., *shape)`, from z `(..., first)` and x `(..., second)`."""
        if self.form in ("matrix", "matrix3D"):
            weight = self.full()
            return (self.features(z, x) @ weight.flatten(1)).unflatten(-1, weight.shape[1:])
        w, u, v, b = self._weights()
        if self.form == "scalar":
            w, u = w.unsqueeze(-1), u.unsqueeze(-1)
        return (z @ w + v) * x + (z @ u + b)


class MultiplicativeInteractions(Fusion):
    r"""Multiplicative interactions (MI) of two or three modalities.

    .. math::
        \operatorname{MI}(z, x) = W'(z)\,x + b'(z), \qquad W'(z) = \mathbb W z + V, \quad b'(z) = U z + b

    with, by `form`, a full map W' (`matrix`, an output of any width), its diagonal (`vector`) or one number (`scalar`),
    which keep the width of x. Two modalities give :math:`y = \operatorname{MI}(x_1, x_2)`. Three give, for full maps,

    .. math:: y = A(x_1, x_2)\,x_3 + \beta(x_1, x_2)

    with A and :math:`\beta` multiplicative interactions themselves (MultiBench), and for the other forms
    :math:`\operatorname{MI}(\operatorname{MI}(x_1, x_2), x_3)`. An absent modality is zero: what is left is affine in the
    others. Acts within a time step.

    A full map has :math:`d_1 d_2 (d_3)\,d_{out}` weights, so that modalities are mapped to a small width first.

    Departs from MultiBench for three modalities: its task=None multiplies every sample with every other one's weights,
    `(B, B, out)`; `all_pairs` computes that, the fusion does what task='affect' does.

    Options
    -------
    form : `"matrix"`, `"vector"`, `"scalar"`, or MultiBench's `"matrix3D"`, two modalities to a matrix of `rows` rows
        (which divide `out_dim`), flattened.
    width : of the modalities, one for all or a sequence of one each; default 32 for two and 16 for three with full
        maps, else 128, or the modality's own where smaller.
    project : `False` takes the features as they are.
    flip : the last modality first.
    clip : bounds that the (mapped) modalities are clipped to, and grad_clip : that the weights' gradients are, pairs
        of numbers.

    Parameters: with n, m the widths of z and x, a full map to o has :math:`(n m + n + m + 1)\,o`, a diagonal one
    :math:`2 (n + 1) m`, a scalar one :math:`2 (n + 1)`; three modalities have full maps to :math:`d_3 o` and o. Plus the
    maps to `width`, and to out_dim where a form keeps another width.
    Source: Jayakumar et al., "Multiplicative Interactions and Where to Find Them", ICLR 2020, equation 1 and section 3;
    pliang279/MultiBench@49f9be224f, `fusions/common_fusions.py`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`.

    >>> MultiplicativeInteractions({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    modalities = (2, 3)

    without_effect: ClassVar[dict[str, str]] = {
        "rows": "of form='matrix3D' alone",
    }

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        form: str = "matrix",
        width: Widths = None,
        project: bool = True,
        rows: int = 1,
        flip: bool = False,
        clip: Sequence[float] | None = None,
        grad_clip: Sequence[float] | None = None,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.form = check_choice(form, FORMS, "form", self)
        self.rows = check_positive(rows, "rows", self)
        if form == "matrix3D" and (len(self.dims) > 2 or self.out_dim % rows):
            raise OptionError(
                f"MultiplicativeInteractions(form='matrix3D') takes two modalities to a matrix whose {rows} rows divide "
                f"out_dim={self.out_dim}; got {len(self.dims)} modalities. form='matrix' takes three, and any out_dim"
            )
        self.flip = flip
        self.clip, grad_clip = _bounds(clip, "clip"), _bounds(grad_clip, "grad_clip")
        widths = _widths(self.dims, width, project, form, self)
        self.project = nn.ModuleList(
            nn.Linear(d, w) if project else nn.Identity() for d, w in zip(self.dims.values(), widths, strict=True)
        )
        plan = _plan(widths[::-1] if flip else widths, self.out_dim, form, rows)
        self.maps = nn.ModuleList(MultiplicativeMap(n, m, f, shape, grad_clip) for n, m, f, shape in plan)
        self.set_width(self.out_dim if form in ("matrix", "matrix3D") else plan[-1][1])

    def combine(self, streams: Streams) -> Fused:
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        first, *rest = self._ordered(xs)
        if self.form == "matrix" and len(rest) == 2:
            a, b = self._pair()
            # A(x_1, x_2) x_3 without one matrix per step: products of the features of A with x_3, then one map.
            products = (a.features(first, rest[0]).unsqueeze(-1) * rest[1].unsqueeze(-2)).flatten(-2)
            return Fused(products @ a.full().flatten(0, 1) + b(first, rest[0]))
        for mapping, x in zip(self.maps, rest, strict=True):
            first = mapping(first, x)
        return Fused(first.flatten(2))

    def all_pairs(self, xs: Sequence[Tensor]) -> Tensor:
        """MultiBench's three-modality layer with task=None: `(B, B, out)` from one (mapped) `(B, w)` per modality.

        Entry [i, j] has the matrix of sample i, and third modality and bias of sample j.
        """
        z, x, last = self._ordered(xs)
        a, b = self._pair()
        return torch.einsum("jd,ido->ijo", last, a(z, x)) + b(z, x)

    def _pair(self) -> tuple[MultiplicativeMap, MultiplicativeMap]:
        a, b = self.maps
        assert isinstance(a, MultiplicativeMap)
        assert isinstance(b, MultiplicativeMap)
        return a, b

    def _ordered(self, xs: Sequence[Tensor]) -> list[Tensor]:
        xs = list(xs) if self.clip is None else [x.clamp(*self.clip) for x in xs]
        return xs[::-1] if self.flip else xs

    def reference_names(self) -> Mapping[str, str]:
        return {"": "maps.0"} if len(self.maps) == 1 else {"a.": "maps.0", "b.": "maps.1"}


def _sizes(first: int, second: int, form: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Shapes of W, U, V and b."""
    if form == "vector":
        return (first, second), (first, second), (second,), (second,)
    if form == "scalar":
        return (first,), (first,), (1,), (1,)
    return (first, second, *shape), (first, *shape), (second, *shape), shape


def _plan(widths: Sequence[int], out: int, form: str, rows: int) -> list[tuple[int, int, str, tuple[int, ...]]]:
    """Arguments of the maps: widths of z and x, form, shape of the output."""
    first, second, *third = widths
    if form == "matrix3D":
        return [(first, second, form, (rows, out // rows))]
    if form == "matrix":
        last = (first, second, form, (out,))
        return [(first, second, "matrix3D", (third[0], out)), last] if third else [last]
    return [(a, b, form, ()) for a, b in pairwise(widths)]


def _widths(dims: Mapping[str, int], width: Widths, project: bool, form: str, owner: object) -> list[int]:
    if project:
        full = form in ("matrix", "matrix3D")
        return subspace_widths(width, dims, FULL.get(len(dims), DIAGONAL) if full else DIAGONAL, owner)
    if width is not None:
        raise OptionError(
            f"MultiplicativeInteractions: width={width!r} needs project=True, which maps the modalities to it"
        )
    return list(dims.values())


def _initial(size: tuple[int, ...]) -> Tensor:
    """As in MultiBench: Xavier-normal, vectors standard normal."""
    empty = torch.empty(size)
    return nn.init.normal_(empty) if empty.dim() == 1 else nn.init.xavier_normal_(empty)


def _bounds(bounds: Sequence[float] | None, option: str) -> tuple[float, float] | None:
    if bounds is None:
        return None
    if isinstance(bounds, str) or not isinstance(bounds, Sequence) or len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise OptionError(
            f"MultiplicativeInteractions: {option} must be a lower and an upper bound such as (-1, 1), not {bounds!r}"
        )
    return float(bounds[0]), float(bounds[1])


def _clipped(weight: Tensor, bounds: Sequence[float]) -> Tensor:
    """The weight itself, whose gradient is clipped on its way back."""
    weight = weight.view_as(weight)
    if weight.requires_grad:
        weight.register_hook(lambda grad: grad.clamp(*bounds))
    return weight


fusionzoo_register = fusionzoo.plugin(
    MultiplicativeInteractions,
    summary="one modality makes the weights that the next is mapped with",
    paper="Jayakumar et al., Multiplicative Interactions and Where to Find Them, ICLR 2020",
    code="pliang279/MultiBench@49f9be224f",
    diagram="""
    z["x_1"] --> weights["W'(x_1) = W x_1 + V"] --> product(("W' x_2 + b'"))
    z --> bias["b'(x_1) = U x_1 + b"] --> product
    x["x_2"] --> product
    product --> y["y"]
    """,
)
