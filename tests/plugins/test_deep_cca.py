"""Tests of deep-cca."""

from __future__ import annotations

import pytest
import torch
from objective_cases import TWO, C, case, picked

from fusionzoo_plugins.deep_cca import DeepCCA


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
