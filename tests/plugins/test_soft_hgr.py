"""Tests of soft-hgr."""

from __future__ import annotations

import itertools

import torch
from objective_cases import TWO, C, case, picked

from fusionzoo_plugins.soft_hgr import SoftHGR


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
