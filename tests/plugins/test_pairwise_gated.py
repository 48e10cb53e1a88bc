"""Tests of pairwise-gated."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError, ShapeError
from fusionzoo.graphs import (
    PairwiseGate,
)
from fusionzoo_plugins.pairwise_gated import PairwiseGated

B, M, T, D = 3, 3, 5, 6
DIMS: dict[str, int] = {"text": D, "audio": D, "visual": D}


@pytest.fixture
def nodes():
    return torch.randn(B, M, T, D, generator=torch.Generator().manual_seed(0))


def test_gated_pairs(nodes):
    torch.manual_seed(1)
    fusion = PairwiseGated(DIMS, 3 * 4, hidden=4).eval()
    xs = list(nodes.unbind(1))
    h = [torch.tanh(t(x)) for t, x in zip(fusion.gates.transform, xs, strict=True)]
    parts = []
    for gate, (p, q) in zip(fusion.gates.gate, [(0, 1), (0, 2), (1, 2)], strict=True):
        z = torch.sigmoid(gate(torch.cat([xs[p], xs[q], xs[p] * xs[q]], -1)))
        parts.append(z * h[p] + (1 - z) * h[q])
    torch.testing.assert_close(fusion(xs), torch.cat(parts, -1))
    # Without audio, text | audio is text alone.
    alone = fusion([xs[0], None, xs[2]])
    torch.testing.assert_close(alone[..., :4], h[0])
    torch.testing.assert_close(alone[..., 4:8], parts[1])
    torch.testing.assert_close(alone[..., 8:], h[2])


def test_gated_by_the_anchor(nodes):
    fusion = PairwiseGated(DIMS, D + 2 * 4, form="background", hidden=4).eval()
    text, audio, visual = nodes.unbind(1)
    gates = fusion.gates
    z = torch.sigmoid(gates.gate[1](torch.cat([visual, text], -1)))
    out = fusion([text, None, visual])
    torch.testing.assert_close(out[..., :D], text)
    assert bool((out[..., D : D + 4] == 0).all())
    torch.testing.assert_close(out[..., D + 4 :], z * gates.transform[1](visual))
    assert fusion.fuse([text, audio, visual]).attention["text|visual"].shape == (B, T, 4, 2)


def test_official_gates_are_loaded_in_their_order_only():
    gate = PairwiseGate(4, 3, 2)
    names = [*(f"transform_{m}" for m in "avl"), *(f"transform_{m}" for m in ("av", "al", "vl"))]
    state = {}
    for n in names:
        wide = len(n) == len("transform_av")
        state |= {
            f"{n}.weight": torch.rand(1, 12) if wide else torch.rand(3, 4),
            f"{n}.bias": torch.rand(1 if wide else 3),
        }
    gate.load_reference(state, ["a", "l"])
    torch.testing.assert_close(gate.gate[0].weight, state["transform_al.weight"])
    with pytest.raises(OptionError, match="in the order a, v, l"):
        PairwiseGated({"text": 4, "audio": 4}, hidden=3).load_reference(state)
    with pytest.raises(OptionError, match="not thermal, l"):
        PairwiseGated({"thermal": 4, "text": 4}, hidden=3).load_reference(state)
    with pytest.raises(ShapeError, match="another number of modalities"):
        gate([torch.rand(2, 4)])
