"""The fast kernels of hosts beside their plain definitions."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fusionzoo
import fusionzoo_adapters.kernels
from fusionzoo.kernels import PAIRS
from fusionzoo.kernels.packing import Packing
from fusionzoo.testing.kernels import DTYPES, Make, compare, random
from fusionzoo_adapters.kernels import both_ways, dialogue_rnn, length_groups
from fusionzoo_adapters.parts.dialogue_rnn import CONTEXT_ATTENTIONS, DialogueRNNCell

LENGTHS = ([3, 1, 2], [0, 2, 1], [2], [2, 2])


def given(make: Any, *args: Any) -> Make:
    """`make` with these arguments after the dtype."""
    return lambda dtype: make(dtype, *args)


def steps_case(dtype: torch.dtype, attention: str, listener: bool, lengths: list[int], padding: str) -> tuple:
    """padding : `skipped`, `read` as if it were real while nobody speaks, or `after` states that came before."""
    options = {"listener_state": listener, "context_attention": attention, "attention_width": 3, "tanh": True}
    cells = [DialogueRNNCell(4, 4, 2, 3, **options).to(dtype) for _ in range(2)]
    batch, steps = len(lengths), max(lengths) + 1
    xs = [random(batch, steps, 4, dtype=dtype) for _ in cells]
    speakers = torch.randint(3, (2, batch, steps))
    computed = [steps] * batch if padding == "read" else lengths
    packing = Packing(computed, steps, torch.device("cpu"))
    active = start = None
    if padding == "read":
        active = (torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)).expand(2, -1, -1)
    if padding == "after":
        shapes = ((2, 4), (3, 2), (3,))
        start = dialogue_rnn.Start(*(random(2, batch, *shape, dtype=dtype) for shape in shapes))
    return cells, xs, speakers, 3, packing, active, start


def both_ways_case(dtype: torch.dtype, kind: type[nn.LSTM] | type[nn.GRU], layers: int, lengths: list[int]) -> tuple:
    rnn = kind(3, 4, layers, batch_first=True, bidirectional=True, dropout=0.2 if layers > 1 else 0.0)
    return rnn.to(dtype).eval(), random(len(lengths), 6, 3, dtype=dtype), torch.tensor(lengths)


def groups_case(dtype: torch.dtype, lengths: list[int], masked: str) -> tuple:
    widths = {"text": 4, "audio": 3}
    fusion = fusionzoo.get("lmam")(widths).to(dtype).eval()
    real: Tensor = torch.arange(6) < torch.tensor(lengths).unsqueeze(1)
    data = [random(len(lengths), 6, d, dtype=dtype, grad=False) * real.unsqueeze(-1) for d in widths.values()]
    xs: list[Tensor | None] = [x.requires_grad_() for x in data]
    if masked == "absent":
        xs[1] = None
    return (
        fusion,
        xs,
        {"text": real, "audio": real & (torch.arange(6) % 2 == 0)} if masked == "each" else real,
        lengths,
        2,
    )


#: Kernel -> what it is tried with.
CASES: dict[str, list[Make]] = {
    "steps": [
        given(steps_case, attention, listener, LENGTHS[i % len(LENGTHS)], padding)
        for i, (attention, listener, padding) in enumerate(
            itertools.product(CONTEXT_ATTENTIONS, (False, True), ("skipped", "read", "after"))
        )
    ],
    "both_ways": [
        given(both_ways_case, kind, layers, lengths)
        for kind, layers, lengths in itertools.product((nn.LSTM, nn.GRU), (1, 2), LENGTHS)
    ],
    "fuse_in_groups": [
        given(groups_case, lengths, masked) for lengths, masked in itertools.product(LENGTHS, ("all", "each", "absent"))
    ],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", CASES)
def test_a_fast_form_equals_its_plain_one(kernel, dtype):
    for make in CASES[kernel]:
        compare(PAIRS[kernel], make, dtype)


def test_every_pair_is_tried():
    for module in pkgutil.iter_modules(fusionzoo_adapters.kernels.__path__):
        importlib.import_module(f"fusionzoo_adapters.kernels.{module.name}")
    mine = {name for name, pair in PAIRS.items() if pair.plain.__module__.startswith("fusionzoo_adapters")}
    assert mine == set(CASES)
    assert {both_ways, length_groups}
