"""Tests of bottleneck."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError, ShapeError
from fusionzoo.transformer import sinusoidal_positions
from fusionzoo_plugins.bottleneck import Bottleneck

DIMS = {"text": 8, "audio": 8, "visual": 8}
TWO = {"text": 8, "audio": 8}


def streams(dims=DIMS, steps=5):
    return {m: torch.randn(2, steps, d) for m, d in dims.items()}


def without(x, *names):
    return {m: v for m, v in x.items() if m not in names}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_bottleneck_formula():
    fusion, x = Bottleneck(TWO, layers=2, bottlenecks=3).eval(), streams(TWO)
    zs = [v + sinusoidal_positions(v) for v in x.values()]
    bottleneck = fusion.tokens.expand(2, -1, -1)
    for blocks in fusion.layers:
        outs = [block(torch.cat([z, bottleneck], 1))[0] for z, block in zip(zs, blocks, strict=True)]
        zs = [o[:, :5] for o in outs]
        bottleneck = torch.stack([o[:, 5:] for o in outs]).mean(0)
    assert_close(fusion(x), sum(norm(z) for norm, z in zip(fusion.norms, zs, strict=True)) / 2)


def test_bottleneck_is_the_only_way_between_modalities():
    fusion, x = Bottleneck(TWO, layers=3, fuse_from=1).eval(), streams(TWO)
    text = fusion.fuse(x).streams["text"]
    other = {**x, "audio": torch.randn(2, 5, 8)}
    assert not torch.allclose(fusion.fuse(other).streams["text"], text)
    fusion.fuse_from = 2  # one layer exchanges: what it writes nobody reads any more
    assert_close(fusion.fuse(other).streams["text"], fusion.fuse(x).streams["text"])
    for options in ({"layers": 1}, {"fuse_from": 1}, {"fuse_from": -1}, {"layers": 1, "readout": "anchor"}):
        with pytest.raises(OptionError, match="no way from one modality to another"):
            Bottleneck(TWO, **options)


def test_bottleneck_leaves_absent_modalities_out_of_the_mean():
    fusion, x = Bottleneck(DIMS).eval(), streams()
    before = fusion(without(x, "visual"))
    for layer in fusion.layers:
        for p in layer[2].parameters():
            p.data.normal_()
    assert_close(fusion(without(x, "visual")), before)


def test_bottleneck_readouts_of_unaligned_sequences():
    x = {"text": torch.randn(2, 5, 8), "audio": torch.randn(2, 9, 8)}
    assert Bottleneck(TWO, 6, readout="anchor")(x).shape == (2, 5, 6)
    assert Bottleneck(TWO, 6, readout="bottleneck", layers=1)(x).shape == (2, 6)
    with pytest.raises(ShapeError, match="readout='anchor'"):
        Bottleneck(TWO)(x)
