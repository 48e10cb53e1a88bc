"""The objectives against their definitions written naively, what they refuse, and how they meet a host."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fusionzoo.batch import Batch
from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo.host import HostOutput
from fusionzoo.objective import IGNORE, stream_widths
from fusionzoo.testing.comparisons import largest
from fusionzoo_adapters.hosts.bc_lstm import BcLSTM
from fusionzoo_plugins import _misa_losses
from fusionzoo_plugins.avel import AVEL
from fusionzoo_plugins.cmd import CMD
from fusionzoo_plugins.cross_entropy import CrossEntropy
from fusionzoo_plugins.deep_cca import DeepCCA
from fusionzoo_plugins.foal_net import FoalNet
from fusionzoo_plugins.focal import Focal
from fusionzoo_plugins.lmam import LMAM
from fusionzoo_plugins.mem import MEM
from fusionzoo_plugins.multiplicative_loss import Multiplicative
from fusionzoo_plugins.orthogonality import Orthogonality
from fusionzoo_plugins.reconstruction import Reconstruction
from fusionzoo_plugins.self_distillation import SelfDistillation
from fusionzoo_plugins.soft_hgr import SoftHGR
from fusionzoo_plugins.supcon import SupCon
from fusionzoo_plugins.swfc import SWFC

C = 3
COUNTS = torch.tensor([6, 2, 4])
LABELS = torch.tensor([[0, 1, 2, 0, IGNORE], [1, 0, IGNORE, IGNORE, IGNORE]])
REAL = LABELS != IGNORE
TWO = ("text", "audio")


def case(*names, width=4, labels=LABELS, present=None, classes=C):
    """Random logits and streams for `labels`, leaves that want a gradient."""
    generator = torch.Generator().manual_seed(0)

    def leaf(size):
        return torch.randn(*labels.shape, size, generator=generator).requires_grad_()

    streams = {n: leaf(classes if n.endswith(".logits") else width) for n in names}
    features = {n.partition(".")[0]: torch.zeros(*labels.shape, 1) for n in names}
    mask = torch.ones(labels.shape, dtype=torch.bool)
    batch = Batch(features, mask, torch.zeros_like(labels), labels, ["a", "b"], present)
    return HostOutput(leaf(classes), streams), batch


def gradient_of(out, name):
    gradient = out.streams[name].grad
    assert gradient is not None
    return gradient


def picked(out, name, mask=REAL):
    return out.streams[name][mask]


# -- contrast ----------------------------------------------------------------------------------------------------------


def contrast_of(z, y, temperature, focus, weights):
    """Each anchor's loss, one by one."""
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        log_p = (z[others] @ z[i] / temperature).log_softmax(0)[y[others] == y[i]]
        losses.append(-weights[i] * ((1 - log_p.exp()) ** focus * log_p).mean() if len(log_p) else z.sum() * 0)
    return torch.stack(losses)


@pytest.mark.parametrize("chunk", [None, 1, 4])
@pytest.mark.parametrize("focus", [0.0, 0.5, 2.4])
def test_swfc_is_its_definition(focus, chunk):
    out, batch = case("fused")
    loss = SWFC(C, COUNTS, temperature=0.8, focus=focus, weighting=1.2, chunk=chunk)(out, batch)
    weights = (12 / COUNTS) ** 1.2
    weights = (weights / weights.sum())[LABELS[REAL]]
    z = F.normalize(picked(out, "fused"), dim=-1)
    expected = contrast_of(z, LABELS[REAL], 0.8, focus, weights).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, out.streams["fused"])[0] for x in (loss, expected)))


def test_supcon_is_its_definition_and_averages_over_anchors_with_positives():
    labels = torch.where(LABELS == 2, IGNORE, LABELS)
    labels[0, 4] = 2  # alone of its class: a negative of the others, no anchor
    out, batch = case("text", labels=labels)
    z = F.normalize(picked(out, "text", labels != IGNORE), dim=-1)
    each = contrast_of(z, labels[labels != IGNORE], 0.1, 0.0, torch.ones(len(z)))
    torch.testing.assert_close(SupCon(C, stream="text")(out, batch), each.sum() / (len(z) - 1))


class Largest(TorchDispatchMode):
    """Notes the largest tensor that anything computes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.numel())
        return result


def test_chunks_give_the_same_and_never_hold_all_pairs():
    labels = torch.randint(C, (1, 600), generator=torch.Generator().manual_seed(1))
    found = {}
    for chunk in (600, 16):
        out, batch = case("fused", labels=labels, width=8)
        with Largest() as tensor:
            loss = SWFC(C, COUNTS, chunk=chunk)(out, batch)
            loss.backward()
        found[chunk] = loss, out.streams["fused"].grad, tensor.numel
    torch.testing.assert_close(found[16][0], found[600][0], rtol=1e-4, atol=0)
    assert largest(found[16][1] - found[600][1]) < 1e-4 * largest(found[600][1])
    assert found[600][2] == 600 * 600
    assert found[16][2] == 600 * 16


@pytest.mark.parametrize("objective", [SupCon(C), SWFC(C, COUNTS)], ids=["supcon", "swfc"])
def test_no_positive_pair_is_zero_with_zero_gradient(objective):
    out, batch = case("fused", labels=torch.tensor([[0, 1, 2, IGNORE]]))
    loss = objective(out, batch)
    loss.backward()
    assert loss == 0
    assert gradient_of(out, "fused").eq(0).all()


def test_swfc_weights():
    assert SWFC(C, torch.tensor([4, 0, 4])).weight.tolist() == [0.5, 0.0, 0.5]
    torch.testing.assert_close(SWFC(C).weight, torch.full((C,), 1 / C))


def test_contrast_is_computed_in_full_precision_under_autocast():
    out, batch = case("fused")
    objective = SWFC(C, COUNTS, temperature=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(out, batch)
    assert loss == objective(out, batch)


def test_chunk_and_temperature_are_checked():
    with pytest.raises(OptionError, match="chunk must be a positive integer"):
        SWFC(C, chunk=0)
    with pytest.raises(OptionError, match="temperature must be a number above 0"):
        SupCon(C, temperature=0.0)


# -- focal -------------------------------------------------------------------------------------------------------------


def test_focal_without_focus_is_cross_entropy():
    out, batch = case()
    focal, plain = (
        Focal(C, COUNTS, gamma=0.0, class_weights="balanced"),
        CrossEntropy(C, COUNTS, class_weights="balanced"),
    )
    torch.testing.assert_close(focal(out, batch), plain(out, batch))


@pytest.mark.parametrize("variant", ["default", "official"])
def test_focal_weighs_by_what_is_missing_to_one(variant):
    out, batch = case()
    weights = torch.tensor([1.0, 2.0, 0.5])
    loss = Focal(C, gamma=1.5, class_weights=weights.tolist(), variant=variant)(out, batch)
    log_p = out.logits[REAL].log_softmax(-1).gather(1, LABELS[REAL][:, None])[:, 0]
    factor, w = (1 - log_p.exp()) ** 1.5, weights[LABELS[REAL]]
    official = variant == "official"
    expected = -(w * (factor.detach() if official else factor) * log_p).sum() / (len(w) if official else w.sum())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, out.logits)[0] for x in (loss, expected)))


def test_focal_of_certainty_has_a_finite_slope():
    out, batch = case()
    out.logits = torch.full((*LABELS.shape, C), -1e3).scatter(2, LABELS.clamp(min=0)[..., None], 1e3).requires_grad_()
    loss = Focal(C, gamma=0.3)(out, batch)
    assert torch.autograd.grad(loss, out.logits)[0].isfinite().all()


# -- correlation -------------------------------------------------------------------------------------------------------


def test_soft_hgr_textbook():
    out, batch = case("text", "audio", "visual")
    f = {m: picked(out, m) for m in ("text", "audio", "visual")}
    expected = 0.0
    for m, n in itertools.combinations(f, 2):
        a, b = (f[k] - f[k].mean(0) for k in (m, n))
        expected -= (a * b).sum() / (len(a) - 1) - torch.trace(torch.cov(f[m].T) @ torch.cov(f[n].T)) / 2
    torch.testing.assert_close(SoftHGR(C)(out, batch), expected)


def test_soft_hgr_official_takes_covariances_of_rows():
    out, batch = case(*TWO)
    a, b = (picked(out, m) for m in TWO)
    value = (a * b).sum(-1).mean() - torch.trace(torch.cov(a) @ torch.cov(b)) / len(a) / 2
    torch.testing.assert_close(SoftHGR(C, mode="official")(out, batch), -value / len(a))


def test_a_pair_counts_where_both_modalities_were_recorded():
    present = {"audio": torch.tensor([[True, False, True, True, True], [True] * 5])}
    out, batch = case(*TWO, present=present)
    labels = torch.where(present["audio"], LABELS, IGNORE)
    only, fewer = case(*TWO, labels=labels)
    for objective in (SoftHGR(C), DeepCCA(C), AVEL(C, dims=dict.fromkeys(TWO, 4), width=5).eval()):
        torch.testing.assert_close(objective(out, batch), objective(only, fewer))


def test_streams_of_other_widths_or_names_are_refused_with_what_to_do():
    out, batch = case(*TWO)
    out.streams["audio"] = out.streams["audio"][..., :3]
    with pytest.raises(ShapeError, match="streams of one width, not"):
        SoftHGR(C)(out, batch)
    out, batch = case("fused")
    with pytest.raises(ShapeError, match=r"reads the stream 'txet'.*; it reports fused"):
        SoftHGR(C, streams=["txet", "fused"])(out, batch)
    with pytest.raises(OptionError, match="2 or more different names"):
        SoftHGR(C, streams=["text"])
    out, batch = case(*TWO)
    for objective in (CMD(C), Orthogonality(C), Reconstruction(C)):
        with pytest.raises(ShapeError, match="the fusion misa reports it"):
            objective(out, batch)
    with pytest.raises(ShapeError, match="late-average, late-product and multiplicative"):
        Multiplicative(C)(out, batch)


def test_a_batch_that_lacks_a_modality_gives_zero():
    out, batch = case("text")
    for objective in (SoftHGR(C), DeepCCA(C)):
        loss = objective(out, batch)
        loss.backward()
        assert loss == 0


def test_deep_cca_is_the_sum_of_canonical_correlations():
    labels = torch.zeros(1, 200, dtype=torch.long)
    out, batch = case(*TWO, labels=labels)
    with torch.no_grad():
        out.streams["audio"][..., 0] += 2 * out.streams["text"][..., 1]
    x, y = ((picked(out, m, labels == 0) - picked(out, m, labels == 0).mean(0)).double() for m in TWO)
    product = torch.linalg.inv(x.T @ x) @ (x.T @ y) @ torch.linalg.inv(y.T @ y) @ (y.T @ x)
    correlations = torch.linalg.eigvals(product).real.clamp(min=0).sqrt().sort(descending=True).values
    for top in (None, 2):
        loss = DeepCCA(C, top=top, regularisation=1e-8)(out, batch)
        torch.testing.assert_close(loss.double(), -correlations[:top].sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_deep_cca_of_few_and_of_equal_samples_is_finite(count):
    labels = torch.zeros(1, count, dtype=torch.long)
    out, batch = case("text", labels=labels, width=16)
    out.streams["audio"] = out.streams["text"]  # every correlation is one: equal singular values
    batch.features["audio"] = batch.features["text"]
    loss = DeepCCA(C)(out, batch)
    gradient = torch.autograd.grad(loss, out.streams["text"])[0]
    assert loss.isfinite()
    assert gradient.isfinite().all()
    # The rank of centred rows; the covariance's condition, 16 / 1e-3, times the rounding of float32 is what may come on top.
    assert -loss <= count - 1 + 2e-3


# -- MISA --------------------------------------------------------------------------------------------------------------


def test_misas_losses_over_pairs_and_modalities():
    parts = ("", ".private", ".shared", ".reconstruction")
    out, batch = case(*(m + p for m in ("text", "audio", "visual") for p in parts))
    s = {n: picked(out, n) for n in out.streams}
    modalities = ("text", "audio", "visual")
    pairs = list(itertools.combinations(modalities, 2))
    cmd = sum(_misa_losses.cmd(s[f"{m}.shared"], s[f"{n}.shared"]) for m, n in pairs) / 3
    torch.testing.assert_close(CMD(C)(out, batch), cmd)
    apart = sum(_misa_losses.orthogonality(s[f"{m}.private"], s[f"{m}.shared"]) for m in modalities)
    apart = apart + sum(_misa_losses.orthogonality(s[f"{m}.private"], s[f"{n}.private"]) for m, n in pairs)
    torch.testing.assert_close(Orthogonality(C)(out, batch), apart)
    back = sum(F.mse_loss(s[f"{m}.reconstruction"], s[m]) for m in modalities) / 3
    torch.testing.assert_close(Reconstruction(C)(out, batch), back)
    Reconstruction(C, detach=True)(out, batch).backward()
    assert out.streams["text"].grad is None


# -- Foal-Net ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["default", "official"])
def test_avel_is_its_definition(variant):
    out, batch = case("audio", "visual")
    objective = AVEL(C, dims={"audio": 4, "visual": 4}, width=5, variant=variant).eval()
    a, v = (
        F.normalize(p(picked(out, m)), dim=-1) for p, m in zip(objective.projections, ("audio", "visual"), strict=True)
    )
    same = LABELS[REAL][:, None] == LABELS[REAL]
    start = math.log(1 / 0.07)
    scores = a @ v.T / start if variant == "official" else a @ v.T * math.exp(start)
    sums = [(s.log_softmax(1) * same).sum(1) for s in (scores, scores.T)]
    each = sums[0] + sums[1] if variant == "official" else (sums[0] + sums[1]) / same.sum(1)
    torch.testing.assert_close(objective(out, batch), -each.mean() / 2)


def test_avel_learns_its_temperature_with_the_right_slope():
    out, batch = case("audio", "visual")
    objective = AVEL(C, dims={"audio": 4, "visual": 4}, width=5).eval().double()
    out.streams = {n: x.double() for n, x in out.streams.items()}
    (slope,) = torch.autograd.grad(objective(out, batch), objective.temp)
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            objective.temp += step
            values.append(objective(out, batch))
            objective.temp -= step
    torch.testing.assert_close(slope, (values[0] - values[1]) / 2e-5, rtol=1e-6, atol=1e-8)


def test_official_foal_net_weights_load_and_others_are_refused():
    source = AVEL(C, dims={"audio": 4, "visual": 3}, width=5, variant="official")
    parts = zip(("audio_project.", "video_project."), source.projections, strict=True)
    state = {prefix + k: v + 1 for prefix, part in parts for k, v in part.state_dict().items()}
    state |= {"temp": torch.tensor(2.0), "a2v_head.weight": torch.ones(2, 4), "a2v_head.bias": torch.ones(2)}
    state |= {"v2a_head.weight": torch.ones(2, 3), "v2a_head.bias": torch.ones(2), "cls_head.bias": torch.ones(4)}
    source.load_reference(state)
    assert source.temp == 2
    assert source.projections[1].linear1.weight.equal(state["video_project.linear1.weight"])
    objective = MEM(C)
    objective.bind(SimpleNamespace(fusion=FoalNet({"audio": 4, "visual": 3})))
    objective.load_reference(state)
    assert all(head.weight.eq(1).all() for head in objective.heads)
    with pytest.raises(ReferenceWeightsError, match="missing temp"):
        source.load_reference({k: v for k, v in state.items() if k != "temp"})
    with pytest.raises(ReferenceWeightsError, match=r"missing a2v_head\.bias"):
        objective.load_reference({k: v for k, v in state.items() if k != "a2v_head.bias"})
    with pytest.raises(ReferenceWeightsError, match="variant='official'"):
        AVEL(C, dims={"audio": 4, "visual": 3}).load_reference(state)


def matching(**options):
    fusion = FoalNet({"audio": 4, "visual": 4}).eval()
    objective = MEM(C, **options)
    objective.bind(SimpleNamespace(fusion=fusion))
    return fusion, objective.eval()


def test_mem_asks_the_fusions_stacks():
    out, batch = case("audio.input", "visual.input")
    fusion, objective = matching()
    y, losses = LABELS[REAL], []
    for head, (m, n) in zip(objective.heads, (("audio", "visual"), ("visual", "audio")), strict=True):
        a, b = picked(out, f"{m}.input"), picked(out, f"{n}.input")
        similar = (F.normalize(b, dim=-1) @ F.normalize(b, dim=-1).T).masked_fill(y[:, None] == y, -9)
        logits = [head(fusion.pooled(m, n, a[:, None], v[:, None])) for v in (b, b[similar.argmax(1)])]
        losses.append(
            (F.cross_entropy(logits[0], torch.ones_like(y)) + F.cross_entropy(logits[1], torch.zeros_like(y))) / 2
        )
    loss = objective(out, batch)
    torch.testing.assert_close(loss, sum(losses) / 2)
    loss.backward()
    assert all(p.grad is not None for p in fusion.stacks.parameters())
    assert {n.partition(".")[0] for n, _ in objective.named_parameters()} == {"heads"}


def test_mem_draws_other_emotions_only_and_skips_where_there_is_none():
    _, objective = matching()
    objective.train()
    labels = torch.tensor([0, 0, 1, IGNORE, 0])
    drawn = torch.stack([objective.draw(torch.zeros(5, 5), labels) for _ in range(50)])
    assert drawn[:, [0, 1, 4]].eq(2).all()
    assert set(drawn[:, 2].tolist()) == {0, 1, 4}
    assert drawn[:, 3].eq(3).all()
    out, batch = case("audio.input", "visual.input", labels=torch.where(REAL, 1, IGNORE))
    loss = objective(out, batch)
    loss.backward()
    assert loss == 0
    assert gradient_of(out, "audio.input").eq(0).all()


def test_mem_draws_in_proportion_to_the_softmax():
    _, objective = matching()
    objective.train()
    labels = torch.cat([torch.zeros(2000, dtype=torch.long), torch.tensor([1, 1])])
    similarity = torch.zeros(2002, 2002)
    similarity[:, -1] = math.log(3)
    torch.manual_seed(0)
    share = objective.draw(similarity, labels)[:2000].eq(2001).float().mean()
    assert abs(share - 0.75) < 0.04


def test_mem_with_alignment_adds_avel():
    out, batch = case("audio.input", "visual.input")
    _, objective = matching(alignment=2.0, width=6)
    with_it = objective(out, batch)
    objective.alignment = 0.0
    torch.testing.assert_close(with_it, objective(out, batch) + 2 * objective.avel(out, batch))


def test_mem_refuses_a_host_without_the_stacks():
    with pytest.raises(OptionError, match=r"foal-net, and this host has LMAM"):
        MEM(C).bind(SimpleNamespace(fusion=LMAM([4, 4])))
    out, batch = case("audio.input", "visual.input")
    with pytest.raises(OptionError, match="has not met its host"):
        MEM(C)(out, batch)


# -- students and experts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["default", "official"])
def test_self_distillation_is_its_definition(variant):
    out, batch = case(*TWO)
    official = variant == "official"
    objective = SelfDistillation(C, ce=0.7, kl=0.4, temperature=2.0, dims=dict.fromkeys(TWO, 4), variant=variant).eval()
    teacher, expected = (out.logits[REAL] / 2).log_softmax(-1), 0.0
    for student, m in zip(objective.students, TWO, strict=True):
        logits = student(picked(out, m).relu())
        divergence = F.kl_div((logits / 2).log_softmax(-1), teacher, reduction="batchmean", log_target=True)
        expected += 0.7 * F.cross_entropy(logits, LABELS[REAL]) + 0.4 * (1 if official else 4) * divergence
    loss = objective(out, batch)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (out.logits.grad is not None) == official


def test_self_distillation_takes_reported_logits_as_students():
    out, batch = case("text.logits", "audio.logits")
    objective = SelfDistillation(C, kl=0.0)
    expected = sum(F.cross_entropy(picked(out, n), LABELS[REAL]) for n in out.streams)
    torch.testing.assert_close(objective(out, batch), expected)


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_multiplicative_is_its_definition(beta):
    names = ("text.logits", "audio.logits", "visual.logits")
    out, batch = case(*names)
    p = [picked(out, n).softmax(-1).gather(1, LABELS[REAL][:, None])[:, 0] for n in names]
    expected = 0.0
    for m in range(3):
        rest = [1 - p[n] for n in range(3) if n != m]
        expected -= ((rest[0] * rest[1]) ** (beta / 2) * p[m].log()).mean()
    torch.testing.assert_close(Multiplicative(C, beta=beta)(out, batch), expected)


def test_multiplicative_refuses_logits_of_another_width():
    out, batch = case("text.logits", "audio.logits", classes=5)
    with pytest.raises(ShapeError, match="fusion_width=3"):
        Multiplicative(C)(out, batch)


# -- meeting a host ----------------------------------------------------------------------------------------------------


def host_of(fusion="lmam", **options):
    return BcLSTM({"text": 6, "audio": 5}, C, 2, fusion=fusion, hidden=4, head_width=8, **options)


def test_stream_widths_leave_the_host_as_it_was():
    host = host_of().train()
    host.fusion.eval()
    state = torch.get_rng_state()
    assert stream_widths(host) == {"fused": 16, "text": 8, "audio": 8, "context": 16}
    assert host.training
    assert not host.fusion.training
    assert torch.get_rng_state().equal(state)


def test_bound_objectives_have_weights_for_the_hosts_streams():
    host = host_of()
    for objective in (AVEL(C, width=6), SelfDistillation(C)):
        with pytest.raises(OptionError, match=r"bind\(host\)"):
            objective(*case(*TWO))
        objective.bind(host)
        before = list(objective.parameters())
        objective.bind(host)
        assert [id(p) for p in before] == [id(p) for p in objective.parameters()]
        assert objective.names == TWO
        objective(*case(*TWO, width=8)).backward()
    with pytest.raises(OptionError, match="foal-net or lmam"):
        AVEL(C).bind(host_of("concat"))
    with pytest.raises(OptionError, match="does not report the stream 'txet'"):
        AVEL(C, streams=["txet", "audio"]).bind(host)


def test_the_trainers_objective_binds_its_parts():
    from fusionzoo.runs.models import WeightedObjective

    config = SimpleNamespace(objective=SimpleNamespace(terms=lambda: [("cross-entropy", 1.0, {})], auxiliary=1.0))
    met = []

    class Meets(CrossEntropy):
        def bind(self, host):
            met.append(host)

    host = host_of()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusionzoo.get", lambda name, kind: Meets)
        WeightedObjective(config, C, COUNTS, host)  # type: ignore[arg-type]
    assert met == [host]
