"""CFN-SR, MSAF, MMTM, MCB, AFF, FiLM and EmbraceNet against explicit formulas, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo_plugins._causal_encoder import SinusoidalPositions
from fusionzoo_plugins.aff import AFF
from fusionzoo_plugins.cfn_sr import CFNSR, CrossModalBlock
from fusionzoo_plugins.embracenet import EmbraceNet
from fusionzoo_plugins.film import FiLM
from fusionzoo_plugins.mcb import MCB
from fusionzoo_plugins.mmtm import MMTM, MMTMBlock
from fusionzoo_plugins.msaf import MSAF, MSAFBlock

DIMS = {"text": 8, "audio": 6, "visual": 5}
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def inputs(steps: tuple[int, ...] = (5, 5, 5), batch: int = 2) -> list[torch.Tensor]:
    widths = zip(steps, DIMS.values(), strict=True)
    return [torch.randn(batch, n, d, generator=torch.Generator().manual_seed(i)) for i, (n, d) in enumerate(widths)]


def unaligned() -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    x = inputs((5, 7, 4))
    lengths = {"text": (5, 3), "audio": (7, 2), "visual": (3, 4)}
    return x, {
        m: torch.arange(v.shape[1]) < torch.tensor(lengths[m]).unsqueeze(1) for m, v in zip(DIMS, x, strict=True)
    }


# -- cfn-sr ------------------------------------------------------------------------------------------------------------


def test_cfn_sr_is_the_formula():
    torch.manual_seed(0)
    fusion = CFNSR(DIMS, 19, width=4, layers=1).eval()
    xs, block = inputs(), fusion.block
    result = fusion.fuse(xs, MASK)
    for b, n in enumerate((5, 3)):
        condition = sum(
            affine(encoder(project(x[b : b + 1, :n]))[0, -1])
            for x, project, encoder, affine in zip(xs[1:], fusion.project, block.encoders, block.y_affine, strict=True)
        )
        scores = block.attn_weight_affine(torch.tanh(block.channel_affine(xs[0][b, :n]) + condition)).squeeze(-1)
        looked = xs[0][b, :n] * (1 + scores.softmax(0).unsqueeze(-1))
        expected = torch.cat([looked, xs[1][b, :n], xs[2][b, :n]], -1)
        torch.testing.assert_close(result.fused[b, :n], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(result.attention["text"][b, :n], scores.softmax(0))


def test_cfn_sr_guide_that_is_absent_conditions_nothing():
    fusion = CFNSR(DIMS, 19, width=4, layers=1).eval()
    xs = inputs()
    pair = CFNSR({"text": 8, "audio": 6}, 14, width=4, layers=1).eval()
    pair.load_state_dict(fusion.state_dict(), strict=False)
    fused, expected = fusion([*xs[:2], None]), pair(xs[:2])
    torch.testing.assert_close(fused[..., :14], expected)
    assert fused[..., 14:].eq(0).all()


def test_cross_modal_block_gives_every_frame_its_own_softmax():
    block = CrossModalBlock(10, width=8, heads=2, layers=1).eval()
    x, guide = torch.randn(2, 10, 3, 4, 5), torch.randn(2, 8, 6)
    out, weights = block(x, guide)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    torch.testing.assert_close(out, x * (1 + weights.view(2, 1, 3, 4, 5)))
    torch.testing.assert_close(block(x[:, :, 0], guide)[0], out[:, :, 0])
    torch.testing.assert_close(block(x[1:], guide[1:])[0], out[1:])


def test_official_cross_modal_block_adds_up_the_maps_of_the_batch():
    block = CrossModalBlock(10, width=8, heads=2, layers=1, variant="official", residual=False).eval()
    x, guide = torch.randn(3, 10, 2, 3, 3), torch.randn(3, 8, 6)
    out, weights = block(x, guide)
    torch.testing.assert_close(out, x * weights.sum(0).view(1, 1, 2, 3, 3))


def test_cross_modal_block_of_the_paper_has_its_parameters():
    # One less than published: the bias that the softmax does not see.
    assert sum(p.numel() for p in CrossModalBlock(2048).parameters()) == 385_344
    assert sum(p.numel() for p in CrossModalBlock(2048, variant="official").parameters()) == 385_345


def test_cfn_sr_loads_official_weights_without_projections_only():
    with pytest.raises(ReferenceWeightsError, match="width = the guide's"):
        CFNSR({"visual": 10, "audio": 6}, width=8).load_reference({})
    with pytest.raises(ReferenceWeightsError, match="missing"):
        CFNSR({"visual": 10, "audio": 8}, 18, width=8).load_reference({})


def test_official_positions_of_padding_are_zero_and_shift_nothing():
    tokens = torch.tensor([[1.0, 0.0, 2.0], [3.0, 1.0, 1.0]])
    emb = SinusoidalPositions(6)(tokens)
    assert emb[0, 1].eq(0).all()
    torch.testing.assert_close(emb[0, 2], emb[1, 2])
    torch.testing.assert_close(emb[1, 2, 0], torch.tensor(3.0).sin())


# -- msaf --------------------------------------------------------------------------------------------------------------


def test_msaf_is_the_formula_also_where_blocks_are_not_full():
    torch.manual_seed(0)
    fusion = MSAF(DIMS, 19, block=4, lowest=0.1).eval()
    xs, split = inputs(), fusion.split.blocks[0]
    fused = fusion(xs, MASK)
    for b, n in enumerate((5, 3)):
        blocks, real = [], []
        for x in xs:
            mean = x[b, :n].mean(0)
            for start in range(0, len(mean), 4):
                part = mean[start : start + 4]
                real.append(torch.arange(4) < len(part))
                blocks.append(torch.cat([part, torch.zeros(4 - len(part))]))
        logits = split.dense_group(split.joint_features(torch.stack(blocks).sum(0))).view(-1, 4)
        attention = logits.masked_fill(~torch.stack(real), -torch.inf).softmax(0)
        factor = 0.1 + 0.9 * torch.cat([a[r] for a, r in zip(attention, real, strict=True)])
        torch.testing.assert_close(fused[b, :n], torch.cat([x[b, :n] for x in xs], -1) * factor, rtol=1e-4, atol=1e-5)


def test_msaf_absent_modality_takes_no_attention():
    fusion = MSAF(DIMS, block=4).eval()
    weights = fusion.fuse({"text": inputs()[0], "visual": inputs()[2]}).attention["blocks"]
    assert weights.shape == (2, 1, 4, 6)
    assert weights[..., 2:4].eq(0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, 4))


def test_msaf_segments_count_real_steps():
    fusion = MSAF(DIMS, 19, block=4, segments=2).eval()
    maps = [x.transpose(1, 2) for x in inputs()]
    expected = torch.cat(fusion.split(maps), 1).transpose(1, 2)
    torch.testing.assert_close(fusion(inputs()), expected)
    # Two steps in the first segment, three in the last: as upstream.
    ends = [torch.cat(fusion.split.blocks[i](squeezed, None)[0], -1) for i, squeezed in enumerate(halves(inputs()))]
    factor = torch.stack([ends[0]] * 2 + [ends[1]] * 3, 1)
    torch.testing.assert_close(expected, torch.cat(inputs(), -1) * factor)
    gapped = [torch.cat([x[:, :1], torch.full_like(x[:, :2], torch.nan), x[:, 1:]], 1) for x in inputs()]
    mask = torch.tensor([[True, False, False, True, True, True, True]] * 2)
    torch.testing.assert_close(fusion(gapped, mask)[mask], expected.flatten(0, 1))


def halves(xs):
    return [x[:, :2].mean(1) for x in xs], [x[:, 2:].mean(1) for x in xs]


def test_msaf_dropout_drops_whole_blocks():
    torch.manual_seed(0)
    block = MSAFBlock([8, 8], 4, block_dropout=0.5).train()
    x = torch.ones(50, 8)
    y = torch.cat(block([x, x]), 1).unflatten(1, (4, 4))
    dropped = y.eq(0)
    assert torch.equal(dropped.any(-1), dropped.all(-1))
    assert 0.3 < dropped.float().mean() < 0.7


def test_msaf_utterance_scope_squeezes_each_step():
    fusion = MSAF(DIMS, block=4, scope="utterance").eval()
    xs = inputs()
    torch.testing.assert_close(fusion(xs)[:, 2], fusion([x[:, 2] for x in xs]))
    with pytest.raises(OptionError, match="no time to cut"):
        MSAF(DIMS, scope="utterance", segments=2)


def test_msaf_refusals():
    with pytest.raises(ReferenceWeightsError, match="variant='official'"):
        MSAF(DIMS).load_reference({})
    with pytest.raises(OptionError, match="= 0 joint features"):
        MSAF(DIMS, block=3, variant="official")
    with pytest.raises(ShapeError, match="built for maps"):
        MSAFBlock([8, 8], 4)([torch.rand(2, 8, 3), torch.rand(2, 7, 3)])
    official = MSAF([8, 8], block=4, variant="official")
    with pytest.raises(ReferenceWeightsError, match=r"missing blocks\.0\.dense_group\.bias"):
        official.load_reference({})
    with pytest.raises(ReferenceWeightsError, match=r"the first is 'blocks\.1"):
        official.load_reference({"blocks.1.x": torch.zeros(1)})


# -- mmtm --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "factor"), [("default", 2), ("official", 1)])
def test_mmtm_is_the_formula(variant, factor):
    fusion = MMTM(DIMS, 19, variant=variant).eval()
    xs, block = inputs(), fusion.block
    fused = fusion(xs, MASK)
    joint = torch.relu(block.squeeze(torch.cat([x[1, :3].mean(0) for x in xs])))
    expected = [factor * torch.sigmoid(e(joint)) * x[1, :3] for e, x in zip(block.excite, xs, strict=True)]
    torch.testing.assert_close(fused[1, :3], torch.cat(expected, -1))
    maps = fusion.block([x.transpose(1, 2) for x in xs])
    torch.testing.assert_close(torch.cat(maps, 1).transpose(1, 2)[0], fused[0])


def test_mmtm_loads_official_weights_of_two_modalities():
    block = MMTMBlock([8, 4])
    state = {"fc_squeeze.weight": (6, 12), "fc_squeeze.bias": (6,), "fc_visual.weight": (8, 6), "fc_visual.bias": (8,)}
    state |= {"fc_skeleton.weight": (4, 6), "fc_skeleton.bias": (4,)}
    weights = {k: torch.randn(s) for k, s in state.items()}
    block.load_reference(weights)
    assert torch.equal(block.excite[1].get_parameter("weight"), weights["fc_skeleton.weight"])
    with pytest.raises(ReferenceWeightsError, match="two modalities"):
        MMTM(DIMS).load_reference(weights)
    with pytest.raises(ShapeError, match="built for maps"):
        block([torch.rand(2, 8), torch.rand(2, 8)])


@pytest.mark.parametrize("cls", [CFNSR, MSAF, MMTM])
def test_unaligned_streams_enter_as_means_beside_the_anchor(cls):
    xs, masks = unaligned()
    with pytest.raises(ShapeError, match="join='anchor'"):
        cls(DIMS)(xs, masks)
    torch.manual_seed(0)
    beside = cls(DIMS, 19, join="anchor").eval()
    pooled = cls(DIMS, 19, join="pool").eval()
    pooled.load_state_dict(beside.state_dict())
    result, vector = beside.fuse(xs, masks), pooled(xs, masks)
    assert result.fused.shape == (2, 5, 19)
    assert vector.shape == (2, 19)
    streams = result.streams
    audio = torch.stack([streams["audio"][0].mean(0), streams["audio"][1, :2].mean(0)])
    torch.testing.assert_close(vector[:, 8:14], audio)
    torch.testing.assert_close(result.fused[0, :, 8:14], audio[:1].expand(5, -1))
    torch.testing.assert_close(vector[1, :8], streams["text"][1, :3].mean(0))
    flat = [x[:, 0] for x in xs]
    torch.testing.assert_close(pooled(flat), beside(flat))


# -- mcb ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sketch", [5, 8, 32])
def test_mcb_is_the_count_sketch_of_the_outer_product(sketch):
    fusion = MCB(DIMS, sketch, sketch=sketch).eval()
    xs = [x.double()[:, 0] for x in inputs()]
    hashes, signs = [], []
    for i, d in enumerate(DIMS.values()):
        order = getattr(fusion, f"order_{i}").tolist()
        hashes.append([order.index(j) % sketch for j in range(d)])
        signs.append(getattr(fusion, f"sign_{i}").tolist())
        loads = [hashes[i].count(j) for j in range(sketch)]
        assert max(loads) <= -(-d // sketch)
    expected = torch.zeros(2, sketch, dtype=torch.float64)
    for i in range(8):
        for j in range(6):
            for k in range(5):
                place = (hashes[0][i] + hashes[1][j] + hashes[2][k]) % sketch
                sign = signs[0][i] * signs[1][j] * signs[2][k]
                expected[:, place] += sign * xs[0][:, i] * xs[1][:, j] * xs[2][:, k]
    rooted = expected.sign() * expected.abs().sqrt()
    expected = rooted / rooted.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(fusion(xs), expected, rtol=1e-4, atol=1e-4)


def test_mcb_keeps_inner_products_in_the_mean():
    a, b = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0)).double().unbind(0)
    products = torch.stack([
        (MCB({"x": 8, "y": 4}, sketch=8, seed=s).count_sketch(a, 0) * MCB({"x": 8, "y": 4}, sketch=8, seed=s).count_sketch(b, 0)).sum()
        for s in range(20)
    ])  # fmt: skip
    # Nothing collides where the sketch is wide enough: equality, not only in the mean.
    torch.testing.assert_close(products, (a * b).sum().expand(20))


def test_mcb_absent_modality_leaves_the_convolution_alone():
    fusion, pair = MCB(DIMS, 32, sketch=32).eval(), MCB({"text": 8, "audio": 6}, 32, sketch=32).eval()
    torch.testing.assert_close(fusion([*inputs()[:2], None]), pair(inputs()[:2]))


def test_mcb_sketch_is_saved_and_seeded():
    assert not list(MCB(DIMS, 32, sketch=32).parameters())
    first, second = MCB(DIMS, seed=1), MCB(DIMS, seed=2)
    assert not torch.equal(first.order_0, second.order_0)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(inputs()), first(inputs()))
    assert MCB({"text": 1024, "audio": 1582, "visual": 342}).sketch == 4096
    with pytest.raises(OptionError, match="seed"):
        MCB(DIMS, seed=-1)


# -- aff ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["default", "official"])
def test_aff_of_two_modalities_is_the_papers_sigmoid(variant):
    torch.manual_seed(0)
    fusion = AFF({"text": 8, "audio": 8}, variant=variant).eval()
    x, y = torch.randn(2, 2, 5, 8)
    fused = fusion([x, y], MASK)
    u = x + y
    mean = torch.stack([u[0].mean(0), u[1, :3].mean(0)])
    weight = torch.sigmoid(fusion.local_maps[0](u) + fusion.global_maps[0](mean).unsqueeze(1))
    expected = weight * x + (1 - weight) * y
    expected = 2 * expected if variant == "official" else expected
    torch.testing.assert_close(fused[MASK], expected[MASK], rtol=1e-4, atol=1e-5)


def test_iaff_integrates_twice():
    torch.manual_seed(0)
    twice = AFF({"text": 8, "audio": 8}, iterations=2, context="local").eval()
    x, y = torch.randn(2, 2, 5, 8)
    first = torch.sigmoid(twice.local_maps[0](x + y))
    second = torch.sigmoid(twice.local_maps[1](first * x + (1 - first) * y))
    torch.testing.assert_close(twice([x, y]), second * x + (1 - second) * y, rtol=1e-4, atol=1e-5)


def test_aff_gate_leaves_absent_modalities_out():
    fusion = AFF(DIMS).eval()
    text = inputs()[0]
    torch.testing.assert_close(fusion({"text": text}), text)
    gate = fusion.fuse([*inputs()[:2], None]).attention["gate"]
    torch.testing.assert_close(gate[..., :2].sum(-1), torch.ones(2, 5, 8))


def test_aff_reads_official_names_and_refuses_what_has_none():
    fusion = AFF([8, 8], iterations=2, variant="official")
    layers = {0: "conv", 1: "norm", 3: "conv", 4: "norm"}
    shapes = {0: (2, 8, 1, 1), 1: (2,), 3: (8, 2, 1, 1), 4: (8,)}
    state = {}
    for branch in ("local_att", "global_att", "local_att2", "global_att2"):
        for i, kind in layers.items():
            name = f"{branch}.{i + branch.startswith('global')}"
            state |= {f"{name}.weight": torch.randn(shapes[i]), f"{name}.bias": torch.randn(shapes[i][0])}
            if kind == "norm":
                state |= {f"{name}.running_mean": torch.randn(shapes[i]), f"{name}.running_var": torch.rand(shapes[i])}
                state[f"{name}.num_batches_tracked"] = torch.tensor(3)
    fusion.load_reference(state)
    assert torch.equal(fusion.local_maps[1].net[3].weight, state["local_att2.3.weight"].flatten(1))
    assert torch.equal(fusion.global_maps[0].net[4].running_mean, state["global_att.5.running_mean"])
    with pytest.raises(ReferenceWeightsError, match="missing"):
        fusion.load_reference({k: v for k, v in state.items() if k != "local_att2.3.weight"})
    with pytest.raises(ReferenceWeightsError, match="two modalities"):
        AFF([8, 8, 8], variant="official").load_reference(state)
    with pytest.raises(OptionError, match="iterations must be 1"):
        AFF(DIMS, iterations=3)
    with pytest.raises(OptionError, match="= 0 hidden features"):
        AFF(DIMS, width=3, variant="official")


# -- film --------------------------------------------------------------------------------------------------------------


def test_film_is_the_formula():
    fusion = FiLM(DIMS).eval()
    xs = inputs()
    parts = [g(x) for g, x in zip(fusion.generators, xs[1:], strict=True)]
    scale, shift = (parts[0] + parts[1]).chunk(2, -1)
    torch.testing.assert_close(fusion(xs), (1 + scale) * xs[0] + shift)
    torch.testing.assert_close(fusion({"text": xs[0]}), xs[0])


def test_film_on_unaligned_streams_conditions_on_means():
    xs, masks = unaligned()
    fusion = FiLM(DIMS, hidden=4, scope="dialogue").eval()
    means = [xs[1][1, :2].mean(0), xs[2][1, :4].mean(0)]
    parts = [g(x) for g, x in zip(fusion.generators, means, strict=True)]
    scale, shift = (parts[0] + parts[1]).chunk(2, -1)
    torch.testing.assert_close(fusion(xs, masks)[1, :3], (1 + scale) * xs[0][1, :3] + shift)
    with pytest.raises(ShapeError, match="scope='dialogue'"):
        FiLM(DIMS)(xs, masks)


# -- embracenet --------------------------------------------------------------------------------------------------------


def test_embracenet_takes_every_feature_from_one_modality():
    torch.manual_seed(0)
    fusion = EmbraceNet(DIMS, 40, weights={"text": 2.0, "audio": 1.0, "visual": 1.0})
    for docking in fusion.docking:
        nn.init.constant_(docking.bias, 5.0)  # keeps the ReLU open, so that values tell modalities apart
    xs = inputs((50, 50, 50))
    xs = [x * 0.1 for x in xs]
    result = fusion.train().fuse(xs)
    docked = torch.stack(list(result.streams.values()), -1)
    chosen = result.fused.unsqueeze(-1) == docked
    assert chosen.sum(-1).eq(1).all()
    shares = chosen.double().mean((0, 1, 2))
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.25, 0.25]).double(), atol=0.03, rtol=0)
    expected = (docked * torch.tensor([0.5, 0.25, 0.25])).sum(-1)
    torch.testing.assert_close(fusion.eval()(xs), expected)


def test_embracenet_never_draws_an_absent_modality():
    torch.manual_seed(0)
    fusion = EmbraceNet(DIMS, 40).train()
    xs = inputs()
    nn.init.constant_(fusion.docking[1].bias, 1e6)
    masks = {"text": MASK, "audio": torch.zeros_like(MASK), "visual": MASK}
    result = fusion.fuse(xs, masks)
    assert result.fused.max() < 1e5
    torch.testing.assert_close(result.attention["selection"][0, 0], torch.tensor([0.5, 0.0, 0.5]))
    assert fusion.eval()(xs, masks).max() < 1e5


def test_embracenet_reads_official_names_and_checks_weights():
    fusion = EmbraceNet([8, 6], 4)
    state = {f"docking_{i}.{k}": torch.randn(*s) for i, d in enumerate((8, 6)) for k, s in (("weight", (4, d)), ("bias", (4,)))}  # fmt: skip
    fusion.load_reference(state)
    assert torch.equal(fusion.docking[1].weight, state["docking_1.weight"])
    for wrong in ([1.0], [1.0, 0.0, 1.0], {"text": 1.0, "audio": 1.0}):
        with pytest.raises(OptionError, match="weights"):
            EmbraceNet(DIMS, weights=wrong)
