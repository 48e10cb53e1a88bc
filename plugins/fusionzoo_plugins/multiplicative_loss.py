"""Multiplicative combination of modalities: a modality is not punished where another one is right already."""

from __future__ import annotations

import torch
from torch import Tensor

import fusionzoo
from fusionzoo.errors import ShapeError
from fusionzoo.objective import Objective
from fusionzoo_plugins._late import class_costs
from fusionzoo_plugins._objective_tools import (
    check_names,
    check_number,
    counted,
    exact,
    mean_over,
    modality_streams,
    nothing,
)


class Multiplicative(Objective):
    r"""Multiplicative combination of the modalities' own predictions.

    .. math:: L = -\frac1N \sum_i \sum_m \Big[ \prod_{n \ne m} \big(1 - p^n_{i y_i}\big) \Big]^{\beta / (M - 1)}
              \log p^m_{i y_i}

    over the labelled utterances; :math:`M` counts the modalities recorded at the utterance, and the others take no part.
    :math:`\beta = 0` is the sum of the modalities' cross-entropies. Products are sums of logarithms here, and the gradient
    passes through the weights too.

    It reads per-modality logits: the fusion `multiplicative` reports them and decides by the same quantity (late-average
    and late-product report theirs too). Their width must be the number of classes, so the host's fusion needs that width,
    in bc-lstm and dialogue-gcn by `fusion_width`. The loss teaches the experts; what the host puts behind the fusion needs
    `cross-entropy` beside it.

    Options
    -------
    streams : names of streams of logits; default `"<modality>.logits"`.
    beta : :math:`\beta`.

    Parameters: none.
    Source: Liu et al., "Learn to Combine Modalities in Multimodal Deep Learning", arXiv 1805.11730, 2018.

    Shapes: streams `(B, T, C)`, labels `(B, T)` -> scalar.
    """

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        streams: list[str] | None = None,
        beta: float = 0.5,
    ):
        super().__init__(num_classes, class_counts)
        self.streams = check_names(streams, self)
        self.beta = check_number(beta, "beta", self)

    def forward(self, out, batch) -> Tensor:
        streams = modality_streams(out, batch, self, self.streams, "logits")
        if not streams:
            return nothing(out)
        wrong = {n: x.shape[-1] for n, x in streams.items() if x.shape[-1] != self.num_classes}
        if wrong:
            name, width = next(iter(wrong.items()))
            raise ShapeError(
                f"{type(self).__name__} reads logits of {self.num_classes} classes, but the stream {name!r} has width {width}; "
                f"give the fusion that width (bc-lstm and dialogue-gcn: fusion_width={self.num_classes})"
            )
        log_p = torch.stack([exact(x) for x in streams.values()], -2).log_softmax(-1)
        presence = torch.stack([counted(batch, n) for n in streams], -1)
        costs = class_costs(log_p, presence, self.beta)
        picked = costs.gather(-1, batch.labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return mean_over(picked, presence.any(-1))


fusionzoo_register = fusionzoo.plugin(
    Multiplicative,
    summary="a modality is not punished where another one is right already",
    paper="Liu et al., Learn to Combine Modalities in Multimodal Deep Learning, arXiv 1805.11730",
    diagram="""
    t["text, logits"] --> nt["-log p"]
    a["audio, logits"] --> q["(1 - p)^beta"]
    nt --> L(("times"))
    q --> L
    """,
)
