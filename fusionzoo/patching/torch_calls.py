"""What a call of torch is named, and which tensors are in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

from torch import Tensor, nn

#: Operations that multiply and sum, and those that attend.
PRODUCTS = frozenset(
    (
        "matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "addmm", "baddbmm", "addbmm", "addmv", "spmm", "sparse_mm",
        "__matmul__", "__rmatmul__",
    )
)  # fmt: skip
ATTENTIONS = ("multi_head_attention_forward", "scaled_dot_product_attention")


def name_of(func: Any) -> str:
    """An operation's name without decoration: `Tensor.T` is `T`, `add_` and `__iadd__` are `add`."""
    name = getattr(func, "__name__", None) or str(func)
    if isinstance(func, FunctionType) and not (func.__module__ or "").startswith("torch"):
        # Somebody has replaced a method of Tensor, as repairs of old repositories do.
        name = next((n for n, v in vars(Tensor).items() if v is func), name)
    if name in ("__get__", "__set__"):
        return getattr(getattr(func, "__self__", None), "__name__", name)
    if name in ("__getitem__", "__setitem__", "__matmul__", "__rmatmul__"):
        return name
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        return {"iadd": "add", "radd": "add", "imul": "mul", "rmul": "mul", "isub": "sub", "rsub": "sub",
                "itruediv": "div", "truediv": "div", "rtruediv": "div"}.get(name, name)  # fmt: skip
    name = name.rstrip("_") if not name.startswith("_") else name
    return {"setitem": "__setitem__", "multiply": "mul", "subtract": "sub", "divide": "div", "true_divide": "div"}.get(
        name, name
    )


def tensors_in(value: Any) -> list[Tensor]:
    """Tensors in nested lists, tuples and mappings, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors_in(v)]
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in tensors_in(v)]
    return []


def sequences_in(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Of what an attention is given, what may be attended: masks, which may be left out, have another rank or no floats."""
    query = next((x for x in tensors if x.is_floating_point()), None)
    return [x for x in tensors if query is not None and x.is_floating_point() and x.dim() == query.dim()]


def is_outer(a: Tensor) -> bool:
    """Whether a product with this on its left sums over nothing: `(B, n, 1) @ (B, 1, m)`."""
    return a.dim() >= 2 and a.shape[-1] == 1


def everything_in(value: Any, depth: int = 0) -> list[Tensor]:
    """Tensors in what a model returned: as `tensors_in`, and in the attributes of objects."""
    if isinstance(value, (Tensor, list, tuple, Mapping)):
        return tensors_in(value)
    if depth < 3 and hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        return [t for v in vars(value).values() for t in everything_in(v, depth + 1)]
    return []
