"""Tests of mem."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from objective_cases import LABELS, REAL, C, case, gradient_of, picked
from torch.nn import functional as F

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.objective import IGNORE
from fusionzoo_plugins.avel import AVEL
from fusionzoo_plugins.foal_net import FoalNet
from fusionzoo_plugins.lmam import LMAM
from fusionzoo_plugins.mem import MEM


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
