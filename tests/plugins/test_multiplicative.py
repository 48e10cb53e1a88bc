"""Tests of multiplicative."""

from __future__ import annotations

import pytest
import torch

from fusionzoo_plugins.late_product import LateProduct
from fusionzoo_plugins.multiplicative import Multiplicative

DIMS = {"text": 6, "audio": 5, "visual": 4}
C = 3


def experts(fusion, streams):
    return [e(x) for e, x in zip(fusion.experts, streams, strict=True)]


def streams():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, d, generator=generator) for d in DIMS.values()]


@pytest.mark.parametrize("beta", [0.0, 0.5, 3.0])
def test_multiplicative_scores_are_the_negated_costs(beta):
    x = streams()
    fusion = Multiplicative(DIMS, C, beta=beta)
    p = [e.softmax(-1) for e in experts(fusion, x)]
    score = sum(
        torch.stack([1 - p[n] for n in range(3) if n != m]).prod(0) ** (beta / 2) * p[m].log() for m in range(3)
    )
    torch.testing.assert_close(fusion(x), score)
    if not beta:
        torch.testing.assert_close(fusion(x).softmax(-1), product_of(fusion)(x).exp())


def product_of(fusion):
    product = LateProduct(DIMS, C)
    product.load_state_dict(fusion.state_dict())
    return product
