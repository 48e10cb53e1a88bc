"""Tensor products, low-rank and bilinear pooling, multiplicative interactions, gates and experts, against plain formulas."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_plugins import tfn
from fusionzoo_plugins._mmsa_networks import EarlyFusionLSTM, SubNetworks
from fusionzoo_plugins.concat_fc import ConcatFC
from fusionzoo_plugins.lmf import LowRankFusion
from fusionzoo_plugins.mfb import MFB
from fusionzoo_plugins.mlb import MLB
from fusionzoo_plugins.multiplicative_interactions import MultiplicativeInteractions
from fusionzoo_plugins.mutan import Mutan
from fusionzoo_plugins.nl_gate import NLGate
from fusionzoo_plugins.product_of_experts import ProductOfExperts, product_of_experts
from fusionzoo_plugins.tfn import LargeTensorWarning, TensorFusion

DIMS = {"text": 5, "audio": 3, "visual": 4}
ERC = {"text": 1024, "audio": 1582, "visual": 342}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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


# -- tensor fusion -----------------------------------------------------------------------------------------------------


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


def test_lmf_is_tensor_fusion_with_a_low_rank_weight():
    low, xs = shaken(LowRankFusion(DIMS, 6, rank=3)), streams()
    f = [low.factors.get_parameter(f"factor{i}") for i in range(3)]
    weight = torch.einsum("r,rio,rjo,rko->oijk", low.factors.fusion_weights[0], *f)
    full = TensorFusion(DIMS, 6, project=False, hidden=()).eval()
    with torch.no_grad():
        full.head.layers[0].weight.copy_(weight.flatten(1))
        full.head.layers[0].bias.copy_(low.factors.fusion_bias[0])
    torch.testing.assert_close(low(xs), full(xs), rtol=1e-4, atol=1e-4)


def test_lmf_starts_neutral_to_an_absent_modality():
    fusion, xs = LowRankFusion(DIMS, 6).eval(), streams()
    alone = LowRankFusion({"text": 5, "audio": 3}, 6).eval()
    state = {k: v for k, v in fusion.state_dict().items() if "factor2" not in k}
    alone.load_state_dict(state)
    torch.testing.assert_close(fusion([*xs[:2], None]), alone(xs[:2]))


def test_lmf_official_learns_weights_and_bias_only():
    fusion = LowRankFusion(DIMS, 6, variant="official")
    assert {n for n, _ in fusion.named_parameters()} == {"factors.fusion_weights", "factors.fusion_bias"}
    assert sum("factor" in k for k in fusion.state_dict()) == 5
    assert fusion.double().factors.get_buffer("factor0").dtype == torch.float64


def test_reference_weights_name_three_modalities():
    state = LowRankFusion({"a": 2, "b": 3}, 4).state_dict()
    named = {f"audio_{k[8:]}": v for k, v in state.items()}
    with pytest.raises(ReferenceWeightsError, match="three modalities, this one 2"):
        LowRankFusion({"a": 2, "b": 3}, 4).load_reference(named)
    with pytest.raises(ReferenceWeightsError, match="post_fusion_layer_1"):
        TensorFusion(DIMS, 4, project=False).load_reference({"post_fusion_layer_1.weight": torch.zeros(1, 2)})


# -- multiplicative interactions ---------------------------------------------------------------------------------------


def maps(fusion: nn.Module, i: int = 0) -> tuple[Tensor, ...]:
    m = fusion.maps[i]
    return m.W, m.U, m.V, m.b


def mi(form: str, weights: tuple[Tensor, ...], z: Tensor, x: Tensor) -> Tensor:
    """One sample, by the definition."""
    w, u, v, b = weights
    if form == "matrix":
        return torch.stack([z @ w[..., o] @ x for o in range(w.shape[-1])]) + z @ u + x @ v + b
    if form == "vector":
        return torch.diag(z @ w + v) @ x + z @ u + b
    return (z @ w + v) * x + z @ u + b


@pytest.mark.parametrize("form", ["matrix", "vector", "scalar"])
@pytest.mark.parametrize("flip", [False, True])
def test_multiplicative_interactions_of_two(form, flip):
    dims = {"text": 5, "audio": 3}
    fusion = shaken(MultiplicativeInteractions(dims, 3, form=form, project=False, flip=flip))
    xs = streams()[:2]
    out = fusion(xs)
    for b in range(2):
        z, x = (xs[flip][b, 1], xs[not flip][b, 1])
        torch.testing.assert_close(out[b, 1], fusion.out(mi(form, maps(fusion), z, x)))


@pytest.mark.parametrize("form", ["matrix", "vector", "scalar"])
def test_multiplicative_interactions_of_three(form):
    fusion, xs = shaken(MultiplicativeInteractions(DIMS, 4, form=form, project=False)), streams()
    x, y, z = (s[1, 2] for s in xs)
    if form == "matrix":
        w, u, v, b = maps(fusion)
        a = torch.einsum("n,m,nmpq->pq", x, y, w) + torch.einsum("n,npq->pq", x, u)
        a = a + torch.einsum("m,mpq->pq", y, v) + b
        expected = z @ a + mi(form, maps(fusion, 1), x, y)
    else:
        expected = fusion.out(mi(form, maps(fusion, 1), mi(form, maps(fusion), x, y), z))
    torch.testing.assert_close(fusion(xs)[1, 2], expected, rtol=1e-4, atol=1e-5)


def test_all_pairs_has_the_fusion_on_its_diagonal():
    fusion = shaken(MultiplicativeInteractions(DIMS, 4, project=False))
    xs = [x[:, 0] for x in streams(3)]
    pairs = fusion.all_pairs(xs)
    assert pairs.shape == (3, 3, 4)
    torch.testing.assert_close(pairs.diagonal().mT, fusion(xs), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(pairs[0, 1], pairs[1, 1])


def test_matrix3d_is_a_matrix_flattened():
    dims, xs = {"text": 5, "audio": 3}, streams()[:2]
    cube = shaken(MultiplicativeInteractions(dims, 6, form="matrix3D", rows=2, project=False))
    flat = MultiplicativeInteractions(dims, 6, project=False).eval()
    flat.load_reference({k: v.reshape(*v.shape[:-2], 6) for k, v in cube.maps[0].state_dict().items()})
    torch.testing.assert_close(cube(xs), flat(xs))


def test_clipping_of_values_and_gradients():
    dims, xs = {"text": 5, "audio": 3}, streams()[:2]
    plain = shaken(MultiplicativeInteractions(dims, 6, project=False))
    clipped = MultiplicativeInteractions(dims, 6, project=False, clip=(-0.5, 0.5), grad_clip=(-0.1, 0.2))
    clipped.load_state_dict(plain.state_dict())
    torch.testing.assert_close(clipped(xs), plain([x.clamp(-0.5, 0.5) for x in xs]))
    clipped(xs).sum().backward()
    plain([x.clamp(-0.5, 0.5) for x in xs]).sum().backward()
    for a, b in zip(clipped.parameters(), plain.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad.clamp(-0.1, 0.2))


@pytest.mark.parametrize(
    ("dims", "options", "message"),
    [
        (DIMS, {"form": "matrix3D"}, "takes two modalities"),
        ({"a": 4, "b": 3}, {"form": "matrix3D", "rows": 3}, "rows divide out_dim=4"),
        (DIMS, {"clip": (1, -1)}, "lower and an upper bound"),
        (DIMS, {"form": "cube"}, "form='cube' is not one of"),
        (DIMS, {"width": 3, "project": False}, "needs project=True"),
        ([2, 2, 2, 2], {}, "fuses 2 to 3 modalities, got 4"),
    ],
)
def test_multiplicative_interactions_refuse(dims, options, message):
    with pytest.raises(OptionError, match=message):
        MultiplicativeInteractions(dims, **options)


# -- non-local gate ----------------------------------------------------------------------------------------------------


def test_nl_gate_slot_by_slot():
    fusion, xs = shaken(NLGate(DIMS, 6, tokens=2, channels=3, memory=4)), streams()
    result = fusion.fuse(xs)
    x = [s[1, 2] for s in xs]
    q = fusion.query(x[0]).view(2, 3)
    k = torch.cat([f(y).view(4, 3) for f, y in zip(fusion.key, x[1:], strict=True)])
    v = torch.cat([f(y).view(4, 3) for f, y in zip(fusion.value, x[1:], strict=True)])
    weights = torch.stack([(k @ row / math.sqrt(3)).softmax(0) for row in q])
    torch.testing.assert_close(result.attention["slots"][1, 2], weights)
    torch.testing.assert_close(result.fused[1, 2], (q + weights @ v).flatten())


def test_nl_gate_gives_an_absent_modality_no_weight():
    fusion, xs = NLGate(DIMS, 6, tokens=2, channels=3, memory=4).eval(), streams()
    here = torch.tensor([[True] * 3, [False, True, True]])
    weights = fusion.fuse(xs, {"text": torch.ones(2, 3, dtype=torch.bool), "audio": here}).attention["slots"]
    assert not weights[1, 0, :, :4].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 2))
    only_text = fusion([xs[0], None, None])
    torch.testing.assert_close(only_text, fusion.query(xs[0]))


def test_nl_gate_refuses():
    with pytest.raises(OptionError, match="'audio' has width 3, its slots take 12"):
        NLGate(DIMS, tokens=2, channels=3, memory=4, project="q")
    with pytest.raises(OptionError, match="which of q, k and v"):
        NLGate(DIMS, project="qx")
    with pytest.raises(ReferenceWeightsError, match="variant='official'"):
        NLGate(DIMS).load_reference({})


# -- product of experts ------------------------------------------------------------------------------------------------


def test_product_of_experts_is_the_product_of_the_densities():
    mean, log_variance = torch.randn(3), torch.randn(3)
    got, spread = product_of_experts(list(mean[:, None]), list(log_variance[:, None]))
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    density = -(grid**2) / 2 - ((grid - mean[:, None]) ** 2 / (2 * log_variance[:, None].exp())).sum(0)
    weight = density.softmax(0)
    torch.testing.assert_close(got.double(), (weight * grid).sum()[None], rtol=1e-4, atol=1e-5)
    variance = (weight * (grid - got) ** 2).sum()[None]
    torch.testing.assert_close(spread.exp().double(), variance, rtol=1e-3, atol=1e-5)


def test_a_missing_expert_leaves_the_product():
    fusion, xs = shaken(ProductOfExperts(DIMS, 6, width=6, kl=1.0)), streams()
    two = ProductOfExperts({"text": 5, "visual": 4}, 6, width=6, kl=1.0).eval()
    two.experts[0], two.experts[1] = fusion.experts[0], fusion.experts[2]
    torch.testing.assert_close(fusion([xs[0], None, xs[2]]), two([xs[0], xs[2]]))
    absent = [torch.zeros(2, dtype=torch.bool)]
    for priors, precision in ((1, 1.0), (0, 1.0), (4, 4.0)):
        mean, log_variance = product_of_experts([torch.ones(2, 3)], [torch.zeros(2, 3)], absent, priors=priors)
        assert not mean.any()
        torch.testing.assert_close(log_variance, torch.full((2, 3), -math.log(precision)))


@pytest.mark.filterwarnings("ignore::fusionzoo.errors.MaskWarning")  # a dialogue with data and no real step is meant
def test_kl_is_the_divergence_from_the_prior_over_real_steps():
    fusion, xs = shaken(ProductOfExperts(DIMS, 6, width=6, kl=0.5)), streams()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    outputs = [e(x).chunk(2, -1) for e, x in zip(fusion.experts, xs, strict=True)]
    mean, log_variance = product_of_experts([m for m, _ in outputs], [10 * torch.tanh(s / 10) for _, s in outputs])
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(fusion.fuse(xs, mask).losses["kl"], 0.5 * kl[mask].mean(), rtol=1e-4, atol=1e-5)
    nothing = fusion.fuse(xs, torch.zeros(2, 3, dtype=torch.bool)).losses["kl"]
    assert nothing == 0


def test_experts_are_sampled_in_training_only():
    fusion, xs = ProductOfExperts(DIMS, 6), streams()
    assert not torch.equal(fusion.train()(xs), fusion(xs))
    still = ProductOfExperts(DIMS, 6, sample=False).train()
    assert torch.equal(still(xs), still.eval()(xs))
    with pytest.raises(OptionError, match="kl must be a number"):
        ProductOfExperts(DIMS, kl=-1)


# -- bilinear pooling --------------------------------------------------------------------------------------------------


def test_mlb():
    fusion, xs = shaken(MLB(DIMS, 6, rank=7)), streams()
    h = [torch.tanh(p(x)) for p, x in zip(fusion.project, xs, strict=True)]
    torch.testing.assert_close(fusion(xs), fusion.head(h[0] * h[1] * h[2]))
    torch.testing.assert_close(fusion([xs[0], None, xs[2]]), fusion.head(h[0] * h[2]))


@pytest.mark.parametrize("order", [1, 3])
def test_mfb_pools_groups(order):
    fusion, xs = shaken(MFB(DIMS, order * 4, width=4, factors=2, order=order)), streams()
    expanded = [p(x)[1, 2].view(order, 4, 2) for p, x in zip(fusion.project, xs, strict=True)]
    expected, before = [], torch.ones(4, 2)
    for i in range(order):
        before = before * expanded[0][i] * expanded[1][i] * expanded[2][i]
        z = torch.stack([before[w].sum() for w in range(4)])
        z = z.sign() * z.abs().sqrt()
        expected.append(z / z.norm())
    torch.testing.assert_close(fusion(xs)[1, 2], torch.cat(expected), rtol=1e-3, atol=1e-3)


def test_mutan_is_a_tucker_form():
    fusion, xs = shaken(Mutan({"a": 5, "b": 3}, 6, width=4, core=2, rank=3)), streams()[:2]
    with torch.no_grad():
        for s in fusion.slices:
            s.bias.zero_()
    a, b = (torch.tanh(p(x)) for p, x in zip(fusion.project, xs, strict=True))
    m, n = (s.weight.view(3, 2, 4) for s in fusion.slices)
    core = torch.einsum("roi,roj->ijo", m, n)
    torch.testing.assert_close(fusion(xs), fusion.head(torch.einsum("bti,btj,ijo->bto", a, b, core)))


# -- concatenation and whole networks ----------------------------------------------------------------------------------


def test_concat_fc_is_a_perceptron():
    fusion, xs = ConcatFC(DIMS, 6, hidden=(7, 5)).eval(), streams()
    a, b, c = fusion.head.layers
    torch.testing.assert_close(fusion(xs), nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c)(torch.cat(xs, -1)))
    assert len(ConcatFC([2, 2], 4, hidden=()).head.layers) == 1
    with pytest.raises(OptionError, match="positive integer"):
        ConcatFC(DIMS, hidden=(3, 0))


def network() -> SubNetworks:
    fusion = LowRankFusion({"audio": 3, "video": 2, "text": 4}, 5)
    return SubNetworks({"text": 6, "audio": 7, "video": 8}, fusion, hidden=9).eval()


def test_subnetworks_do_not_read_padded_words():
    net = network()
    x = {"text": torch.randn(2, 5, 6), "audio": torch.randn(2, 7), "video": torch.randn(2, 1, 8)}
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    padded = {**x, "text": torch.where(mask.unsqueeze(-1), x["text"], torch.nan)}
    alone = {"text": x["text"][1:, :3], "audio": x["audio"][1:], "video": x["video"][1:]}
    torch.testing.assert_close(net(padded, mask)[1:], net(alone))


def test_a_refused_state_leaves_a_network_as_it_was():
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = {f"{m}_subnet.{k}": v + 1 for m, sub in net.subnets.items() for k, v in sub.state_dict().items()}
    with pytest.raises(ReferenceWeightsError, match="fusion_bias"):
        net.load_reference({**state, "audio_factor": torch.zeros(4, 4, 5)})
    with pytest.raises(ReferenceWeightsError, match="rnn"):
        net.load_reference({k: v for k, v in state.items() if "rnn" not in k})
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_bounded_answers():
    fusion = TensorFusion({"audio": 3, "video": 2, "text": 4}, 1, project=False)
    net = SubNetworks({"text": 6, "audio": 7, "video": 8}, fusion, hidden=9, bounded=True).eval()
    out = net({"text": torch.randn(4, 5, 6) * 99, "audio": torch.randn(4, 7) * 99, "video": torch.randn(4, 8) * 99})
    assert out.abs().max() <= 3


def test_early_fusion_lstm_stops_at_the_last_real_step():
    net = EarlyFusionLSTM({"text": 6, "audio": 3}, 4, hidden=5, layers=2).eval()
    x = {"text": torch.randn(2, 5, 6), "audio": torch.randn(2, 5, 3)}
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    torch.testing.assert_close(net(x, mask)[1:], net({m: v[1:, :2] for m, v in x.items()}))
    normed = EarlyFusionLSTM({"text": 6, "audio": 3}, 4, hidden=5, steps=5)
    assert normed.norm.num_features == 5
