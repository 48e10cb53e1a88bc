"""Tests of reconstruction."""

from __future__ import annotations

import pytest
import torch
from objective_cases import REAL, TWO, C, case, gradient_of

from fusionzoo.errors import ShapeError
from fusionzoo_plugins.reconstruction import Reconstruction


def rebuilt(*modalities, **options):
    """Streams and what is made of them."""
    return case(*(m + p for m in modalities for p in ("", ".reconstruction")), **options)


def test_it_is_the_mean_squared_error_of_every_modality_over_what_was_recorded():
    present = {"audio": torch.tensor([[True, False, True, True, True], [False] * 5])}
    out, batch = rebuilt(*TWO, present=present)
    out.logits, out.streams = out.logits.double(), {n: x.detach().double() for n, x in out.streams.items()}
    expected = 0.0
    for m in TWO:
        there = [(b, t) for b, t in REAL.nonzero().tolist() if m not in present or present[m][b, t]]
        errors = [(out.streams[f"{m}.reconstruction"][at] - out.streams[m][at]) ** 2 for at in there]
        expected = expected + sum(float(e.sum()) for e in errors) / (len(there) * 4) / 2
    torch.testing.assert_close(Reconstruction(C)(out, batch), torch.tensor(expected, dtype=torch.float64))
    out.streams = {n: out.streams[n.partition(".")[0]] for n in out.streams}
    assert Reconstruction(C)(out, batch) == 0


def test_the_gradient_reaches_both_unless_the_target_is_detached():
    out, batch = rebuilt(*TWO)
    Reconstruction(C)(out, batch).backward()
    torch.testing.assert_close(gradient_of(out, "text"), -gradient_of(out, "text.reconstruction"))
    assert (gradient_of(out, "text")[REAL] != 0).all()
    assert (gradient_of(out, "text")[~REAL] == 0).all()
    out, batch = rebuilt(*TWO)
    Reconstruction(C, detach=True)(out, batch).backward()
    assert out.streams["text"].grad is None
    assert (gradient_of(out, "text.reconstruction")[REAL] != 0).all()


def test_another_target_is_named_and_must_have_the_same_shape():
    out, batch = case("text", "text.reconstruction", "text.input")
    out.streams["text.input"] = out.streams["text.reconstruction"].detach()
    assert Reconstruction(C, target="input")(out, batch) == 0
    assert Reconstruction(C)(out, batch) > 0
    out.streams["text.input"] = torch.zeros(2, 5, 3)
    with pytest.raises(ShapeError, match="name the right one with target="):
        Reconstruction(C, target="input")(out, batch)
