"""Tests of mfn."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_plugins.graph_mfn import GraphMFN
from fusionzoo_plugins.mfn import MFN

DIMS = {"text": 6, "audio": 4, "visual": 5}
RAGGED = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def inputs(lengths=(5, 5, 5), batch=2, dims=DIMS):
    generator = torch.Generator().manual_seed(1)
    return {m: torch.randn(batch, n, d, generator=generator) for (m, d), n in zip(dims.items(), lengths, strict=True)}


def build(cls, *args, **options):
    torch.manual_seed(0)
    return cls(*args, **options).eval()


def test_mfn_equals_cells_advanced_one_by_one():
    dims = {"a": 3, "b": 4, "c": 5, "d": 2}
    fusion = build(MFN, dims, hidden={"a": 2, "b": 3, "c": 2, "d": 4}, memory=3)
    x = inputs((5,) * 4, dims=dims)
    masks = {m: torch.rand(2, 5) < 0.7 for m in dims}
    result, _ = fusion.states([x[m] * masks[m].unsqueeze(-1) for m in dims], torch.stack(list(masks.values()), -1))
    for b in range(2):
        states = [(torch.zeros(c.hidden_size), torch.zeros(c.hidden_size)) for c in fusion.lstms.cells]
        u = torch.zeros(3)
        for t in range(5):
            before = [c for _, c in states]
            for i, (m, cell) in enumerate(zip(dims, fusion.lstms.cells, strict=True)):
                if masks[m][b, t]:
                    states[i] = cell(x[m][b, t], states[i])
            cells = torch.cat([*before, *(c for _, c in states)])
            attended = fusion.attend(cells).softmax(-1) * cells
            if any(masks[m][b, t] for m in dims):
                both = torch.cat([attended, u])
                memory = fusion.memory
                u = memory.retain(both).sigmoid() * u + memory.write(both).sigmoid() * memory.update(attended).tanh()
            torch.testing.assert_close(result[b, t], torch.cat([*(h for h, _ in states), u]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", [MFN, GraphMFN])
def test_memory_fusion_pools_at_the_last_real_step(cls):
    steps, last = build(cls, DIMS, head=7), build(cls, DIMS, head=7, pool="last")
    out = steps(inputs(), RAGGED)
    torch.testing.assert_close(last(inputs(), RAGGED), torch.stack([out[0, 4], out[1, 2]]))


@pytest.mark.parametrize("cls", [MFN, GraphMFN])
def test_memory_fusion_refusals(cls):
    with pytest.raises(OptionError, match="hidden gives 2 sizes for 3 modalities"):
        cls(DIMS, hidden=[3, 4])
    with pytest.raises(ReferenceWeightsError, match="three modalities, this one 2"):
        cls({"text": 3, "audio": 4}).load_reference({})
