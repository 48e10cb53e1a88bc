"""Tests of mcb."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError
from fusionzoo_plugins.mcb import MCB

DIMS = {"text": 8, "audio": 6, "visual": 5}


def inputs(steps: tuple[int, ...] = (5, 5, 5), batch: int = 2) -> list[torch.Tensor]:
    widths = zip(steps, DIMS.values(), strict=True)
    return [torch.randn(batch, n, d, generator=torch.Generator().manual_seed(i)) for i, (n, d) in enumerate(widths)]


@pytest.mark.parametrize("sketch", [5, 8, 32])
def test_mcb_is_the_count_sketch_of_the_outer_product(sketch):
    fusion = MCB(DIMS, sketch, sketch=sketch).eval()
    xs = [x.double()[:, 0] for x in inputs()]
    hashes, signs = [], []
    for i, d in enumerate(DIMS.values()):
        order = getattr(fusion, f"order_{i}").tolist()
        hashes.append([order.index(j) % sketch for j in range(d)])
        signs.append(getattr(fusion, f"sign_{i}").tolist())
        loads = [hashes[i].count(j) for j in range(sketch)]
        assert max(loads) <= -(-d // sketch)
    expected = torch.zeros(2, sketch, dtype=torch.float64)
    for i in range(8):
        for j in range(6):
            for k in range(5):
                place = (hashes[0][i] + hashes[1][j] + hashes[2][k]) % sketch
                sign = signs[0][i] * signs[1][j] * signs[2][k]
                expected[:, place] += sign * xs[0][:, i] * xs[1][:, j] * xs[2][:, k]
    rooted = expected.sign() * expected.abs().sqrt()
    expected = rooted / rooted.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(fusion(xs), expected, rtol=1e-4, atol=1e-4)


def test_mcb_keeps_inner_products_in_the_mean():
    a, b = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0)).double().unbind(0)
    products = torch.stack([
        (MCB({"x": 8, "y": 4}, sketch=8, seed=s).count_sketch(a, 0) * MCB({"x": 8, "y": 4}, sketch=8, seed=s).count_sketch(b, 0)).sum()
        for s in range(20)
    ])  # fmt: skip
    # Nothing collides where the sketch is wide enough: equality, not only in the mean.
    torch.testing.assert_close(products, (a * b).sum().expand(20))


def test_mcb_absent_modality_leaves_the_convolution_alone():
    fusion, pair = MCB(DIMS, 32, sketch=32).eval(), MCB({"text": 8, "audio": 6}, 32, sketch=32).eval()
    torch.testing.assert_close(fusion([*inputs()[:2], None]), pair(inputs()[:2]))


def test_mcb_sketch_is_saved_and_seeded():
    assert not list(MCB(DIMS, 32, sketch=32).parameters())
    first, second = MCB(DIMS, seed=1), MCB(DIMS, seed=2)
    assert not torch.equal(first.order_0, second.order_0)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(inputs()), first(inputs()))
    assert MCB({"text": 1024, "audio": 1582, "visual": 342}).sketch == 4096
    with pytest.raises(OptionError, match="seed"):
        MCB(DIMS, seed=-1)
