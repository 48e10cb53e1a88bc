"""Tests of memo-cmt."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo_plugins import memo_cmt
from fusionzoo_plugins.memo_cmt import MemoCMT, pool_rows

MASK = torch.tensor([[True] * 5, [True, True, False, True, False]])


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def naive_attention(a, x, memory, mask):
    """One item at a time, one head at a time, over the real keys alone."""
    out = []
    for b in range(len(x)):
        kept = memory[b] if mask is None else memory[b][mask[b]]
        parts = zip(*(p.chunk(a.heads, -1) for p in (a.query(x[b]), a.key(kept), a.value(kept))), strict=True)
        heads = [(q @ k.T / k.shape[-1] ** 0.5).softmax(-1) @ v for q, k, v in parts]
        out.append(a.mix(torch.cat(heads, -1)))
    return torch.stack(out)


PAIR = {"text": 8, "audio": 8}
LONG = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])


def unaligned():
    return {"text": random(2, 5, 8), "audio": random(2, 7, 8, seed=1)}, {"text": MASK, "audio": LONG}


def naive_readings(fusion, x, masks):
    """Text read by audio, and audio read by text."""
    by_audio, by_text = fusion.readings
    one = by_audio.norm(by_audio.linear(naive_attention(by_audio.attention, x["audio"], x["text"], masks["text"])))
    two = by_text.norm(by_text.linear(naive_attention(by_text.attention, x["text"], x["audio"], masks["audio"])))
    return one, two


@pytest.mark.parametrize("pool", ["cls", "mean", "max", "min"])
def test_memo_cmt_pools_what_is_real(pool):
    fusion = MemoCMT(PAIR, 6, fused_width=6, heads=2, pool=pool).eval()
    x, masks = unaligned()
    result = fusion.fuse(x, masks)
    one, two = naive_readings(fusion, x, masks)
    for b in range(2):
        rows = torch.cat([one[b][masks["audio"][b]], two[b][masks["text"][b]]])
        expected = {"cls": rows[0], "mean": rows.mean(0), "max": rows.amax(0), "min": rows.amin(0)}[pool]
        torch.testing.assert_close(result.fused[b], expected, rtol=1e-4, atol=1e-5)
    assert result.streams["audio"].shape == (2, 7, 6)
    assert result.attention["text<-audio"].shape == (2, 2, 5, 7)


def test_memo_cmt_keeps_the_steps():
    fusion = MemoCMT(PAIR).eval()
    x, masks = unaligned()
    one, two = naive_readings(fusion, x, masks)
    mean = torch.stack([r[m].mean(0) for r, m in zip(one, LONG, strict=True)])
    result = fusion.fuse(x, masks)
    torch.testing.assert_close(result.fused[MASK], ((two + mean.unsqueeze(1)) / 2)[MASK], rtol=1e-4, atol=1e-5)
    assert result.streams["audio"].shape == (2, 7, 8)
    x = {m: v[:, :5] for m, v in x.items()}
    one, two = naive_readings(fusion, x, dict.fromkeys(x, MASK))
    torch.testing.assert_close(fusion(x, MASK)[MASK], ((one + two) / 2)[MASK], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(fusion(x, MASK), _with(fusion, aligned=False)(x, MASK))
    with pytest.raises(ShapeError, match="aligned=True"):
        _with(fusion, aligned=True)(*unaligned())


def _with(fusion, **options):
    other = type(fusion)(fusion.dims, fusion.out_dim, **options).eval()
    other.load_state_dict(fusion.state_dict())
    return other


@pytest.mark.parametrize("pool", [None, "mean", "max", "min"])
def test_memo_cmt_without_audio_reads_text(pool):
    fusion = MemoCMT(PAIR, pool=pool).eval()
    x, masks = unaligned()
    alone = fusion({"text": x["text"]}, {"text": MASK})
    # What audio asks with zeros of text; the reading of the empty audio does not count.
    expected, _ = naive_readings(fusion, {"text": x["text"], "audio": torch.zeros(2, 1, 8)}, {**masks, "audio": None})
    torch.testing.assert_close(alone[:, :1] if pool is None else alone.unsqueeze(1), expected, rtol=1e-4, atol=1e-5)
    nothing = fusion(x, {"text": MASK, "audio": torch.zeros_like(LONG)})
    torch.testing.assert_close(nothing, alone, rtol=1e-4, atol=1e-5)


def test_pool_rows_of_nothing():
    for pool in memo_cmt.POOLS:
        rows = random(2, 3, 4).requires_grad_()
        out = pool_rows(rows, torch.tensor([[False] * 3, [False, True, False]]), pool)
        assert not out[0].any()
        assert torch.equal(out[1], rows[1, 1])
        out.sum().backward()
        assert rows.grad.isfinite().all()


def test_memo_cmt_takes_official_weights_strictly():
    fusion = MemoCMT(PAIR, 6, fused_width=6, pool="min")
    state = {}
    for m in ("text", "audio"):
        state |= {f"{m}_attention.in_proj_weight": random(24, 8), f"{m}_attention.in_proj_bias": random(24)}
        state |= {f"{m}_attention.out_proj.weight": random(8, 8), f"{m}_attention.out_proj.bias": random(8)}
        state |= {f"{m}_linear.weight": random(6, 8), f"{m}_linear.bias": random(6)}
        state |= {f"{m}_layer_norm.weight": random(6), f"{m}_layer_norm.bias": random(6)}
    head = {"linear_0.weight": random(5, 6), "linear_0.bias": random(5)}
    head |= {"classifer.weight": random(4, 5), "classifer.bias": random(4)}
    unused = {"fusion_linear.weight": random(6, 6), "text_encoder.weight": random(1)}
    fusion.load_reference(state | head | unused)
    assert torch.equal(fusion.readings[1].attention.key.weight, state["audio_attention.in_proj_weight"][8:16])
    with pytest.raises(ReferenceWeightsError, match="text_attention"):
        fusion.load_reference({k: v for k, v in state.items() if k != "text_attention.in_proj_bias"})
    with pytest.raises(ReferenceWeightsError, match="two modalities of one width"):
        MemoCMT({"text": 8, "audio": 7}).load_reference(state)


def test_memo_cmt_has_the_published_number_of_parameters():
    assert MemoCMT.parameter_count([768, 768]) == 2 * 2_954_496


def test_memo_cmt_refuses():
    with pytest.raises(OptionError, match="visual would be ignored"):
        MemoCMT({**PAIR, "visual": 8}, pool="cls")
    with pytest.raises(OptionError, match="aligned must be"):
        MemoCMT(PAIR, aligned="yes")
