"""Tests of late-product."""

from __future__ import annotations

import torch

from fusionzoo_plugins.late_product import LateProduct

DIMS = {"text": 6, "audio": 5, "visual": 4}
C = 3


def experts(fusion, streams):
    return [e(x) for e, x in zip(fusion.experts, streams, strict=True)]


def streams():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, d, generator=generator) for d in DIMS.values()]


def test_late_product_is_proportional_to_the_product_of_probabilities():
    x = streams()
    fusion = LateProduct(DIMS, C)
    p = torch.stack([e.softmax(-1) for e in experts(fusion, x)]).prod(0)
    torch.testing.assert_close(fusion(x).exp(), p / p.sum(-1, keepdim=True))
