"""Tests of cmd."""

from __future__ import annotations

import itertools

import torch
from objective_cases import C, case, picked

from fusionzoo_plugins import _misa_losses
from fusionzoo_plugins.cmd import CMD


def test_it_is_the_mean_over_pairs_of_shared_streams():
    modalities = ("text", "audio", "visual")
    out, batch = case(*(m + p for m in modalities for p in ("", ".private", ".shared")))
    s = {n: picked(out, n) for n in out.streams}
    pairs = list(itertools.combinations(modalities, 2))
    expected = sum(_misa_losses.cmd(s[f"{m}.shared"], s[f"{n}.shared"]) for m, n in pairs) / 3
    torch.testing.assert_close(CMD(C)(out, batch), expected)
