"""MulT, MFN, MAG, MISA and Graph-MFN: their formulas written out, absent modalities, unequal lengths, refusals."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import pytest
import torch

import fusionzoo_plugins.graph_mfn
import fusionzoo_plugins.mfn
import fusionzoo_plugins.mult
from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo.testing import check_fusion
from fusionzoo_plugins._misa_losses import cmd, orthogonality, reconstruction
from fusionzoo_plugins.graph_mfn import DynamicFusionGraph, GraphMFN
from fusionzoo_plugins.mag import MAG
from fusionzoo_plugins.mfn import MFN
from fusionzoo_plugins.misa import MISA, MISANetwork
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


# -- MulT --------------------------------------------------------------------------------------------------------------


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


# -- MFN ---------------------------------------------------------------------------------------------------------------


def test_mfn_equals_cells_advanced_one_by_one():
    dims = {"a": 3, "b": 4, "c": 5, "d": 2}
    fusion = build(MFN, dims, hidden={"a": 2, "b": 3, "c": 2, "d": 4}, memory=3)
    x = inputs((5,) * 4, dims=dims)
    masks = {m: torch.rand(2, 5) < 0.7 for m in dims}
    result, _ = fusion.states([x[m] * masks[m].unsqueeze(-1) for m in dims], torch.stack(list(masks.values()), -1))
    for b in range(2):
        states = [(torch.zeros(c.hidden_size), torch.zeros(c.hidden_size)) for c in fusion.lstms.cells]
        u = torch.zeros(3)
        for t in range(5):
            before = [c for _, c in states]
            for i, (m, cell) in enumerate(zip(dims, fusion.lstms.cells, strict=True)):
                if masks[m][b, t]:
                    states[i] = cell(x[m][b, t], states[i])
            cells = torch.cat([*before, *(c for _, c in states)])
            attended = fusion.attend(cells).softmax(-1) * cells
            if any(masks[m][b, t] for m in dims):
                both = torch.cat([attended, u])
                memory = fusion.memory
                u = memory.retain(both).sigmoid() * u + memory.write(both).sigmoid() * memory.update(attended).tanh()
            torch.testing.assert_close(result[b, t], torch.cat([*(h for h, _ in states), u]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", [MFN, GraphMFN])
def test_memory_fusion_pools_at_the_last_real_step(cls):
    steps, last = build(cls, DIMS, head=7), build(cls, DIMS, head=7, pool="last")
    out = steps(inputs(), RAGGED)
    torch.testing.assert_close(last(inputs(), RAGGED), torch.stack([out[0, 4], out[1, 2]]))


@pytest.mark.parametrize("cls", [MFN, GraphMFN])
def test_memory_fusion_refusals(cls):
    with pytest.raises(OptionError, match="hidden gives 2 sizes for 3 modalities"):
        cls(DIMS, hidden=[3, 4])
    with pytest.raises(ReferenceWeightsError, match="three modalities, this one 2"):
        cls({"text": 3, "audio": 4}).load_reference({})


# -- MAG ---------------------------------------------------------------------------------------------------------------


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


# -- MISA --------------------------------------------------------------------------------------------------------------


def test_misa_losses_are_those_of_the_real_rows():
    torch.manual_seed(0)
    x, y = torch.rand(2, 2, 5, 3)
    a, b = x[RAGGED], y[RAGGED]
    centred = a - a.mean(0), b - b.mean(0)
    expected = (a.mean(0) - b.mean(0)).norm()
    expected = expected + sum(((centred[0] ** k).mean(0) - (centred[1] ** k).mean(0)).norm() for k in (2, 3, 4, 5))
    x = x.masked_fill(~RAGGED.unsqueeze(-1), torch.nan)
    torch.testing.assert_close(cmd(x, y, RAGGED), expected)
    unit = [c / c.norm(dim=1, keepdim=True) for c in centred]
    torch.testing.assert_close(orthogonality(x, y, RAGGED), (unit[0].T @ unit[1]).square().mean(), rtol=1e-4, atol=0)
    torch.testing.assert_close(reconstruction(x, y, RAGGED), (a - b).square().mean())


@pytest.mark.parametrize("loss", [cmd, orthogonality, reconstruction])
@pytest.mark.parametrize("rows", [0, 1])
def test_misa_losses_of_no_row_and_of_one(loss, rows):
    x = torch.rand(4, 3, requires_grad=True)
    value = loss(x, torch.rand(4, 3), torch.arange(4) < rows)
    value.backward()
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    if rows == 0 or loss is orthogonality:
        assert value == 0


def test_misa_compares_modalities_only_where_both_are_present():
    fusion, x = build(MISA, DIMS, width=8, difference=1.0), inputs()
    masks = dict.fromkeys(DIMS, RAGGED) | {"audio": RAGGED & (torch.arange(5) % 2 == 0)}
    out = fusion.fuse(x, masks)
    p, s = ({m: out.streams[f"{m}.{part}"] for m in DIMS} for part in ("private", "shared"))
    pairs = [(m, n, masks[m] & masks[n]) for m, n in combinations(DIMS, 2)]
    similarity = torch.stack([cmd(s[m][k], s[n][k]) for m, n, k in pairs]).mean()
    torch.testing.assert_close(out.losses["similarity"], similarity)
    difference = sum(orthogonality(p[m][masks[m]], s[m][masks[m]]) for m in DIMS)
    difference = difference + sum(orthogonality(p[m][k], p[n][k]) for m, n, k in pairs)
    torch.testing.assert_close(out.losses["difference"], difference)
    errors = [(out.streams[f"{m}.reconstruction"] - out.streams[m])[masks[m]].square().mean() for m in DIMS]
    torch.testing.assert_close(out.losses["reconstruction"], torch.stack(errors).mean())


def test_misa_adversarial_gradient_comes_back_reversed():
    def gradients(reverse):
        fusion = build(MISA, DIMS, width=8, match="adversarial", reverse=reverse)
        fusion.fuse(inputs(), RAGGED).losses["similarity"].backward()
        return fusion.shared.weight.grad, fusion.discriminator.fc2.weight.grad

    (shared, told), (twice, same) = gradients(1.0), gradients(2.0)
    torch.testing.assert_close(twice, 2 * shared)
    torch.testing.assert_close(same, told)


def test_misa_network_reads_sequences_whatever_their_padding():
    dims = {"text": 6, "visual": 5, "audio": 4}
    network = build(MISANetwork, dims, 3, cell="gru", width=8)
    x = inputs(dims=dims)
    out = network(x, RAGGED)
    assert out.fused.shape == (2, 3)
    assert out.streams["text.private"].shape == (2, 8)
    alone = network({m: v[1:, :3] for m, v in x.items()})
    torch.testing.assert_close(out.fused[1:], alone.fused)


def test_misa_refusals():
    with pytest.raises(OptionError, match="difference must be a number of at least 0"):
        MISA(DIMS, difference=-1)
    with pytest.raises(OptionError, match="one of"):
        MISA(DIMS, match="mse")
    with pytest.raises(OptionError, match="match='adversarial'"):
        MISA(DIMS, width=8).tell_apart(torch.zeros(2, 8))
    with pytest.raises(ReferenceWeightsError, match=r"missing transformer_encoder\.layers\.0\.norm1"):
        MISA(DIMS, width=8).load_reference({})


# -- Graph-MFN ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "connections"), [(2, 5), (3, 19), (4, 65)])
def test_graph_reads_every_smaller_set_with_an_efficacy_of_its_own(count, connections):
    torch.manual_seed(0)
    widths = [3, 4, 2, 5][:count]
    graph = DynamicFusionGraph(widths, 6, 7, linear=False, dropout=0.0)
    x = [torch.rand(2, w) for w in widths]
    top, efficacies = graph(x)
    assert efficacies.shape == (2, connections)
    assert ((efficacies > 0) & (efficacies < 1)).all()
    left = iter(efficacies.unbind(-1))
    vertices = {(m,): v for m, v in enumerate(x)}
    for size in range(2, count + 1):
        for s in combinations(range(count), size):
            parts = [vertices[b] * next(left)[:, None] for r in range(1, size) for b in combinations(s, r)]
            vertices[s] = graph.nodes["_".join(map(str, s))](torch.cat(parts, -1))
    torch.testing.assert_close(top, graph.top(torch.cat([v * next(left)[:, None] for v in vertices.values()], -1)))
    assert next(left, None) is None


def test_graph_mfn_takes_two_to_four_modalities_and_registers_every_vertex():
    with pytest.raises(OptionError, match="fuses 2 to 4 modalities, got 5"):
        GraphMFN([3] * 5)
    names = dict(GraphMFN(DIMS).named_parameters())
    assert {n.split(".")[2] for n in names if n.startswith("vertex_graph.nodes.")} == {"0_1", "0_2", "1_2", "0_1_2"}


def test_graph_mfn_says_which_official_weights_are_missing():
    fusion = GraphMFN(DIMS)
    with pytest.raises(ReferenceWeightsError, match="missing lstm_l"):
        fusion.load_reference({})


# -- pooling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "cls", "options"),
    [
        (fusionzoo_plugins.mult, MulT, {**SMALL, "pool": "last"}),
        (fusionzoo_plugins.mfn, MFN, {"hidden": 4, "pool": "last"}),
        (fusionzoo_plugins.graph_mfn, GraphMFN, {"hidden": 4, "pool": "last"}),
    ],
)
def test_pooling_passes_the_checks_of_methods_that_pool(module, cls, options):
    specs = []
    module.fusionzoo_register(specs.append)
    spec = dataclasses.replace(specs[0], handles=specs[0].handles | {"pools"})
    only = ["runs", "padding_poison", "padding_length", "mask_gap", "fully_masked_row", "missing_call_equals_items"]
    check_fusion(cls, options=options, spec=spec, only=only).raise_if_failed()
