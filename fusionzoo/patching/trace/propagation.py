"""How labels pass through torch's operations.

Operations that only move elements (views, indexing, cat, padding, packing) are run on the labels themselves. Elementwise
ones combine labels by OR. Those that compute (products, convolutions, recurrences, reductions) merge the axes that they sum
over. In an attention the query leads; where a square matrix without a stream of its own multiplies rows (message passing),
the rows keep their labels, as their residual does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fusionzoo.patching.torch_calls import ATTENTIONS, PRODUCTS, is_outer, tensors_in
from fusionzoo.patching.trace.labels import (
    ALL_POSITIONS,
    MODALITY_MASK,
    broadcast,
    compress,
    expand,
    fit,
    is_pure,
    merge,
    modalities,
)
from fusionzoo.patching.trace.torch_operations import (
    CELLS,
    FIRST_ONLY,
    LIKENESS,
    MOVES,
    RECURRENT,
    REDUCTIONS,
    SCATTERS,
    SILENT,
    SUMS_LAST,
)

Get = Callable[[Any], Tensor | None]


def propagate(name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any, get: Get) -> list[Any]:
    """`[(tensor, labels), ...]` for what an operation returned."""
    outs = tensors_in(out)
    inputs = tensors_in(args) + tensors_in(kwargs)
    if name in LIKENESS:
        inputs = inputs[:1]
    tagged = [(x, lab) for x in inputs if (lab := get(x)) is not None]
    if not outs or not tagged or name in SILENT:
        return []
    try:
        special = _special(name, func, args, kwargs, outs, inputs, get)
    except Exception:  # a rule that an unusual call does not fit; the general one below always does
        special = None
    if special is not None:
        return [(o, _fit_exactly(lab, o)) for o, lab in zip(outs, special, strict=False) if lab is not None]
    return [(o, combined(o, tagged)) for o in outs]


def _fit_exactly(labels: Tensor, out: Tensor) -> Tensor:
    labels = compress(labels)
    return fit(labels, out.shape)


def combined(out: Tensor, tagged: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Labels of what an operation without a rule of its own made of these: all of theirs, along the axes that stayed."""
    both = broadcast([lab for _, lab in tagged], out.shape)
    if both is not None and all(x.dim() <= out.dim() for x, _ in tagged):
        return compress(both)
    total: Tensor | None = None
    for x, lab in tagged:
        # An axis that merely lost its size-one label cannot be told apart by the labels: compare the tensors' shapes.
        keep = 0
        while keep < min(x.dim(), out.dim()) and x.shape[keep] == out.shape[keep]:
            keep += 1
        one = merge(lab, range(keep, lab.dim()))
        one = one.reshape((*one.shape[:keep], *[1] * (out.dim() - keep)))
        total = one if total is None else total | one
    assert total is not None
    return compress(total)


def _special(
    name: str,
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    outs: list[Tensor],
    inputs: list[Tensor],
    get: Get,
) -> Sequence[Tensor | None] | None:
    """What the rule for an operation gives; None where there is none, or it does not know."""
    if name in MOVES:
        return _move(name, func, args, kwargs, get)
    if name in SUMS_LAST or name in RECURRENT or name in CELLS:
        return _recurrent(name, args, outs, get)
    if name in PRODUCTS:
        return [_matrix_product(name, inputs, outs[0], get)]
    if name == "einsum":
        found = _einsum(args, outs[0], get)
        return None if found is None else [found]
    if name in ATTENTIONS:
        return _attention(name, inputs, outs, get)
    if name.startswith("conv") or "pool" in name or name == "interpolate":
        return _local(name, inputs[0], outs[0], get)
    if name in ("embedding", "one_hot"):
        lab = get(args[0])
        return None if lab is None else [lab.unsqueeze(-1)]
    if name in REDUCTIONS:
        return _reduction(inputs[0], args, kwargs, outs, get)
    if name in SCATTERS:
        return [_scatter(args, kwargs, outs[0], get)]
    return None


def _matrix_product(name: str, inputs: list[Tensor], out: Tensor, get: Get) -> Tensor | None:
    a, b = inputs[1:3] if name.startswith(("add", "badd")) else inputs[:2]
    if "rmatmul" in name:
        a, b = b, a
    return _product(a, b, get(a), get(b), out)


def _attention(name: str, inputs: list[Tensor], outs: list[Tensor], get: Get) -> Sequence[Tensor | None] | None:
    query, values = inputs[0], inputs[2]
    labels, attended = get(query), get(values)
    batched = name == "multi_head_attention_forward" and query.dim() == 3
    if attended is not None:
        attended = merge(attended, [0 if batched else attended.dim() - 2, attended.dim() - 1])
    if labels is None:
        return None if attended is None else [attended, None]
    labels = _led(merge(labels, [labels.dim() - 1]), [0 if batched else labels.dim() - 2], attended)
    # The weights, when asked for, are (B, Tq, Tk) of a query (Tq, B, E).
    weights = None if len(outs) < 2 or labels.dim() != 3 else labels.transpose(0, 1)
    return [labels, weights]


def _led(rows: Tensor, axes: Sequence[int], attended: Tensor | None) -> Tensor:
    """Labels of queries, where learnt tokens among them, which nobody leads, take what they pool.

    That is the stream they stand in; a query of learnt tokens alone takes what it attends to.
    """
    nobody = (rows & MODALITY_MASK) == 0
    if not bool(nobody.any()):
        return rows
    own = merge(rows, axes)
    if attended is not None:
        own = torch.where((own & MODALITY_MASK) == 0, attended, own)
    return compress(torch.where(nobody, own, rows))


def _local(name: str, x: Tensor, out: Tensor, get: Get) -> Sequence[Tensor | None] | None:
    """Convolutions and pooling: positions stay along axes that keep their length."""
    labels = get(x)
    if labels is None or labels.dim() != out.dim():
        return None
    channels = [1] if name.startswith("conv") else []
    return [merge(labels, [*channels, *(i for i in range(2, labels.dim()) if x.shape[i] != out.shape[i])])]


def _stand_in(value: Any, get: Get) -> Any:
    if isinstance(value, Tensor):
        lab = get(value)
        if lab is not None:
            return expand(lab.to(value.device), value.shape)
        return torch.zeros(1, dtype=torch.int64, device=value.device).expand(value.shape)
    if isinstance(value, (list, tuple)):
        return type(value)(_stand_in(v, get) for v in value)
    return value


def _move(name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], get: Get) -> Sequence[Tensor | None]:
    """What the operation itself does to the labels in place of the values."""
    args, kwargs = _filling_with_none(name, args, {k: v for k, v in kwargs.items() if k != "out"})
    if name in FIRST_ONLY:
        return tensors_in(func(_stand_in(args[0], get), *args[1:], **kwargs))
    if name in ("scatter", "index_copy", "index_put", "masked_scatter"):
        return tensors_in(_put(name, args, kwargs, get))
    if name == "where":
        return tensors_in(func(*(_chosen(a, get) for a in args), **kwargs))
    if name in ("_pack_padded_sequence", "_pad_packed_sequence"):
        return [func(_stand_in(args[0], get).contiguous(), *args[1:], **kwargs)[0], None]
    if name == "view" and not kwargs and not any(isinstance(a, torch.dtype) for a in args):
        # Labels are kept compressed: their strides are not the tensor's.
        return tensors_in(_stand_in(args[0], get).reshape(*args[1:]))
    if name == "nan_to_num":
        return tensors_in(_stand_in(args[0], get))
    count = len(args) if name in ("block_diag", "broadcast_tensors") else 1
    moved = [_stand_in(a, get) for a in args[:count]]
    named = {k: _stand_in(v, get) if k in ("tensors", "input", "sequences") else v for k, v in kwargs.items()}
    return tensors_in(func(*moved, *args[count:], **named))


def _chosen(a: Any, get: Get) -> Any:
    """Labels of what a `where` chooses from; a number has none, and the condition stays what it is."""
    return a if isinstance(a, Tensor) and a.dtype == torch.bool else _stand_in(a, get) if isinstance(a, Tensor) else 0


def _filling_with_none(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The arguments of an operation, with 0, which is no label, for the value that a padding fills with."""
    if "value" in kwargs and name in ("pad", "constant_pad_nd"):
        kwargs = {**kwargs, "value": 0}
    if name in ("pad", "_pad_packed_sequence") and len(args) > 3:
        args = (*args[:3], 0, *args[4:])
    return args, kwargs


def _put(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], get: Get) -> Tensor:
    """Labels written into those of the first argument; indices stay indices."""
    base = _stand_in(args[0], get).clone()
    rest = [_stand_in(a, get) if isinstance(a, Tensor) and a.is_floating_point() else a for a in args[1:]]
    named = {k: _stand_in(v, get) if k == "src" else v for k, v in kwargs.items()}
    return getattr(Tensor, name)(base, *rest, **named)


def _recurrent(name: str, args: Sequence[Any], outs: list[Tensor], get: Get) -> Sequence[Tensor | None] | None:
    x = args[0]
    lab = get(x)
    if name in CELLS:
        hidden = [get(h) for h in tensors_in(args[1])]
        parts = [merge(h, [h.dim() - 1]) for h in (lab, *hidden) if h is not None]
        total = broadcast(parts, [*outs[0].shape])
        return [total] * len(outs)
    if lab is None:
        return None
    lab = merge(lab, [lab.dim() - 1])
    if name not in RECURRENT:
        return [lab]
    packed = isinstance(args[1], Tensor) and args[1].dim() == 1
    if packed or lab.dim() != 3:
        return [lab, *[merge(lab, range(lab.dim())).view([1] * o.dim()) for o in outs[1:]]]
    batch_first = bool(args[8] if len(args) > 8 else False) and isinstance(args[-1], bool) and args[-1]
    last = merge(lab, [1 if batch_first else 0])
    last = last.transpose(0, 1) if batch_first else last
    return [lab, *[last for _ in outs[1:]]]


def _product(a: Tensor, b: Tensor, la: Tensor | None, lb: Tensor | None, out: Tensor) -> Tensor | None:
    rows = None if la is None else merge(la, [la.dim() - 1]) if la.dim() > 1 else merge(la)
    if lb is None:
        if rows is None:
            return None
        aligned = broadcast([rows], out.shape) if la is not None and la.dim() > 1 and b.dim() > 1 else None
        return fit(rows, out.shape) if aligned is None else aligned
    if lb.dim() == 1 or a.dim() == 1:
        return None
    columns = merge(lb, [lb.dim() - 2])
    if rows is None:
        square = a.shape[-1] == a.shape[-2] and lb.shape[-2] > 1
        return _led(lb, [lb.dim() - 2], columns) if square else columns
    if is_outer(a):
        return broadcast([rows, columns], out.shape)
    if a.shape[-1] == a.shape[-2] and not is_pure(rows) and b.shape[-1] != a.shape[-1]:
        return lb  # an adjacency computed from several streams
    return broadcast([_led(rows, [rows.dim() - 2], merge(columns, [columns.dim() - 1]))], out.shape)


def _einsum(args: Sequence[Any], out: Tensor, get: Get) -> Tensor | None:
    operands = tensors_in(args[1:])
    terms, right = _equation(args[0].replace(" ", ""), operands, out)
    tagged = [(term, x, lab) for term, x in zip(terms, operands, strict=True) if (lab := get(x)) is not None]
    parts: list[Tensor] = []
    contracted = False
    for term, x, lab in tagged:
        if parts and contracted:  # the first stream leads, as a query does
            held = [i for i, letter in enumerate(term) if letter not in tagged[0][0]]
            shared = _in_order(merge(lab, held), list(term), right)
            axes = [i for i, letter in enumerate(right) if letter not in term]
            lead = broadcast(parts, out.shape)
            return None if lead is None else _led(lead, axes, broadcast([shared], out.shape))
        summed = [(i, letter) for i, letter in enumerate(term) if letter not in right]
        contracted |= any(sum(letter in other for other, _, _ in tagged) > 1 for _, letter in summed)
        names = list(term)
        for i, letter in summed:
            twin = _twin(letter, x.shape[i], term, terms, right, out) if len(tagged) == 1 else None
            if twin is None:
                lab = merge(lab, [i])
            else:
                names[i] = twin
        parts.append(_in_order(lab, names, right))
    return broadcast(parts, out.shape) if parts else None


def _equation(equation: str, operands: list[Tensor], out: Tensor) -> tuple[list[str], str]:
    """The terms and the result of an einsum, with a digit for every axis that `...` stands for."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        letters = sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
        right = "..." * ("..." in left) + "".join(letters)
    hidden = "0123456789"[: out.dim() - len(right.replace("...", ""))] if "..." in right else ""

    def spelt(term: str, rank: int) -> str:
        count = rank - len(term.replace("...", ""))
        return term.replace("...", hidden[len(hidden) - count :])

    return [spelt(t, x.dim()) for t, x in zip(terms, operands, strict=True)], spelt(right, out.dim())


def _twin(letter: str, size: int, term: str, terms: list[str], right: str, out: Tensor) -> str | None:
    """In message passing by a square matrix, the letter of the result that a letter which is summed over comes back as."""
    others = [m for t in terms if letter in t for m in t if m not in term and m in right]
    return next((m for m in others if out.shape[right.index(m)] == size), None)


def _in_order(labels: Tensor, names: list[str], right: str) -> Tensor:
    """Labels whose axes have these names, with the axes of the result."""
    order = [names.index(m) if m in names else None for m in right]
    kept = [i for i in order if i is not None]
    labels = labels.permute(kept + [i for i, m in enumerate(names) if m not in right])
    labels = labels.reshape(labels.shape[: len(kept)])
    for i, where in enumerate(order):
        if where is None:
            labels = labels.unsqueeze(i)
    return labels


def _reduction(
    x: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any], outs: list[Tensor], get: Get
) -> Sequence[Tensor | None] | None:
    lab = get(x)
    if lab is None:
        return None
    if outs[0].dim() == 0:
        return [merge(lab).reshape(())] * len(outs)
    given = next((a for a in (kwargs.get("dim"), kwargs.get("axis"), *args[1:]) if _is_dims(a)), None)
    if given is None:
        return None
    dims = [d % x.dim() for d in ([given] if isinstance(given, int) else given)]
    merged = merge(lab, dims)
    if outs[0].dim() != x.dim():
        merged = merged.reshape([s for i, s in enumerate(merged.shape) if i not in dims])
    return [merged] * len(outs)


def _is_dims(a: Any) -> bool:
    if isinstance(a, bool):
        return False
    return isinstance(a, int) or (isinstance(a, (list, tuple)) and bool(a) and all(isinstance(i, int) for i in a))


def _scatter(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor, get: Get) -> Tensor | None:
    """OR of the sources that land on a row; modality bits one by one, positions as mixed where they differ."""
    base, dim = args[0], args[1] if len(args) > 1 else kwargs["dim"]
    index = args[2] if len(args) > 2 else kwargs["index"]
    source = kwargs.get("src", kwargs.get("source", args[3] if len(args) > 3 else None))
    assert isinstance(source, Tensor)
    lab = get(source)
    if lab is None:
        return get(base)
    dim %= source.dim()
    if index.dim() == source.dim() and index.dim() > 1:
        index = index.movedim(dim, 0).flatten(1)[:, 0] if index.numel() else index.flatten()
    if lab.shape[dim] == 1:
        lab = lab.expand(*(source.shape[i] if i == dim else s for i, s in enumerate(lab.shape)))
    rows = lab.movedim(dim, 0)
    wide = index.view(-1, *[1] * (rows.dim() - 1)).expand(rows.shape)
    total = torch.zeros(out.shape[dim], *rows.shape[1:], dtype=torch.int64, device=rows.device)
    for bit in range(int(math.log2(max(1, modalities(lab)))) + 1):
        total |= torch.zeros_like(total).scatter_reduce(0, wide, rows & (1 << bit), "amax")
    where = rows & ALL_POSITIONS
    high = torch.zeros_like(total).scatter_reduce(0, wide, where, "amax", include_self=False)
    low = torch.zeros_like(total).scatter_reduce(0, wide, where, "amin", include_self=False)
    total |= high | low
    total = total.movedim(0, dim)
    before = get(base)
    return total if before is None else broadcast([total, before], out.shape)
