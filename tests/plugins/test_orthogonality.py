"""Tests of orthogonality."""

from __future__ import annotations

import itertools

import pytest
import torch
from objective_cases import LABELS, TWO, C, case, picked

from fusionzoo.objective import IGNORE
from fusionzoo_plugins.orthogonality import Orthogonality


def parted(*modalities, **options):
    """Private and shared streams in float64."""
    out, batch = case(*(f"{m}.{p}" for m in modalities for p in ("private", "shared")), **options)
    out.logits = out.logits.detach().double()
    out.streams = {n: x.detach().double().requires_grad_() for n, x in out.streams.items()}
    return out, batch


def difference(a, b):
    """The formula, one pair of features at a time."""
    a, b = ([row / row.norm() for row in x - x.mean(0)] for x in (a, b))
    width = len(a[0])
    products = [sum(p[i] * q[j] for p, q in zip(a, b, strict=True)) for i in range(width) for j in range(width)]
    return sum(p**2 for p in products) / width**2


def test_it_is_the_sum_over_modalities_and_over_pairs_of_private_streams():
    modalities = ("text", "audio", "visual")
    out, batch = parted(*modalities)
    s = {n: picked(out, n) for n in out.streams}
    expected = sum(difference(s[f"{m}.private"], s[f"{m}.shared"]) for m in modalities)
    for m, n in itertools.combinations(modalities, 2):
        expected = expected + difference(s[f"{m}.private"], s[f"{n}.private"])
    torch.testing.assert_close(Orthogonality(C)(out, batch), expected, rtol=1e-4, atol=0)


def test_only_what_varies_together_counts():
    out, batch = parted(*TWO)
    before = Orthogonality(C)(out, batch)
    # Where streams lie and how large they are does not matter.
    out.streams["text.private"] = 3 * out.streams["text.private"] + torch.arange(4.0)
    torch.testing.assert_close(Orthogonality(C)(out, batch), before, rtol=1e-4, atol=0)
    # Private streams that repeat nothing: they move along other features while the shared ones rest, and take turns.
    signs = torch.tensor([[1.0, -1, 1, -1, 0], [0, 0, 0, 0, 0]]).double()
    batch.labels = torch.where(signs != 0, torch.zeros_like(LABELS), IGNORE)
    turns = torch.tensor([[1.0, 1, -1, -1, 0], [0, 0, 0, 0, 0]]).double()
    along = torch.eye(4, dtype=torch.float64)
    out.streams["text.private"], out.streams["audio.private"] = (
        signs.unsqueeze(-1) * along[0],
        turns.unsqueeze(-1) * along[1],
    )
    for m in TWO:
        out.streams[f"{m}.shared"] = (signs * turns).unsqueeze(-1) * along[2]
    assert float(Orthogonality(C)(out, batch)) == pytest.approx(0, abs=1e-12)
    # Repeating it in other features is no way out.
    out.streams["audio.private"] = signs.unsqueeze(-1) * along[3]
    assert float(Orthogonality(C)(out, batch)) > 0.5


def test_a_single_utterance_gives_zero_and_finite_gradients():
    labels = torch.full_like(LABELS, IGNORE)
    labels[0, 1] = 2
    out, batch = parted(*TWO, labels=labels)
    loss = Orthogonality(C)(out, batch)
    loss.backward()
    assert loss == 0
    assert all(x.grad.isfinite().all() for x in out.streams.values())
