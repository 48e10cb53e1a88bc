"""Soft-HGR: what is common to the modalities' streams is made large, without whitening them."""

from __future__ import annotations

from torch import Tensor

import fusionzoo
from fusionzoo._options import check_choice
from fusionzoo.numerics import masked_mean, zero_padded
from fusionzoo.objective import Objective
from fusionzoo_plugins._objective_tools import (
    check_names,
    counted,
    full_precision,
    modality_streams,
    pairs,
    rows,
    same_width,
    total,
)


class SoftHGR(Objective):
    r"""Soft Hirschfeld-Gebelein-Renyi correlation between every two streams, negated.

    `mode="textbook"`, over the N labelled utterances, with the streams centred over them:

    .. math:: L = -\sum_{m < n} \Big( \frac{1}{N-1} \sum_i \langle \tilde f^m_i, \tilde f^n_i\rangle
              - \tfrac12 \operatorname{tr}(C_m C_n) \Big), \qquad C_m = \tfrac{1}{N-1} \tilde F_m^\top \tilde F_m

    `mode="official"`, MultiEMO's code, where each utterance's vector is centred over its own d features instead,
    covariances are those of utterances, and N divides once or twice more:

    .. math:: L = -\frac1N \sum_{m < n} \Big( \frac1N \sum_i \langle f^m_i, f^n_i\rangle
              - \frac{1}{2N} \operatorname{tr}(R_m R_n) \Big), \qquad R_m = \tfrac{1}{d-1} \hat F_m \hat F_m^\top

    There a constant added to all features of two streams lowers the loss without bound: give it streams that end in a layer
    normalisation, as MultiEMO's do. Both are computed from d x d products, linear in N; the trace of :math:`R_m R_n` is the
    squared norm of :math:`\hat F_m^\top \hat F_n / (d-1)`. One utterance: zero in the textbook, finite in the other
    form (which raises there). An utterance counts for a pair where both modalities were recorded.

    Options
    -------
    streams : names, all of one width; default the streams of the batch's modalities.
    mode : see above.

    Parameters: none.
    Source: Wang et al., "An Efficient Approach to Informative Feature Extraction from Multimodal Data", AAAI 2019; Shi and
    Huang, "MultiEMO", ACL 2023; code TaoShi1998/MultiEMO-ACL2023@e96458b870, `Loss/SoftHGRLoss.py`.

    Shapes: streams `(B, T, d)` -> scalar. The labels say only which utterances count.
    """

    uses_labels = False

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        streams: list[str] | None = None,
        mode: str = "textbook",
    ):
        super().__init__(num_classes, class_counts)
        self.streams = check_names(streams, self)
        self.mode = check_choice(mode, _AGREEMENTS, "mode", self)

    def forward(self, out, batch) -> Tensor:
        streams = modality_streams(out, batch, self, self.streams)
        same_width(streams, self)
        agreement = _AGREEMENTS[self.mode]
        losses = []
        for m, n in pairs(streams):
            mask = counted(batch, m, n)
            with full_precision(out.logits):
                losses.append(-agreement(rows(streams[m], mask), rows(streams[n], mask), mask.flatten()))
        return total(losses, out)


def _textbook(f: Tensor, g: Tensor, mask: Tensor) -> Tensor:
    free = (mask.sum() - 1).clamp(min=1)
    f, g = (zero_padded(x - masked_mean(x, mask), mask) for x in (f, g))
    trace = ((f.t() @ f) * (g.t() @ g)).sum() / free**2
    return (f * g).sum() / free - trace / 2


def _within_features(f: Tensor, g: Tensor, mask: Tensor) -> Tensor:
    count = mask.sum().clamp(min=1)
    inner = (f * g).sum() / count
    f, g = f - f.mean(-1, keepdim=True), g - g.mean(-1, keepdim=True)
    trace = (f.t() @ g).square().sum() / max(f.shape[-1] - 1, 1) ** 2
    return (inner - trace / count / 2) / count


_AGREEMENTS = {"textbook": _textbook, "official": _within_features}


fusionzoo_register = fusionzoo.plugin(
    SoftHGR,
    summary="correlation between the modalities' streams, made large",
    paper="Wang et al., An Efficient Approach to Informative Feature Extraction from Multimodal Data, AAAI 2019",
    code="TaoShi1998/MultiEMO-ACL2023@e96458b870",
    diagram="""
    t["text stream"] --> m(("mean inner product"))
    a["audio stream"] --> m
    t --> c(("trace of covariances"))
    a --> c
    m --> L["loss, summed over pairs"]
    c --> L
    """,
)
