"""Tests of concat-fc."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fusionzoo.errors import OptionError
from fusionzoo_plugins.concat_fc import ConcatFC

DIMS = {"text": 5, "audio": 3, "visual": 4}


def streams(batch: int = 2, steps: int = 3) -> list[Tensor]:
    return [torch.randn(batch, steps, d) for d in DIMS.values()]


def test_concat_fc_is_a_perceptron():
    fusion, xs = ConcatFC(DIMS, 6, hidden=(7, 5)).eval(), streams()
    a, b, c = fusion.head.layers
    torch.testing.assert_close(fusion(xs), nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c)(torch.cat(xs, -1)))
    assert len(ConcatFC([2, 2], 4, hidden=()).head.layers) == 1
    with pytest.raises(OptionError, match="positive integer"):
        ConcatFC(DIMS, hidden=(3, 0))
