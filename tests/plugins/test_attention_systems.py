"""MultiAttn, MemoCMT and Foal-Net's fusion, against explicit formulas, and what they do without a modality."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo.testing import check_fusion
from fusionzoo_plugins import foal_net, memo_cmt
from fusionzoo_plugins.foal_net import FoalNet
from fusionzoo_plugins.memo_cmt import MemoCMT, pool_rows
from fusionzoo_plugins.multi_attn import MultiAttn, MultiAttnLayer

MASK = torch.tensor([[True] * 5, [True, True, False, True, False]])


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def streams(dims, steps=5):
    return {m: random(2, steps, d, seed=i) for i, (m, d) in enumerate(dims.items())}


def naive_attention(a, x, memory, mask):
    """One item at a time, one head at a time, over the real keys alone."""
    out = []
    for b in range(len(x)):
        kept = memory[b] if mask is None else memory[b][mask[b]]
        parts = zip(*(p.chunk(a.heads, -1) for p in (a.query(x[b]), a.key(kept), a.value(kept))), strict=True)
        heads = [(q @ k.T / k.shape[-1] ** 0.5).softmax(-1) @ v for q, k, v in parts]
        out.append(a.mix(torch.cat(heads, -1)))
    return torch.stack(out)


# -- multi-attn --------------------------------------------------------------------------------------------------------


def naive_multi_attn(fusion, x, mask):
    xs = [p(v) for p, v in zip(fusion.project, x.values(), strict=True)]
    out = []
    for m, stack in enumerate(fusion.stacks):
        y = xs[m]
        for layer in stack:
            sources = [xs[n] for n in range(len(xs)) if n != m]
            for attend, norm, source in zip(layer.attend, layer.norms, sources, strict=False):
                y = norm(y + naive_attention(attend, y, source, mask))
            y = layer.norms[-1](y + layer.reduce(F.relu(layer.expand(y))))
        out.append(y)
    return out


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("heads", [2, 3])
def test_multi_attn_reads_the_others_one_after_another(modalities, heads):
    dims = dict(zip("tavw", (8, 6, 5, 8)[:modalities], strict=False))
    fusion = MultiAttn(dims, 8 * modalities, width=8, heads=heads, layers=2).eval()
    x = streams(dims)
    result = fusion.fuse(x, MASK)
    for y, expected in zip(result.streams.values(), naive_multi_attn(fusion, x, MASK), strict=True):
        torch.testing.assert_close(y[MASK], expected[MASK], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.fused, torch.cat(list(result.streams.values()), -1))
    assert set(result.attention) == {f"{q}<-{n}.{i}" for q in dims for n in dims if q != n for i in (0, 1)}


def test_multi_attn_has_the_published_number_of_parameters():
    dims = dict.fromkeys(("text", "audio", "visual"), 256)
    assert MultiAttn.parameter_count(dims, 768, layers=6, hidden=1024, heads=4) == 18_961_920
    assert MultiAttn.parameter_count(dims, 768) == 6_320_640


def test_multi_attn_official_reads_padding():
    dims = {"text": 8, "audio": 8}
    x, short = streams(dims), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    cut = {m: v[1:, :3] for m, v in x.items()}
    for variant, same in (("default", True), ("official", False)):
        torch.manual_seed(0)
        fusion = MultiAttn(dims, width=8, variant=variant).eval()
        assert torch.allclose(fusion(x, short)[1, :3], fusion(cut)[0], atol=1e-5) is same


def test_multi_attn_without_a_modality():
    dims = {"text": 8, "audio": 8, "visual": 8}
    fusion = MultiAttn(dims, width=8, layers=1).eval()
    x = streams(dims)
    result = fusion.fuse({**x, "audio": None})
    assert not result.streams["audio"].any()
    # Nothing to read adds nothing, not even a bias: the residual passes through the norm.
    (layer,) = fusion.stacks[0]
    y = layer.norms[0](x["text"])
    y = layer.norms[1](y + naive_attention(layer.attend[1], y, x["visual"], None))
    y = layer.norms[2](y + layer.reduce(F.relu(layer.expand(y))))
    torch.testing.assert_close(result.streams["text"], y, rtol=1e-4, atol=1e-5)


def official_layer(width=8, heads=2, hidden=5):
    state = {}
    for k in (1, 2):
        for h in range(heads):
            for part in ("query", "key", "value"):
                state[f"attn_{k}.attention_heads.{h}.{part}_matrix.weight"] = random(width // heads, width, seed=h)
                state[f"attn_{k}.attention_heads.{h}.{part}_matrix.bias"] = random(width // heads, seed=h)
        state |= {f"attn_{k}.projection_matrix.weight": random(width, width)}
        state |= {f"attn_{k}.projection_matrix.bias": random(width)}
    for k in (1, 2, 3):
        state |= {f"add_norm_{k}.layer_norm.{p}": random(width) for p in ("weight", "bias")}
    state |= {"ff.linear_W1.weight": random(hidden, width), "ff.linear_W1.bias": random(hidden)}
    return state | {"ff.linear_W2.weight": random(width, hidden), "ff.linear_W2.bias": random(width)}


def test_multi_attn_takes_official_weights_strictly():
    state = official_layer()
    layer = MultiAttnLayer(8, 2, 2, 5)
    layer.load_reference(state)
    assert torch.equal(layer.attend[1].key.weight[4:], state["attn_2.attention_heads.1.key_matrix.weight"])
    assert torch.equal(layer.norms[2].bias, state["add_norm_3.layer_norm.bias"])
    # As wide in all, but split otherwise.
    with pytest.raises(ReferenceWeightsError, match="heads=4"):
        MultiAttnLayer(8, 2, 4, 5).load_reference(state)
    with pytest.raises(ReferenceWeightsError, match="attn_3"):
        layer.load_reference({**state, "attn_3": random(1)})
    with pytest.raises(ReferenceWeightsError, match="missing"):
        layer.load_reference({k: v for k, v in state.items() if "linear_W1" not in k})
    for fusion in (MultiAttn([8, 8], width=8), MultiAttn([8, 8, 7], width=8)):
        with pytest.raises(ReferenceWeightsError, match="three modalities of one width"):
            fusion.load_reference({})


def test_multi_attn_refuses():
    with pytest.raises(OptionError, match="heads=9 exceeds the width 8"):
        MultiAttn([8, 8], width=8, heads=9)
    with pytest.raises(ShapeError, match=r"foal-net, .*memo-cmt"):
        MultiAttn([8, 8], width=8)([random(2, 5, 8), random(2, 4, 8)])


# -- memo-cmt ----------------------------------------------------------------------------------------------------------

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


# -- foal-net ----------------------------------------------------------------------------------------------------------

AV = {"audio": 8, "video": 6}


def frames():
    return {"audio": random(2, 7, 8), "video": random(2, 5, 6, seed=1)}, {"audio": LONG, "video": MASK}


def naive_direction(stack, x, memory, mask):
    for layer in stack:
        x = layer.norm(x + naive_attention(layer.attention, x, memory, mask))
    return x


def naive_foal(fusion, x, masks):
    a2v, v2a = fusion.stacks
    return naive_direction(a2v, x["audio"], x["video"], masks["video"]), naive_direction(
        v2a, x["video"], x["audio"], masks["audio"]
    )


def test_foal_net_pools_each_direction():
    fusion = FoalNet(AV, 14, pool="mean").eval()
    x, masks = frames()
    audio, video = naive_foal(fusion, x, masks)
    for b in range(2):
        expected = torch.cat([audio[b][LONG[b]].mean(0), video[b][MASK[b]].mean(0)])
        torch.testing.assert_close(fusion(x, masks)[b], expected, rtol=1e-4, atol=1e-5)


def test_foal_net_keeps_the_steps():
    fusion = FoalNet(AV, 14).eval()
    x, masks = frames()
    audio, video = naive_foal(fusion, x, masks)
    mean = torch.stack([r[m].mean(0) for r, m in zip(video, MASK, strict=True)]).unsqueeze(1).expand(-1, 7, -1)
    torch.testing.assert_close(fusion(x, masks)[LONG], torch.cat([audio, mean], -1)[LONG], rtol=1e-4, atol=1e-5)
    x = {m: v[:, :5] for m, v in x.items()}
    expected = torch.cat(naive_foal(fusion, x, dict.fromkeys(x, MASK)), -1)
    torch.testing.assert_close(fusion(x, MASK)[MASK], expected[MASK], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_foal_net_runs_one_direction_on_other_pairs(pool):
    fusion = FoalNet(AV, 14, pool=pool).eval()
    x, masks = frames()
    swapped = {**x, "video": x["video"].flip(0)}
    expected = fusion(swapped, {**masks, "video": MASK.flip(0)})
    poisoned = torch.where(MASK.unsqueeze(-1), x["video"], torch.nan).flip(0)
    audio = fusion.pooled("audio", "video", x["audio"], poisoned, LONG, MASK.flip(0))
    video = fusion.pooled("video", "audio", poisoned, x["audio"], MASK.flip(0), LONG)
    torch.testing.assert_close(torch.cat([audio, video], -1), expected)
    with pytest.raises(OptionError, match="no direction in which 'audio' asks 'text'"):
        fusion.pooled("audio", "text", x["audio"], x["video"])


def test_foal_net_with_an_empty_memory():
    """By default nothing is added to the residual; upstream the padding is read evenly."""
    x, _ = frames()
    default = FoalNet(AV, 14, layers=1, pool="mean").eval()
    for stack in default.stacks:
        for p in stack.parameters():
            torch.nn.init.normal_(p)
    official = _with(default, layers=1, pool="mean", variant="official")
    masks = {"audio": LONG, "video": torch.tensor([[True] * 5, [False] * 5])}
    ours, theirs = default(x, masks), official(x, masks)
    (layer,) = default.stacks[0]
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1, :8], layer.norm(x["audio"][1, :4]).mean(0), rtol=1e-4, atol=1e-5)
    bias = layer.attention.mix(layer.attention.value.bias)
    torch.testing.assert_close(theirs[1, :8], layer.norm(x["audio"][1, :4] + bias).mean(0), rtol=1e-4, atol=1e-5)
    assert not ours[1, 8:].any()


def test_foal_net_has_the_published_number_of_parameters():
    assert FoalNet.parameter_count({"audio": 1024, "video": 768}, 1792) == 12_866_560


def test_foal_net_takes_official_weights_strictly():
    fusion = FoalNet(AV, layers=1)
    state = {}
    for name, q, n in (("a2v.0.", 8, 6), ("v2a.0.", 6, 8)):
        for part, width in (("w_q", q), ("w_k", n), ("w_v", n), ("w_concat", q)):
            state |= {f"{name}{part}.weight": random(q, width), f"{name}{part}.bias": random(q)}
        state |= {f"{name}ln.weight": random(q), f"{name}ln.bias": random(q)}
    fusion.load_reference({**state, "temp": random(1), "cls_head.weight": random(4, 14)})
    assert torch.equal(fusion.stacks[1][0].attention.value.bias, state["v2a.0.w_v.bias"])
    with pytest.raises(ReferenceWeightsError, match=r"v2a\.1\."):
        fusion.load_reference({**state, "v2a.1.w_q.weight": random(6, 6)})
    with pytest.raises(ReferenceWeightsError, match="two modalities"):
        FoalNet([8, 6, 5]).load_reference(state)


def test_foal_net_refuses():
    with pytest.raises(OptionError, match="heads=4 does not divide the width 6 of 'video'"):
        FoalNet(AV, heads=4)


# -- one vector a sequence ---------------------------------------------------------------------------------------------

POOLING = (
    "runs",
    "flat_input",
    "single_step",
    "training_on_one",
    "unaligned_lengths",
    "padding_poison_gradient",
    "padding_length",
    "mask_gap",
    "fully_masked_gradient",
    "batch_independence",
    "missing_any",
    "missing_call_equals_items",
    "missing_learned",
    "gradient_to_parameters",
    "parameter_count",
    "bfloat16",
)


@pytest.mark.parametrize(("module", "cls"), [(memo_cmt, MemoCMT), (foal_net, FoalNet)])
def test_pooling_passes_the_suite(module, cls):
    """Whether a fusion pools is on its card, once for all options: the suite hears here that these options do."""
    found = []
    module.fusionzoo_register(found.append)
    spec = replace(found[0], handles=found[0].handles | {"pools"})
    options = [{"pool": pool} for pool in module.POOLS if pool != "cls"]
    check_fusion(cls, options=options, spec=spec, only=POOLING).raise_if_failed()
