"""Which steps are real and which rows are one dialogue: taken from an argument of the host where the trace proved it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from fusionzoo.patching.arguments import parse_path
from fusionzoo.patching.fuse.contexts import ArgumentContext
from fusionzoo.patching.layouts import PADDED_ROWS
from fusionzoo.patching.modalities import Leaf, canonical, is_other
from fusionzoo.patching.trace.events import Operand, Trace
from fusionzoo.patching.trace.labels import read_positions


def of_join(
    trace: Trace, layout: str, operand: Operand, time: int | None, feature: int = -1, axis: int | None = None
) -> ArgumentContext | None:
    """The argument that tells dialogues or real steps at a site, where one fits what the labels say.

    feature, axis : of the features, and the one along which operands are joined; an axis of size one is a modality's slot.
    """
    if operand.labels is None:
        return None
    if layout == "(N, d)" and time is not None:
        runs = _runs(operand.labels, 1 - time)
        return None if runs is None else _matching(trace, runs)
    if layout in ("(T, B, d)", "(B, T, d)") and time is not None:
        rank = len(operand.shape)
        slot = axis % rank if axis is not None and rank > 3 and operand.shape[axis] == 1 else -1
        sizes = [n for d, n in enumerate(operand.shape) if d not in (feature % rank, slot)]
        if len(sizes) != 2:
            return None
        steps, batch = sizes if layout == "(T, B, d)" else (sizes[1], sizes[0])
        return _mask_of(trace, batch, steps)
    return None


def of_one_dialogue(trace: Trace, rows: int) -> ArgumentContext | None:
    """The argument that says of a flat list that it is one dialogue; the next batch may hold several."""
    return _matching(trace, [rows])


def of_padded_rows(trace: Trace, operand: Operand, time: int | None) -> tuple[str, ArgumentContext] | None:
    """Layout and context of rows that are a padded batch, one sample or one step after the other."""
    if operand.labels is None:
        return None
    lines = [read_positions(operand.labels.flatten(1)[:, 0], axis) for axis in (0, 1)]
    sizes = [int(line.max()) + 1 if len(line) else 0 for line in lines]
    if min(sizes) < 2 or sizes[0] * sizes[1] != operand.shape[0] or any(int(x.min()) < 0 for x in lines):
        return None
    count = torch.arange(operand.shape[0])
    for slow in (0, 1):
        fast = 1 - slow
        if torch.equal(lines[slow], count // sizes[fast]) and torch.equal(lines[fast], count % sizes[fast]):
            batch = 0 if time is None else 1 - time
            context = _mask_of(trace, sizes[batch], sizes[1 - batch]) or steps_of(trace, sizes, batch)
            return None if context is None else ("(B*T, d)" if slow == batch else "(T*B, d)", context)
    return None


def of_padded_shapes(trace: Trace, rows: int, padding: ArgumentContext | None) -> list[tuple[str, ArgumentContext]]:
    """The same from the shapes of the streams alone: all that so many rows may be."""
    shapes = [x.tensor.shape[:2] for x in trace.leaves if (x.modality or x.widths) and x.tensor.dim() > 2]
    if not shapes or min(shapes[0]) < 2 or shapes[0].numel() != rows:
        return []
    contexts = [padding, *(steps_of(trace, shapes[0], batch) for batch in (0, 1))]
    return [(layout, c) for c in contexts if c is not None for layout in PADDED_ROWS]


def steps_of(trace: Trace, sizes: Sequence[int], batch: int) -> ArgumentContext | None:
    """The stream whose shape tells samples and steps; `batch` is its axis of samples."""
    for x in trace.leaves:
        if (x.modality or x.widths) and x.tensor.dim() > 2 and list(x.tensor.shape[:2]) == list(sizes):
            return ArgumentContext(x.path, "steps" if batch == 0 else "steps.T")
    return None


def of_rows(trace: Trace, rows: int) -> list[ArgumentContext]:
    """Arguments that may be the lengths of dialogues in a flat list of so many rows."""
    out = [
        ArgumentContext(path, "lengths") for path, values in _lists(trace) if min(values) > 0 and sum(values) == rows
    ]
    for path, hint, mask in _masks(trace):
        for form, m in _forms(mask):
            if "mask" in hint.lower() and _prefix(m) and int(m.sum()) == rows:
                out.append(ArgumentContext(path, form))
    return out


def of_input(trace: Trace, layout: str | None, shape: Sequence[int]) -> ArgumentContext | None:
    """The argument that tells which steps of a joined input are real."""
    if layout not in ("(T, B, d)", "(B, T, d)"):
        return None
    steps, batch = shape[:2] if layout == "(T, B, d)" else (shape[1], shape[0])
    return _mask_of(trace, batch, steps)


@dataclass(frozen=True)
class Told:
    """What may tell which steps of one stream are real: the argument, and whether that is a guess, to be tried out."""

    context: ArgumentContext
    guess: bool


def of_stream(trace: Trace, leaf: Leaf, batch_axis: int) -> Told | None:
    """The argument that tells which steps of a stream are real, the likeliest of those that have its size.

    One that bears the stream's modality in its name, or lies beside it in a tuple, a list or a dict, goes before others; one that
    is called a mask or a length before one that only looks like it.
    """
    if is_packed(leaf.tensor):
        return Told(ArgumentContext(leaf.path, "packed"), False)
    shape, found = leaf.tensor.shape, []
    for path, form, named in _tells(trace, shape[batch_axis], [shape[1 - batch_axis], *shape[2:3]]):
        theirs = canonical(path)
        strange = 1 if theirs is None else 0 if theirs in (canonical(leaf.hint), leaf.modality) else 2
        shared, alike = _beside(leaf.path, path)
        guess = strange == 2 or not (named or shared)
        found.append((guess, strange, -shared, not alike, not named, len(found), path, form))
    if not found:
        return None
    guess, *_, path, form = min(found)
    return Told(ArgumentContext(path, form), guess)


def is_packed(x: Tensor) -> bool:
    """Whether a tensor is token ids, their mask and more `(B, n, T)`, as a tokenizer's output is often stored."""
    if x.dim() != 3 or x.is_meta or not 2 <= x.shape[1] <= 4 or x.shape[1] >= x.shape[2]:
        return False
    plain = bool((x == x.round()).all()) if x.is_floating_point() else True
    mask = x[:, 1]
    return plain and bool(((mask == 0) | (mask == 1)).all()) and _prefix(mask.bool()) and bool((x[:, 0] > 1).any())


def _tells(trace: Trace, batch: int, sizes: Sequence[int]) -> Iterator[tuple[str, str, bool]]:
    """Arguments that may tell the real ones of so many steps, with how, and whether they are called so."""
    for path, hint, mask in _masks(trace):
        named = "mask" in hint.lower()
        for form, m in _forms(mask) if named else _forms(mask)[:2]:
            fits = m.shape[0] == batch and m.shape[1] in sizes and batch != m.shape[1] and _prefix(m)
            if fits and (named or len(m.sum(1).unique()) > 1):
                yield path, form, named
                break
    for path, values in _lists(trace):
        named = "len" in path.lower()
        if len(values) != batch or min(values) < 1 or not (named or max(values) in sizes):
            continue
        if max(values) <= max(sizes) and (named or not is_other(path)) and (named or len({*values}) > 1 or "[" in path):
            yield path, "lengths", named


def _beside(path: str, other: str) -> tuple[int, bool]:
    """How many containers two paths have in common, and whether they end alike, as `x[0][1]` and `x[1][1]` do."""
    (head, steps), (second, more) = parse_path(path), parse_path(other)
    if head != second or not steps or not more:
        return 0, False
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(steps, more, strict=False))
    return 1 + len(list(shared)), steps[-1] == more[-1]


def lengths_of_rows(trace: Trace, rows: int) -> ArgumentContext | None:
    """The argument, called a length, that says how many of so many rows each dialogue has."""
    for path, values in _lists(trace):
        if "len" in path.lower() and len(values) > 1 and min(values) > 0 and sum(values) == rows:
            return ArgumentContext(path, "lengths")
    return None


def _runs(labels: Tensor, batch_axis: int) -> list[int] | None:
    """Lengths of the dialogues in a flat list, where each dialogue's rows lie together and in order."""
    line = read_positions(labels.flatten(1)[:, 0] if labels.dim() > 1 else labels, batch_axis)
    if bool((line < 0).any()):
        return None
    values, counts = torch.unique_consecutive(line, return_counts=True)
    if len(values) != len(torch.unique(values)) or bool((values[1:] < values[:-1]).any()):
        return None
    return counts.tolist()


def _lists(trace: Trace) -> list[tuple[str, list[int]]]:
    """Whole numbers in a row, with their path."""
    out = [one for name, value in trace.arguments.items() for one in _numbers(value, name)]
    for leaf in trace.leaves:
        x = leaf.tensor
        if leaf.modality is None and x.dim() == 1 and not x.is_floating_point() and x.dtype != torch.bool:
            out.append((leaf.path, x.tolist()))
    return out


def _numbers(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, list[int]]]:
    if isinstance(value, (list, tuple)) and value and all(type(v) is int for v in value):
        yield path, list(value)
    elif isinstance(value, (list, tuple, dict)) and depth < 4:
        for k, v in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(v, f"{path}[{k!r}]", depth + 1)


def _masks(trace: Trace) -> list[tuple[str, str, Tensor]]:
    out = []
    for leaf in trace.leaves:
        x = leaf.tensor
        plain = leaf.modality is None and x.dim() == 2 and x.layout is torch.strided and x.numel()
        if plain and bool(((x == 0) | (x == 1)).all()):
            out.append((leaf.path, leaf.hint, x.bool()))
    return out


def _matching(trace: Trace, runs: Sequence[int]) -> ArgumentContext | None:
    for path, values in _lists(trace):
        if values == list(runs):
            return ArgumentContext(path, "lengths")
    for path, _, mask in _masks(trace):
        for form, m in _forms(mask):
            if m.sum(1).tolist() == list(runs) and _prefix(m):
                return ArgumentContext(path, form)
    return None


def _forms(mask: Tensor) -> tuple[tuple[str, Tensor], ...]:
    """What a mask may mean."""
    return ("mask", mask), ("mask.T", mask.T), ("not mask", ~mask), ("not mask.T", ~mask.T)


def _prefix(mask: Tensor) -> bool:
    """Real steps come first."""
    return bool((mask[:, 1:] <= mask[:, :-1]).all()) and bool(mask[:, 0].all())


def _mask_of(trace: Trace, batch: int, steps: int) -> ArgumentContext | None:
    for path, hint, mask in _masks(trace):
        if "mask" not in hint.lower() or batch == steps:
            continue
        for form, m in _forms(mask):
            if tuple(m.shape) != (batch, steps) or not _prefix(m):
                continue
            return ArgumentContext(path, form)
    for path, values in _lists(trace):
        if "len" in path.lower() and len(values) == batch and max(values) <= steps and min(values) > 0:
            return ArgumentContext(path, "lengths")
    return None


# -- what a caller may say where nothing is proved ---------------------------------------------------------------------


def hints(trace: Trace, layout: str, operand: Operand, time: int | None) -> tuple[str, ...]:
    """Values of `context=` that fit this call by their size, as code to paste; nothing proves them."""
    if len(operand.shape) == 2 and layout != "(..., d)":
        return tuple(f"{{{one}}}" for one in _of_rows(trace, operand, 0 if time is None else 1 - time))
    if layout in ("(B, T, d)", "(T, B, d)") and len(operand.shape) == 3:
        batch, steps = operand.shape[:2] if layout == "(B, T, d)" else (operand.shape[1], operand.shape[0])
        return tuple(f"{{{one}}}" for one in _of_steps(trace, batch, steps))
    return ()


def _of_rows(trace: Trace, operand: Operand, batch: int) -> list[str]:
    """batch : the input's axis of dialogues."""
    rows, runs = operand.shape[0], None
    deep = [x for x in trace.leaves if (x.modality or x.widths) and x.tensor.dim() == 3]
    if operand.labels is not None and deep:
        runs = _runs(operand.labels, batch)
        if runs is None and bool((read_positions(operand.labels, batch) >= 0).all()):
            return []  # it is known that the rows of a dialogue do not lie together
    out = [f"'lengths': {_code(trace, p)}" for p, v in _lists(trace) if len(v) > 1 and min(v) > 0 and sum(v) == rows]
    for path, _, mask in _masks(trace):
        if int(mask.sum()) == rows and (_prefix(mask) or _prefix(mask.T)):
            out.append(f"'mask': {_code(trace, path)}.bool(){'' if _prefix(mask) else '.T'}")
    for leaf in deep:
        count, steps = leaf.tensor.shape[batch], leaf.tensor.shape[1 - batch]
        if runs == [steps] * count:
            x = _code(trace, leaf.path)
            return [*out, f"'lengths': [{x}.shape[{1 - batch}]] * {x}.shape[{batch}]"]
    return out


def _of_steps(trace: Trace, batch: int, steps: int) -> list[str]:
    out = []
    for path, hint, mask in _masks(trace):
        if "mask" in hint.lower() and tuple(mask.shape) in ((batch, steps), (steps, batch)):
            turned = "" if tuple(mask.shape) == (batch, steps) else ".T"
            out.append(f"'mask': {_code(trace, path)}.bool(){turned}")
    lists = [p for p, v in _lists(trace) if "len" in p.lower() and len(v) == batch and max(v) <= steps]
    return [*out, *(f"'lengths': {_code(trace, p)}" for p in lists)]


def _code(trace: Trace, path: str) -> str:
    """The argument at a path, or what is inside it, in a function of `(model, args, kwargs)`."""
    names = list(trace.arguments)
    name = max((n for n in names if path.startswith(n)), key=len)
    i = names.index(name)
    return (f"args[{i}]" if i < trace.positional else f"kwargs[{name!r}]") + path[len(name) :]
