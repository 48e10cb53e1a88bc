"""Checks of a fusion: streams and attention maps are what their names say."""

from __future__ import annotations

import re

import torch

from fusionzoo.testing.comparisons import differs, in_dtype, precisely
from fusionzoo.testing.runner import fail, rules, skip

rule = rules("fusion", theme="streams and maps")


def _fused(subject, x, seed=0):
    """What fuse returns, in float64 where it can."""

    def call(dtype):
        fusion = subject.make(seed)
        return (fusion if dtype is None else fusion.to(dtype)).fuse(in_dtype(x, dtype))

    return precisely(subject, call)


def _moved(subject, x, modality):
    return {**x, modality: subject.streams(seed=1)[modality]}


@rule()
def streams_as_named(subject):
    """The stream under a modality's name depends on that modality."""
    x = subject.streams()
    before = _fused(subject, x).streams
    if not before:
        skip("it reports no streams")
    for m in x:
        after = _fused(subject, _moved(subject, x, m)).streams
        for name in before:
            if name.partition(".")[0] == m and not differs(after[name], before[name]):
                fail(
                    f"Fused.streams[{name!r}] does not depend on {m!r}",
                    "zip self.names with what was computed in their order; sort nothing",
                )


def _named(map_name, names):
    """The modalities that a map's name holds, in their order in it."""
    words = re.split(r"[^\w.]+|_", map_name)
    return [w for w in words if w in names]


@rule()
def maps_as_named(subject):
    """A map that names modalities depends on each of them, if it depends on any."""
    x = subject.streams()
    before = _fused(subject, x).attention
    pairs = {name: _named(name, list(x)) for name in before}
    if not any(pairs.values()):
        skip("no attention map names a modality")
    acts: dict[str, set[str]] = {name: set() for name in before}
    for m in x:
        after = _fused(subject, _moved(subject, x, m)).attention
        for name in before:
            if differs(after[name], before[name]):
                acts[name].add(m)
    for name, modalities in pairs.items():
        silent = [m for m in modalities if m not in acts[name]]
        if silent and acts[name]:  # one that depends on nothing shows a structure
            fail(
                f"the attention {name!r} does not depend on {silent[0]!r}, but on {', '.join(sorted(acts[name]))}",
                "return each map under the name of what it was computed from (a loop's last one stands under all?)",
            )


@rule()
def maps_in_order(subject):
    """Row q of a map from steps to steps belongs to query q: changing a step turns over its own row, if any."""
    x = subject.streams()
    before = {n: w for n, w in _fused(subject, x).attention.items() if _from_steps_to_steps(w)}
    if not before:
        skip("no attention map goes from steps to steps")
    wrong: dict[str, list[int]] = {name: [] for name in before}
    # Two steps: under a causal mask, or one the other way round, one of them has no two keys that could weigh otherwise.
    for step in (1, 3):
        moved = {m: v.clone() for m, v in x.items()}
        for m, v in moved.items():
            v[:, step] = subject.streams(seed=7)[m][:, step]
        after = _fused(subject, moved).attention
        for name, weights in before.items():
            rows = _turned_over(weights, after[name], step)
            if not bool(rows[step]) and bool(rows.any()):
                wrong[name].append(step)
    for name, steps in wrong.items():
        if len(steps) == 2:
            fail(
                f"in the attention {name!r} changing a step turns over the rows of others and not its own",
                "return the map as it was used: rows are queries, in time",
            )


def _from_steps_to_steps(weights: torch.Tensor) -> bool:
    return weights.dim() > 2 and weights.shape[0] == 3 and weights.shape[-2] == 5 and not weights.shape[-1] % 5


def _turned_over(before: torch.Tensor, after: torch.Tensor, step: int) -> torch.Tensor:
    """`(queries,)`: rows in which keys other than the changed step weigh otherwise beside each other."""
    others = [k for k in range(before.shape[-1]) if k % 5 != step]

    def shares(weights: torch.Tensor) -> torch.Tensor:
        kept = weights.detach().double()[..., others]
        return kept / kept.sum(-1, keepdim=True).clamp(min=1e-30)

    moved = (shares(after) - shares(before)).abs() > 1e-6
    return moved.any(-1).flatten(0, -2).any(0)
