"""Product of experts: a Gaussian from every modality, multiplied with a prior."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import masked_mean, zero_padded

#: Log variances are kept within plus and minus this.
BOUND = 10.0


def product_of_experts(
    means: Sequence[Tensor],
    log_variances: Sequence[Tensor],
    present: Sequence[Tensor | None] | None = None,
    *,
    priors: int = 1,
    eps: float = 1e-8,
) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the product of Gaussians, `(..., d)` like every expert's.

    Parameters
    ----------
    means, log_variances : one `(..., d)` an expert.
    present : per expert bool `(...)`, or None for everywhere; an absent expert is not part of the product.
    priors : number of standard normal experts besides.
    eps : added to the variances.

    Where there is no expert at all it is the standard normal.
    Source: `ProductOfExperts` of pliang279/MultiBench@49f9be224f, `fusions/MVAE.py`.
    """
    prior = priors / (1 + eps)
    precision, weighted = torch.full_like(means[0], prior), torch.zeros_like(means[0])
    for i, (mean, log_variance) in enumerate(zip(means, log_variances, strict=True)):
        mask = None if present is None else present[i]
        own = 1 / (log_variance.exp() + eps)
        own = own if mask is None else torch.where(mask.unsqueeze(-1), own, 0.0)
        precision, weighted = precision + own, weighted + mean * own
    if not priors:
        precision = torch.where(precision == 0, 1.0, precision)
    return weighted / precision, -precision.log()


class ProductOfExperts(Fusion):
    r"""Product of Gaussian experts (PoE), the inference network of the multimodal variational autoencoder.

    .. math::
        \mu_m = W_m x_m + b_m, \quad \log \sigma_m^2 = U_m x_m + c_m, \qquad
        \frac{1}{\sigma^2} = 1 + \sum_{m \in \mathcal M} \frac{1}{\sigma_m^2}, \quad
        \mu = \sigma^2 \sum_{m \in \mathcal M} \frac{\mu_m}{\sigma_m^2}, \qquad y = W z + b

    over the modalities :math:`\mathcal M` that are present: a missing one leaves the product, and the variance grows. The
    one in the precision is the prior's, a standard normal expert. z is :math:`\mu` in evaluation and a sample
    :math:`\mu + \sigma \epsilon` in training. `Fused.losses["kl"]` is `kl` times the divergence of the product from the
    prior, summed over the features and averaged over real steps. Acts within a time step, any number of modalities.

    Departs from the code in bounding the log variances smoothly, :math:`10 \tanh(\cdot / 10)`, so that features of any
    size keep the precisions finite; what follows is computed in float32 at least.

    Options
    -------
    width : of z, default 128.
    prior : multiply with the prior, default True.
    sample : in training, default True.
    kl : weight of the divergence, default 1e-3.

    Parameters: with w the width :math:`\sum_m 2 (d_m + 1) w`, plus the output map from w.
    Source: Wu and Goodman, "Multimodal Generative Models for Scalable Weakly-Supervised Learning", NeurIPS 2018, arXiv
    1802.05335, section 2; pliang279/MultiBench@49f9be224f, `fusions/MVAE.py`. The bare product, as there, is
    `product_of_experts`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.streams` has the experts' means, `(B, T, w)`.

    >>> ProductOfExperts({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int = 128,
        prior: bool = True,
        sample: bool = True,
        kl: float = 1e-3,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = check_positive(width, "width", self)
        self.prior, self.sample = prior, sample
        if isinstance(kl, bool) or not isinstance(kl, (int, float)) or not kl >= 0:
            raise OptionError(f"ProductOfExperts: kl must be a number of at least 0, not {kl!r}")
        self.kl = float(kl)
        self.experts = nn.ModuleList(nn.Linear(d, 2 * width) for d in self.dims.values())
        self.set_width(width)

    def combine(self, streams: Streams) -> Fused:
        dtype = streams.x[0].dtype
        exact = torch.promote_types(dtype, torch.float32)
        outputs = [zero_padded(e(x), m) for e, x, m in zip(self.experts, streams.x, streams.present, strict=True)]
        means, spreads = zip(*(o.chunk(2, -1) for o in outputs), strict=True)
        # Precisions span many orders of magnitude: no half precision. The meta device knows no autocast.
        device = streams.x[0].device.type
        with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):
            log_variances = [BOUND * torch.tanh(s.to(exact) / BOUND) for s in spreads]
            mean, log_variance = product_of_experts(
                [m.to(exact) for m in means], log_variances, streams.present, priors=int(self.prior)
            )
            divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1, keepdim=True)
            kl = masked_mean(
                divergence.flatten(0, 1), None if streams.mask is None else streams.mask.flatten(0, 1)
            ).squeeze(-1)
            z = mean
            if self.training and self.sample:
                z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return Fused(z.to(dtype), dict(zip(self.names, means, strict=True)), {}, {"kl": self.kl * kl})


fusionzoo_register = fusionzoo.plugin(
    ProductOfExperts,
    summary="a Gaussian from every modality present, multiplied with a prior",
    paper="Wu and Goodman, Multimodal Generative Models for Scalable Weakly-Supervised Learning, NeurIPS 2018",
    code="pliang279/MultiBench@49f9be224f",
    handles={"losses"},
    diagram="""
    text["x_text"] --> gt["mean, variance"] --> product(("product of Gaussians"))
    audio["x_audio"] --> ga["mean, variance"] --> product
    visual["x_visual"] --> gv["mean, variance"] --> product
    prior["standard normal prior"] --> product
    product --> z["mean, or a sample in training"] --> linear["W, b"] --> y["y"]
    """,
)
