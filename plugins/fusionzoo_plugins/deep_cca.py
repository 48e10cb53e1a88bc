"""Deep canonical correlation analysis: the streams' canonical correlations are made large."""

from __future__ import annotations

import torch
from torch import Tensor

import fusionzoo
from fusionzoo._options import check_positive
from fusionzoo.numerics import masked_mean, zero_padded
from fusionzoo.objective import Objective
from fusionzoo_plugins._objective_tools import (
    check_names,
    check_number,
    counted,
    full_precision,
    modality_streams,
    pairs,
    rows,
    total,
)


class DeepCCA(Objective):
    r"""Sum of the canonical correlations of two streams, negated; the mean over every two modalities.

    .. math:: L = -\sum_{k} \sigma_k(T), \qquad T = L_m^{-1} \Sigma_{mn} L_n^{-\top}, \qquad
              L_m L_m^\top = \Sigma_{mm} + r \big(\tfrac{\operatorname{tr} \Sigma_{mm}}{d_m} + 10^{-8}\big) I

    over the labelled utterances at which both modalities were recorded, centred. Cholesky factors instead of inverse
    square roots leave the singular values as they are, and the gradient of their sum is :math:`U V^\top` exactly; no
    derivative of an eigen- or singular-value decomposition is taken, whose :math:`1/(\sigma_i - \sigma_j)` is infinite
    where two are equal. The regularisation is relative to the mean variance, so that the loss does not change with the
    scale of a stream, and keeps it finite with fewer utterances than features; then all correlations can be one, and the
    loss teaches little: give it large batches, or narrow streams. One utterance: zero.

    Options
    -------
    streams : names; default the streams of the batch's modalities, whose widths may differ.
    top : how many of the largest correlations count; default all.
    regularisation : r.

    Parameters: none.
    Source: Andrew et al., "Deep Canonical Correlation Analysis", ICML 2013, section 3.

    Shapes: streams `(B, T, d_m)` -> scalar. The labels say only which utterances count.
    """

    uses_labels = False

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        streams: list[str] | None = None,
        top: int | None = None,
        regularisation: float = 1e-3,
    ):
        super().__init__(num_classes, class_counts)
        self.streams = check_names(streams, self)
        self.top = None if top is None else check_positive(top, "top", self)
        self.regularisation = check_number(regularisation, "regularisation", self, open_low=True)

    def forward(self, out, batch) -> Tensor:
        streams = modality_streams(out, batch, self, self.streams)
        losses = []
        for m, n in pairs(streams):
            mask = counted(batch, m, n)
            with full_precision(out.logits):
                losses.append(-self.correlation(rows(streams[m], mask), rows(streams[n], mask), mask.flatten()))
        return total(losses, out) / max(len(losses), 1)

    def correlation(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """Sum of the canonical correlations of the rows `(N, d)` at which `mask (N,)` is True."""
        free = (mask.sum() - 1).clamp(min=1)
        x, y = (zero_padded(a - masked_mean(a, mask), mask) for a in (x, y))
        whitened = torch.linalg.solve_triangular(self._factor(x, free), x.t() @ y / free, upper=False)
        t = torch.linalg.solve_triangular(self._factor(y, free), whitened.t(), upper=False)
        u, s, vh = torch.linalg.svd(t.detach(), full_matrices=False)
        # Where a singular value is zero, but for rounding, any direction is a subgradient; zero is the one without noise.
        kept = (s > torch.finfo(s.dtype).eps ** 0.5).to(s)
        if self.top is not None:
            kept = kept * (torch.arange(len(s), device=s.device) < self.top)
        return (t * ((u * kept) @ vh)).sum()

    def _factor(self, x: Tensor, free: Tensor) -> Tensor:
        covariance = x.t() @ x / free
        ridge = self.regularisation * (covariance.diagonal().mean() + 1e-8)
        # cholesky_ex neither waits for the device nor raises; the ridge makes sure that it succeeds.
        return torch.linalg.cholesky_ex(covariance + ridge * torch.eye(len(covariance)).to(covariance))[0]


fusionzoo_register = fusionzoo.plugin(
    DeepCCA,
    summary="canonical correlations between the modalities' streams, made large",
    paper="Andrew et al., Deep Canonical Correlation Analysis, ICML 2013",
    diagram="""
    t["text stream"] --> wt["whitened"]
    a["audio stream"] --> wa["whitened"]
    wt --> c(("correlation matrix"))
    wa --> c
    c --> L["sum of singular values"]
    """,
)
