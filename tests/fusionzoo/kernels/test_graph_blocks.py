"""Graphs of dialogues in buckets of similar length, beside one dense matrix per dialogue."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fusionzoo.graphs import GCNII, angular_graph
from fusionzoo.kernels.graph_blocks import ModalBuckets, propagate
from fusionzoo.kernels.packing import Packing

LENGTHS = [5, 1, 3, 9, 8]


def layout_of(lengths: list[int], steps: int | None = None) -> tuple[Packing, Tensor]:
    steps = steps or max(lengths)
    return Packing(lengths, steps, torch.device("cpu")), torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dynamic", [False, True])
def test_blocks_equal_one_dense_matrix_per_dialogue(dynamic):
    torch.manual_seed(0)
    gcn = GCNII(6, 4, 3, dynamic=dynamic).eval()
    layout, mask = layout_of(LENGTHS, 11)
    xs = [torch.randn(len(LENGTHS), 11, 6) for _ in range(3)]
    present = [mask, mask & (torch.arange(11) % 2 == 0), mask]
    out = propagate(gcn, xs, present, layout, across=0.7)
    maps: dict[str, Tensor] = {}
    for y, whole in zip(out, propagate(gcn, xs, present, layout, 0.7, maps), strict=True):
        close(y, whole)
    assert maps["edges"].shape == (5, 3, 11, 11)
    for b, n in enumerate(LENGTHS):
        nodes = torch.stack([x[b, :n] for x in xs])[None]
        there = torch.stack([p[b, :n] for p in present], -1)[None]
        dense = angular_graph(nodes, there, 0.7).dense()[0]
        expected = gcn(nodes[0].flatten(0, 1), dense).view(3, n, -1)
        for m in range(3):
            close(out[m][b, :n], torch.where(there[0, :, m, None], expected[m], 0.0))
            assert (out[m][b, n:] == 0).all()


def test_buckets_round_trip_and_bound_the_squares():
    lengths = [20, 110, 33, 64, 100, 21, 77, 1]
    layout, mask = layout_of(lengths)
    buckets = ModalBuckets(layout, 2)
    xs = [torch.randn(len(lengths), 110, 3) * mask.unsqueeze(-1) for _ in range(2)]
    for x, back in zip(xs, buckets.unpack(buckets.pack(xs)), strict=True):
        torch.testing.assert_close(back, x, atol=0, rtol=0)
    entries = sum(b * t * t for b, t in buckets.shapes)
    assert entries <= sum(n * n for n in lengths) / 0.75**2
    assert sorted(buckets.order) == list(range(len(lengths)))
