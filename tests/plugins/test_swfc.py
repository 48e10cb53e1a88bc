"""Tests of swfc."""

from __future__ import annotations

import pytest
import torch
from objective_cases import COUNTS, LABELS, REAL, C, case, gradient_of, picked
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fusionzoo.errors import OptionError
from fusionzoo.objective import IGNORE
from fusionzoo.testing.comparisons import largest
from fusionzoo_plugins.supcon import SupCon
from fusionzoo_plugins.swfc import SWFC


def contrast_of(z, y, temperature, focus, weights):
    """Each anchor's loss, one by one."""
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        log_p = (z[others] @ z[i] / temperature).log_softmax(0)[y[others] == y[i]]
        losses.append(-weights[i] * ((1 - log_p.exp()) ** focus * log_p).mean() if len(log_p) else z.sum() * 0)
    return torch.stack(losses)


@pytest.mark.parametrize("chunk", [None, 1, 4])
@pytest.mark.parametrize("focus", [0.0, 0.5, 2.4])
def test_swfc_is_its_definition(focus, chunk):
    out, batch = case("fused")
    loss = SWFC(C, COUNTS, temperature=0.8, focus=focus, weighting=1.2, chunk=chunk)(out, batch)
    weights = (12 / COUNTS) ** 1.2
    weights = (weights / weights.sum())[LABELS[REAL]]
    z = F.normalize(picked(out, "fused"), dim=-1)
    expected = contrast_of(z, LABELS[REAL], 0.8, focus, weights).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, out.streams["fused"])[0] for x in (loss, expected)))


class Largest(TorchDispatchMode):
    """Notes the largest tensor that anything computes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.numel())
        return result


def test_chunks_give_the_same_and_never_hold_all_pairs():
    labels = torch.randint(C, (1, 600), generator=torch.Generator().manual_seed(1))
    found = {}
    for chunk in (600, 16):
        out, batch = case("fused", labels=labels, width=8)
        with Largest() as tensor:
            loss = SWFC(C, COUNTS, chunk=chunk)(out, batch)
            loss.backward()
        found[chunk] = loss, out.streams["fused"].grad, tensor.numel
    torch.testing.assert_close(found[16][0], found[600][0], rtol=1e-4, atol=0)
    assert largest(found[16][1] - found[600][1]) < 1e-4 * largest(found[600][1])
    assert found[600][2] == 600 * 600
    assert found[16][2] == 600 * 16


@pytest.mark.parametrize("objective", [SupCon(C), SWFC(C, COUNTS)], ids=["supcon", "swfc"])
def test_no_positive_pair_is_zero_with_zero_gradient(objective):
    out, batch = case("fused", labels=torch.tensor([[0, 1, 2, IGNORE]]))
    loss = objective(out, batch)
    loss.backward()
    assert loss == 0
    assert gradient_of(out, "fused").eq(0).all()


def test_swfc_weights():
    assert SWFC(C, torch.tensor([4, 0, 4])).weight.tolist() == [0.5, 0.0, 0.5]
    torch.testing.assert_close(SWFC(C).weight, torch.full((C,), 1 / C))


def test_contrast_is_computed_in_full_precision_under_autocast():
    out, batch = case("fused")
    objective = SWFC(C, COUNTS, temperature=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(out, batch)
    assert loss == objective(out, batch)


def test_chunk_and_temperature_are_checked():
    with pytest.raises(OptionError, match="chunk must be a positive integer"):
        SWFC(C, chunk=0)
    with pytest.raises(OptionError, match="temperature must be a number above 0"):
        SupCon(C, temperature=0.0)
