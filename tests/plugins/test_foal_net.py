"""Tests of foal-net."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_plugins.foal_net import FoalNet

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


LONG = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])


def _with(fusion, **options):
    other = type(fusion)(fusion.dims, fusion.out_dim, **options).eval()
    other.load_state_dict(fusion.state_dict())
    return other


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
