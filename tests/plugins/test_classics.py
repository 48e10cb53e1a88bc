"""The classic fusions and the transformer layers under them, against explicit formulas and torch's own layers."""

from __future__ import annotations

import math

import pytest
import torch

from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo.testing.comparisons import gradients, reached
from fusionzoo.transformer import Attention, DialogueTransformer, FeedForward, TransformerLayer, sinusoidal_positions
from fusionzoo_plugins.bottleneck import Bottleneck
from fusionzoo_plugins.co_attention import CoAttention
from fusionzoo_plugins.gated_xattn import GatedCrossAttention
from fusionzoo_plugins.gmu import GMU
from fusionzoo_plugins.mixture_of_experts import MixtureOfExperts, load_balance
from fusionzoo_plugins.perceiver import Perceiver
from fusionzoo_plugins.sdt_gate import SDTGate

DIMS = {"text": 8, "audio": 8, "visual": 8}
TWO = {"text": 8, "audio": 8}
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def streams(dims=DIMS, steps=5):
    return {m: torch.randn(2, steps, d) for m, d in dims.items()}


def without(x, *names):
    return {m: v for m, v in x.items() if m not in names}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


# -- transformer layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_transformer_layer_equals_torchs(norm, activation):
    ours = TransformerLayer(8, heads=2, hidden=12, norm=norm, activation=activation).eval()
    assert ours.norm is not None
    for p in ours.parameters():
        p.data.normal_(std=0.5)
    theirs = torch.nn.TransformerEncoderLayer(
        8, 2, 12, activation=activation, batch_first=True, norm_first=norm == "pre"
    ).train(False)
    attention, block = ours.attention, ours.feed_forward
    parts = (attention.query, attention.key, attention.value)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
    theirs.self_attn.out_proj.load_state_dict(attention.mix.state_dict())
    theirs.linear1.load_state_dict(block.expand.state_dict())
    theirs.linear2.load_state_dict(block.reduce.state_dict())
    theirs.norm1.load_state_dict(ours.norm.state_dict())
    theirs.norm2.load_state_dict(block.norm.state_dict())
    x = torch.randn(2, 5, 8)
    expected = theirs(x, src_key_padding_mask=~MASK)
    assert_close(ours(x, None, MASK)[0][MASK], expected[MASK])
    assert sum(p.numel() for p in ours.parameters()) == 532


def test_memory_norm_and_weights():
    layer = TransformerLayer(8, 6, norm_memory=True).eval()
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    out, weights = layer(x, memory, MASK, need_weights=True)
    assert weights.shape == (2, 8, 3, 5)
    assert (weights[1, ..., 3:] == 0).all()
    # A norm takes away the scale of what it is given.
    assert_close(layer(x, memory * 7, MASK)[0], out)
    assert sum(p.numel() for p in layer.parameters()) == 852


def test_positions_take_turns_of_sine_and_cosine():
    p = sinusoidal_positions(torch.zeros(1, 7, 5))
    for t in range(7):
        for i in range(5):
            angle = t / 10000 ** ((i - i % 2) / 5)
            assert p[t, i].item() == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-5)


def test_dialogue_transformer_carries_the_normalised_stream():
    encoder = DialogueTransformer(8, heads=2, hidden=12, layers=2).eval()
    x, memory, speakers = torch.randn(3, 2, 5, 8)
    key = memory + sinusoidal_positions(memory) + speakers
    expected = x + sinusoidal_positions(x) + speakers
    for layer in encoder.layers:
        assert isinstance(layer, TransformerLayer)
        if layer.norm is not None:
            expected = layer.norm(expected)
        expected = layer.feed_forward(expected + layer.attention(expected, key, MASK)[0])
    assert_close(encoder(x, memory, MASK, speakers)[0], expected)
    assert [layer.norm is None for layer in encoder.layers] == [True, False]
    assert sum(p.numel() for p in encoder.parameters()) == 1048


def test_transformer_refuses():
    with pytest.raises(OptionError, match="norm='after' is not one of"):
        TransformerLayer(8, norm="after")
    with pytest.raises(OptionError, match="norm_query=False needs"):
        TransformerLayer(8, norm="post", norm_query=False)
    with pytest.raises(OptionError, match="heads=3 does not divide the width 8"):
        TransformerLayer(8, heads=3)
    with pytest.raises(ReferenceWeightsError, match=r"missing w_2\.bias, w_2\.weight"):
        FeedForward(4).load_reference({"w_1.weight": torch.zeros(16, 4), "w_1.bias": torch.zeros(16)})
    with pytest.raises(ReferenceWeightsError, match="linear_x"):
        Attention(4, heads=2).load_reference({"linear_x.weight": torch.zeros(4, 4)})


# -- gates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unimodal", ["learned", "identity", "none"])
def test_sdt_gate_formula(unimodal):
    fusion, x = SDTGate(DIMS, unimodal=unimodal).eval(), streams()
    gated = []
    for i, v in enumerate(x.values()):
        if unimodal == "learned":
            v = torch.sigmoid(v @ fusion.unimodal[i].fc.weight.T) * v
        elif unimodal == "identity":
            v = torch.sigmoid(v) * v
        gated.append(v)
    scores = torch.stack([g @ fusion.multimodal.fc.weight.T for g in gated])
    assert_close(fusion(x), (scores.softmax(0) * torch.stack(gated)).sum(0))


def test_sdt_gate_gives_a_missing_modality_no_weight():
    fusion, x = SDTGate(DIMS).eval(), streams()
    gate = fusion.fuse(without(x, "audio")).attention["gate"]
    assert (gate[..., 1] == 0).all()
    # Alone, a modality passes whole.
    result = fusion.fuse(without(x, "audio", "visual"))
    assert_close(result.fused, result.streams["text"])


def test_sdt_gate_official_weights_are_those_of_the_last_gate():
    weight = torch.randn(8, 8)
    fusion = SDTGate(DIMS, unimodal="none")
    fusion.load_reference({"fc.weight": weight})
    assert torch.equal(fusion.multimodal.fc.weight, weight)
    with pytest.raises(ReferenceWeightsError, match="unimodal='none'"):
        SDTGate(DIMS).load_reference({"fc.weight": weight})


def test_gmu_of_two_shares_one_gate():
    fusion, x = GMU({"text": 8, "audio": 3}, 6).eval(), streams({"text": 8, "audio": 3})
    z = torch.sigmoid(fusion.gate(torch.cat(list(x.values()), -1)))
    h = [torch.tanh(v @ layer.weight.T) for v, layer in zip(x.values(), fusion.hidden, strict=True)]
    assert_close(fusion(x), z * h[0] + (1 - z) * h[1])
    assert_close(fusion({"audio": x["audio"]}), h[1])


def test_gmu_of_more_has_independent_gates():
    fusion, x = GMU(DIMS, 6).eval(), streams()
    joined = torch.cat(list(x.values()), -1)
    expected = torch.zeros(2, 5, 6)
    for i, v in enumerate(x.values()):
        gate = torch.sigmoid(joined @ fusion.gate.weight[6 * i : 6 * i + 6].T)
        expected = expected + gate * torch.tanh(v @ fusion.hidden[i].weight.T)
    result = fusion.fuse(x)
    assert_close(result.fused, expected)
    assert_close(sum(result.streams.values()), expected)
    assert not result.attention


# -- co-attention ------------------------------------------------------------------------------------------------------


def test_parallel_co_attention_formula():
    fusion, x = CoAttention(TWO, 16, hidden=5).eval(), streams(TWO)
    result = fusion.fuse(x, MASK)
    pair = fusion.co_attention[0]
    for b, steps in enumerate((5, 3)):
        v, q = x["text"][b, :steps].T, x["audio"][b, :steps].T  # columns are steps, as in the paper
        w_b, w_v, w_q = pair.affinity.weight, pair.hidden[0].weight, pair.hidden[1].weight
        c = torch.tanh(q.T @ w_b @ v)
        h_v = torch.tanh(w_v @ v + (w_q @ q) @ c)
        h_q = torch.tanh(w_q @ q + (w_v @ v) @ c.T)
        a_v = (pair.score[0].weight @ h_v).softmax(-1).squeeze(0)
        a_q = (pair.score[1].weight @ h_q).softmax(-1).squeeze(0)
        assert_close(result.attention["text"][b, :steps], a_v)
        assert_close(result.attention["audio"][b, :steps], a_q)
        assert_close(result.streams["text"][b, :steps], v.T + v @ a_v)
        assert_close(result.fused[b, :steps, 8:], q.T + q @ a_q)


def test_co_attention_pools_unaligned_sequences():
    x = {"text": torch.randn(2, 5, 8), "audio": torch.randn(2, 9, 8)}
    for form in ("parallel", "transformer"):
        assert CoAttention(TWO, 6, form=form, pool=True)(x).shape == (2, 6)
        with pytest.raises(ShapeError, match="pool=True"):
            CoAttention(TWO, form=form)(x)


@pytest.mark.parametrize("form", ["parallel", "transformer"])
def test_co_attention_ignores_an_absent_partner(form):
    fusion, x = CoAttention(DIMS, 24, form=form).eval(), streams()
    before = fusion(without(x, "visual"))
    for name, p in fusion.named_parameters():
        # Of the pairs (0, 1), (0, 2), (1, 2), and of each modality's partners in order, those with visual.
        if name.startswith(("co_attention.1", "co_attention.2", "layers.0.across.1.", "layers.0.across.3.")):
            p.data.normal_()
    assert_close(fusion(without(x, "visual")), before)
    assert not torch.allclose(fusion(x)[..., :16], before[..., :16])


# -- bottleneck and perceiver ------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("positions", [False, True])
def test_perceiver_knows_order_by_positions_alone(positions):
    fusion, x = Perceiver(TWO, positions=positions).eval(), streams(TWO)
    out = fusion({**x, "audio": x["audio"].flip(1)})
    assert torch.allclose(out, fusion(x), atol=1e-5) is not positions


def test_perceiver_formula_and_pooling():
    fusion, x = Perceiver(TWO, latents=3, layers=1, positions=False).eval(), streams(TWO)
    tokens = torch.cat([v + e for v, e in zip(x.values(), fusion.embedding, strict=True)], 1)
    latents = fusion.layers[0](fusion.read(fusion.latents.expand(2, -1, -1), tokens)[0])[0]
    assert_close(fusion(x), fusion.answer(x["text"] + fusion.embedding[0], latents)[0])
    pooled = Perceiver(TWO, latents=3, layers=1, positions=False, pool=True).eval()
    pooled.load_state_dict({k: v for k, v in fusion.state_dict().items() if not k.startswith("answer.")})
    assert_close(pooled(x), latents.mean(1))


# -- gated cross-attention ---------------------------------------------------------------------------------------------


def test_closed_gates_pass_the_anchor_alone():
    fusion, x = GatedCrossAttention(DIMS, init_gate=0.0).eval(), streams()
    assert torch.equal(fusion(x), x["text"])
    fusion(x).square().sum().backward()
    felt = reached(gradients(fusion))
    assert felt["layers.0.attention_gate"]
    assert not felt["layers.0.attention.query.weight"].any()


def test_gated_cross_attention_formula():
    fusion, x = GatedCrossAttention(DIMS, heads=1, init_gate=0.7).eval(), streams()
    layer = fusion.layers[0]
    memory = fusion.norm(torch.cat([v + e for v, e in zip(list(x.values())[1:], fusion.embedding, strict=True)], 1))
    text = x["text"]
    attention = layer.attention
    weights = attention.query(layer.norm(text)) @ attention.key(memory).transpose(1, 2) / 8**0.5
    h = text + math.tanh(0.7) * attention.mix(weights.softmax(-1) @ attention.value(memory))
    block = layer.feed_forward
    expected = h + math.tanh(0.7) * block.reduce(torch.nn.functional.gelu(block.expand(block.norm(h))))
    assert_close(fusion(x), expected)


def test_an_anchor_with_nothing_to_read_adds_nothing():
    fusion, x = GatedCrossAttention(TWO, init_gate=2.0).eval(), streams(TWO)
    block = fusion.layers[0].feed_forward
    alone = x["text"] + math.tanh(2.0) * block.update(block.norm(x["text"]))
    assert_close(fusion({"text": x["text"]}), alone)
    with pytest.raises(OptionError, match="init_gate must be a finite number"):
        GatedCrossAttention(TWO, init_gate=math.nan)


# -- mixture of experts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [1, 2, None])
def test_mixture_of_experts_formula(top_k):
    fusion, x = MixtureOfExperts(DIMS, experts=1, shared=1, top_k=top_k).eval(), streams()
    joined = torch.cat(list(x.values()), -1)
    out = fusion(x)
    for b in range(2):
        for t in range(5):
            scores = fusion.router.weight @ joined[b, t]
            best = scores.argsort(descending=True)[: top_k or 4]
            gates = scores.softmax(-1)[best] if top_k == 1 else scores[best].softmax(-1)
            inputs = [*(v[b, t] for v in x.values()), joined[b, t]]
            expected = sum(g * fusion.experts[e](inputs[e]) for g, e in zip(gates, best.tolist(), strict=True))
            assert_close(out[b, t], expected)


def test_experts_of_a_missing_modality_are_never_chosen():
    fusion, x = MixtureOfExperts(DIMS, experts=2, shared=0, top_k=3).eval(), streams()
    weights = fusion.fuse({"audio": x["audio"]}).attention["experts"]
    assert (weights[..., [0, 1, 4, 5]] == 0).all()
    assert (weights[..., 2:4] > 0).all()
    assert_close(weights.sum(-1), torch.ones(2, 5))


def test_load_balance_is_one_when_all_experts_are_used_alike():
    probabilities = torch.full((2, 4, 4), 0.25)
    chosen = torch.eye(4, dtype=torch.bool).expand(2, -1, -1)
    assert_close(load_balance(probabilities, chosen, None), torch.tensor(1.0))
    one = torch.zeros(2, 4, 4)
    one[..., 0] = 1
    assert_close(load_balance(one, one.bool(), None), torch.tensor(4.0))
    # Padded steps do not count, and without any step there is nothing to balance.
    mask = torch.tensor([[True] * 4, [False] * 4])
    mixed = torch.stack([probabilities[0], one[0]])
    assert_close(load_balance(mixed, torch.stack([chosen[0], one[0].bool()]), mask), torch.tensor(1.0))
    assert load_balance(mixed, mixed > 0, torch.zeros_like(mask)) == 0


def test_mixture_of_experts_refuses():
    with pytest.raises(OptionError, match="top_k=8 of 7 experts"):
        MixtureOfExperts(DIMS, top_k=8)
    with pytest.raises(OptionError, match="shared must be an integer"):
        MixtureOfExperts(DIMS, shared=-1)
