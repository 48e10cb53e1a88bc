"""Tests of mag."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_plugins.mag import MAG

DIMS = {"text": 6, "audio": 4, "visual": 5}


def inputs(lengths=(5, 5, 5), batch=2, dims=DIMS):
    generator = torch.Generator().manual_seed(1)
    return {m: torch.randn(batch, n, d, generator=generator) for (m, d), n in zip(dims.items(), lengths, strict=True)}


def build(cls, *args, **options):
    torch.manual_seed(0)
    return cls(*args, **options).eval()


def test_mag_shifts_the_anchor_by_its_formula_and_never_further_than_beta_times_its_length():
    fusion = build(MAG, DIMS, beta=0.1)
    text, audio, visual = x = list(inputs().values())
    h = sum(
        (g(torch.cat([v, text], -1))).relu() * w(v)
        for v, g, w in zip((audio, visual), fusion.gates, fusion.values, strict=True)
    )
    alpha = (0.1 * text.norm(dim=-1) / h.norm(dim=-1)).clamp(max=1).unsqueeze(-1)
    out = fusion.fuse(x)
    torch.testing.assert_close(out.streams["text"], text + alpha * h)
    torch.testing.assert_close(out.fused, fusion.norm(text + alpha * h))
    assert ((out.streams["text"] - text).norm(dim=-1) <= 0.1 * text.norm(dim=-1) * 1.001).all()


def test_mag_absent_companions_shift_nothing_and_an_absent_anchor_hides_nobody():
    x, fusion, official = inputs(), build(MAG, DIMS), build(MAG, DIMS, variant="official")
    torch.testing.assert_close(fusion({"text": x["text"]}), fusion.norm(x["text"]))
    assert not torch.allclose(official({"text": x["text"]}), official.norm(x["text"]))
    del x["text"]
    assert not torch.allclose(fusion(x), fusion(dict(x, audio=-x["audio"])))
    torch.testing.assert_close(official(x), official.norm.bias.expand(2, 5, 6))


def test_mag_refusals():
    with pytest.raises(OptionError, match="beta must be a positive number"):
        MAG(DIMS, beta=0)
    with pytest.raises(ReferenceWeightsError, match="this one 2"):
        MAG({"text": 3, "audio": 4}).load_reference({})
