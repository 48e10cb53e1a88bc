"""Tests of avel."""

from __future__ import annotations

import math

import pytest
import torch
from objective_cases import LABELS, REAL, C, case, picked
from torch.nn import functional as F

from fusionzoo_plugins.avel import AVEL


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
