"""Tests of cmd."""

from __future__ import annotations

import itertools

import torch
from objective_cases import C, case, picked
from torch.nn import functional as F

from fusionzoo_plugins import _misa_losses
from fusionzoo_plugins.cmd import CMD
from fusionzoo_plugins.orthogonality import Orthogonality
from fusionzoo_plugins.reconstruction import Reconstruction


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
