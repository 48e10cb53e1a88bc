"""Tests of mult."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo_plugins.mult import MulT

DIMS = {"text": 6, "audio": 4, "visual": 5}
SMALL = {"width": 8, "layers": 1, "memory_layers": 1}
RAGGED = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def inputs(lengths=(5, 5, 5), batch=2, dims=DIMS):
    generator = torch.Generator().manual_seed(1)
    return {m: torch.randn(batch, n, d, generator=generator) for (m, d), n in zip(dims.items(), lengths, strict=True)}


def build(cls, *args, **options):
    torch.manual_seed(0)
    return cls(*args, **options).eval()


def test_mult_shows_one_map_a_source_and_one_memory_map_a_target():
    maps = build(MulT, DIMS, **SMALL).fuse(inputs((5, 7, 3))).attention
    assert set(maps) == {f"{m} from {n}" for m in DIMS for n in DIMS if m != n} | {f"{m} memory" for m in DIMS}
    assert maps["text from audio"].shape == (2, 8, 5, 7)


def test_mult_unaligned_targets_enter_through_their_last_real_step_at_every_step_of_the_anchor():
    fusion = build(MulT, DIMS, 48, **SMALL)
    masks = {"text": RAGGED, "audio": torch.arange(7) < torch.tensor([[4], [7]])}
    x = inputs((5, 7, 3))
    out = fusion.fuse(x, masks)
    assert out.fused.shape == (2, 5, 48)
    audio = torch.stack([out.streams["audio"][0, 3], out.streams["audio"][1, 6]])
    joined = torch.cat([out.streams["text"][0, 2], audio[0], out.streams["visual"][0, -1]])
    expected = joined + fusion.reduce(fusion.hidden(joined).relu())
    torch.testing.assert_close(out.fused[0, 2], expected)
    pooled = build(MulT, DIMS, 48, pool="last", **SMALL).fuse(x, masks)
    joined = torch.cat([out.streams["text"][1, 2], audio[1], out.streams["visual"][1, -1]])
    torch.testing.assert_close(pooled.fused[1], joined + fusion.reduce(fusion.hidden(joined).relu()))


def test_mult_says_whether_equal_lengths_are_equal_steps():
    x = inputs()
    last_only = {**x, "audio": x["audio"].clone()}
    fusion, apart = build(MulT, DIMS, **SMALL), build(MulT, DIMS, aligned=False, **SMALL)
    assert not torch.allclose(fusion(x), apart(last_only))
    longer = {**x, "audio": torch.cat([x["audio"], x["audio"]], 1)}
    mask = {"audio": torch.arange(10).expand(2, 10) < 5}
    torch.testing.assert_close(apart(longer, mask), apart(x))
    with pytest.raises(ShapeError, match="aligned=None or aligned=False"):
        build(MulT, DIMS, aligned=True, **SMALL)(longer, mask)


def test_mult_causal_reads_nothing_of_later_steps():
    x = inputs()
    later = {m: torch.cat([v[:, :3], v[:, 3:] + 1], 1) for m, v in x.items()}
    causal, free = (build(MulT, DIMS, causal=c, **SMALL) for c in (True, False))
    torch.testing.assert_close(causal(later)[:, :3], causal(x)[:, :3])
    assert not torch.allclose(free(later)[:, :3], free(x)[:, :3])


def test_mult_order_of_the_source_matters_only_with_positions():
    x = inputs()
    moved = {**x, "audio": x["audio"].flip(1)}
    options = {**SMALL, "aligned": False}
    for positions in (True, False):
        fusion = build(MulT, DIMS, positions=positions, **options)
        a, b = (fusion.fuse(v).streams["text"] for v in (x, moved))
        assert torch.allclose(a, b, atol=1e-5) is not positions


def test_mult_absent_target_has_no_part():
    out = build(MulT, DIMS, **SMALL).fuse({"text": inputs()["text"], "visual": inputs()["visual"]}, RAGGED)
    assert out.streams["audio"].eq(0).all()
    assert out.attention["text from audio"].eq(0).all()


def test_mult_kernels_and_refusals():
    fusion = build(MulT, DIMS, kernel={"text": 1, "audio": 3, "visual": 2}, **SMALL)
    assert [c.kernel_size for c in fusion.convolve] == [(1,), (3,), (2,)]
    assert fusion(inputs()).shape == (2, 5, 6)
    with pytest.raises(OptionError, match="2 sizes for 3 modalities"):
        MulT(DIMS, kernel=[1, 3])
    with pytest.raises(OptionError, match="kernel names text, sound"):
        MulT(DIMS, kernel={"text": 1, "sound": 3})
    with pytest.raises(ShapeError, match="leaves 3 of 5 steps"):
        build(MulT, DIMS, kernel=3, variant="official", **SMALL)(inputs())
    with pytest.raises(ReferenceWeightsError, match="has no entry 'trans_l_with_l"):
        fusion.load_reference({"trans_l_with_l.layer_norm.weight": torch.zeros(8)})
