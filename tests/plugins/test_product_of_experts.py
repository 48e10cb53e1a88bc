"""Tests of product-of-experts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fusionzoo.errors import OptionError
from fusionzoo_plugins.product_of_experts import ProductOfExperts, product_of_experts

DIMS = {"text": 5, "audio": 3, "visual": 4}


def streams(batch: int = 2, steps: int = 3) -> list[Tensor]:
    return [torch.randn(batch, steps, d) for d in DIMS.values()]


def shaken(module: nn.Module) -> nn.Module:
    """In eval mode, with no parameter at a value that it starts from."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return module.eval()


def test_product_of_experts_is_the_product_of_the_densities():
    mean, log_variance = torch.randn(3), torch.randn(3)
    got, spread = product_of_experts(list(mean[:, None]), list(log_variance[:, None]))
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    density = -(grid**2) / 2 - ((grid - mean[:, None]) ** 2 / (2 * log_variance[:, None].exp())).sum(0)
    weight = density.softmax(0)
    torch.testing.assert_close(got.double(), (weight * grid).sum()[None], rtol=1e-4, atol=1e-5)
    variance = (weight * (grid - got) ** 2).sum()[None]
    torch.testing.assert_close(spread.exp().double(), variance, rtol=1e-3, atol=1e-5)


def test_a_missing_expert_leaves_the_product():
    fusion, xs = shaken(ProductOfExperts(DIMS, 6, width=6, kl=1.0)), streams()
    two = ProductOfExperts({"text": 5, "visual": 4}, 6, width=6, kl=1.0).eval()
    two.experts[0], two.experts[1] = fusion.experts[0], fusion.experts[2]
    torch.testing.assert_close(fusion([xs[0], None, xs[2]]), two([xs[0], xs[2]]))
    absent = [torch.zeros(2, dtype=torch.bool)]
    for priors, precision in ((1, 1.0), (0, 1.0), (4, 4.0)):
        mean, log_variance = product_of_experts([torch.ones(2, 3)], [torch.zeros(2, 3)], absent, priors=priors)
        assert not mean.any()
        torch.testing.assert_close(log_variance, torch.full((2, 3), -math.log(precision)))


@pytest.mark.filterwarnings("ignore::fusionzoo.errors.MaskWarning")  # a dialogue with data and no real step is meant
def test_kl_is_the_divergence_from_the_prior_over_real_steps():
    fusion, xs = shaken(ProductOfExperts(DIMS, 6, width=6, kl=0.5)), streams()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    outputs = [e(x).chunk(2, -1) for e, x in zip(fusion.experts, xs, strict=True)]
    mean, log_variance = product_of_experts([m for m, _ in outputs], [10 * torch.tanh(s / 10) for _, s in outputs])
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(fusion.fuse(xs, mask).losses["kl"], 0.5 * kl[mask].mean(), rtol=1e-4, atol=1e-5)
    nothing = fusion.fuse(xs, torch.zeros(2, 3, dtype=torch.bool)).losses["kl"]
    assert nothing == 0


def test_experts_are_sampled_in_training_only():
    fusion, xs = ProductOfExperts(DIMS, 6), streams()
    assert not torch.equal(fusion.train()(xs), fusion(xs))
    still = ProductOfExperts(DIMS, 6, sample=False).train()
    assert torch.equal(still(xs), still.eval()(xs))
    with pytest.raises(OptionError, match="kl must be a number"):
        ProductOfExperts(DIMS, kl=-1)
