"""Dropout: its share, its mean, and that neighbours fall independently."""

from __future__ import annotations

import torch

from fusionzoo.kernels.dropout import dropout


def test_dropout_keeps_the_mean_and_drops_the_share():
    torch.manual_seed(0)
    x = torch.ones(501, 799, requires_grad=True)
    y = dropout(x, 0.4, True)
    assert abs(float((y == 0).float().mean()) - 0.4) < 0.01
    assert abs(float(y.detach().mean()) - 1) < 0.01
    kept = y.detach() > 0
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / 0.6), atol=1e-4, rtol=0)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    # Neighbours share a draw and must not share its outcome.
    for lag in (1, 2, 3, 4):
        together = (kept.flatten()[lag:] & kept.flatten()[:-lag]).float().mean()
        assert abs(float(together) - 0.36) < 0.01
    assert dropout(x, 0.4, False) is x
    assert (dropout(x, 1.0, True) == 0).all()
    torch.testing.assert_close(dropout(x, 0.0, True), x)
