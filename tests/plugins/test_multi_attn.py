"""Tests of multi-attn."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
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
    with pytest.raises(ShapeError, match=r"(?=.*memo-cmt)(?=.*foal-net)"):
        MultiAttn([8, 8], width=8)([random(2, 5, 8), random(2, 4, 8)])
