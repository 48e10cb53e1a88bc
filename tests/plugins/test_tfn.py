"""Tests of tfn."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from fusionzoo.errors import OptionError
from fusionzoo_plugins import tfn
from fusionzoo_plugins.tfn import LargeTensorWarning, TensorFusion

DIMS = {"text": 5, "audio": 3, "visual": 4}
ERC = {"text": 1024, "audio": 1582, "visual": 342}


def streams(batch: int = 2, steps: int = 3) -> list[Tensor]:
    return [torch.randn(batch, steps, d) for d in DIMS.values()]


def one(x: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(x[..., :1]), x], -1)


def shaken(module: nn.Module) -> nn.Module:
    """In eval mode, with no parameter at a value that it starts from."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return module.eval()


def test_tfn_is_a_map_of_all_products():
    fusion, xs = shaken(TensorFusion(DIMS, 6, width=[2, 3, 2], hidden=())), streams()
    h = [one(p(x)) for p, x in zip(fusion.project, xs, strict=True)]
    weight = fusion.head.layers[0].weight.view(6, 3, 4, 3)
    expected = torch.einsum("bti,btj,btk,oijk->bto", *h, weight) + fusion.head.layers[0].bias
    torch.testing.assert_close(fusion(xs), expected)


def test_tfn_without_a_modality_keeps_the_products_of_the_others():
    fusion, xs = TensorFusion(DIMS, 6, project=False, hidden=()).eval(), streams()
    z = fusion.outer([xs[0], torch.zeros_like(xs[1]), xs[2]]).view(2, 3, 6, 4, 5)
    assert not z[..., 1:, :].any()
    torch.testing.assert_close(z[..., 0, :], torch.einsum("bti,btk->btik", one(xs[0]), one(xs[2])))


def test_tfn_default_width_keeps_the_product_small():
    for count in (2, 3, 4, 6, 20):
        fusion = TensorFusion([64] * count, 4, hidden=(2,))
        assert fusion.entries <= max(8192, 2**count)
    assert [p.out_features for p in TensorFusion(ERC, 8).project] == [19, 19, 19]
    assert [p.out_features for p in TensorFusion({"text": 4, "audio": 100}, 8).project] == [4, 32]


def test_tfn_warns_before_a_large_product_and_names_lmf():
    with torch.device("meta"):
        fusion = TensorFusion(ERC, 8, width=100, hidden=(2,))
    with pytest.warns(LargeTensorWarning, match="outer product .* at 500 steps takes 2.1 GB; .* use lmf"):
        fusion([torch.empty(5, 100, d, device="meta") for d in ERC.values()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fusion([torch.empty(4, 100, d, device="meta") for d in ERC.values()])


def test_tfn_warns_before_a_large_map():
    with torch.device("meta"), pytest.warns(LargeTensorWarning, match="map from 556,.* products .* use lmf"):
        TensorFusion(ERC, 8, project=False)
    assert issubclass(LargeTensorWarning, UserWarning)


def test_tfn_warning_comes_first(monkeypatch):
    monkeypatch.setattr(tfn, "LARGE", 100)
    fusion = TensorFusion([2, 2], 1, hidden=())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LargeTensorWarning):
            fusion([torch.ones(9, 2), torch.ones(9, 2)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": [2, 3]}, "has 2 entries for 3 modalities"),
        ({"width": 0}, "width must be a positive integer"),
        ({"width": 4, "project": False}, "needs project=True"),
        ({"hidden": 5}, "hidden must be a sequence of widths"),
        ({"dropout": 1.0}, "dropout must be a number in"),
    ],
)
def test_tfn_refuses(options, message):
    with pytest.raises(OptionError, match=message):
        TensorFusion(DIMS, **options)
