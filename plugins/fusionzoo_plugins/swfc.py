"""Sample-weighted focal contrastive loss of MultiEMO: rare emotions and hard positives count more."""

from __future__ import annotations

import torch
from torch import Tensor

import fusionzoo
from fusionzoo.objective import Objective
from fusionzoo_plugins._contrastive import check_chunk, contrast
from fusionzoo_plugins._objective_tools import check_number, counted, full_precision, rows, stream, unit


class SWFC(Objective):
    r"""Sample-weighted focal contrastive (SWFC) loss over the labelled utterances of the batch.

    .. math::
        L &= -\frac1N \sum_{i} w_{y_i} \frac{1}{|P_i|} \sum_{j \in P_i} (1 - p_{ij})^\gamma \log p_{ij}, \qquad
        p_{ij} = \operatorname{softmax}_{j \ne i}\big(\langle z_i, z_j\rangle / \tau\big) \\
        w_c &= (n / n_c)^\alpha \Big/ \textstyle\sum_{c'} (n / n_{c'})^\alpha

    with the stream at unit length, :math:`P_i` the other utterances with the label of i (without any, i adds nothing, but
    counts in N), and :math:`n_c` of n training utterances in class c. All pairs at once, by log-softmax: no value
    underflows, and a batch without any positive pair gives zero with a gradient of zero, where the published loop gives a
    Python float. A class without training utterances has weight zero; unknown counts give equal weights. Each process
    of a distributed run contrasts its own utterances.

    Options
    -------
    stream : name of the stream to shape.
    temperature : :math:`\tau` (published: 0.8 IEMOCAP, 1.4 MELD).
    focus : :math:`\gamma` (2.4, 2.0).
    weighting : :math:`\alpha` (1.1, 1.2).
    chunk : anchors at a time, default as many as suit the device; memory is linear in the number of utterances.

    Parameters: none.
    Source: Shi and Huang, "MultiEMO", ACL 2023; code TaoShi1998/MultiEMO-ACL2023@e96458b870,
    `Loss/SampleWeightedFocalContrastiveLoss.py`.

    Shapes: stream `(B, T, d)`, labels `(B, T)` -> scalar.
    """

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        stream: str = "fused",
        temperature: float = 0.8,
        focus: float = 2.0,
        weighting: float = 1.0,
        chunk: int | None = None,
    ):
        super().__init__(num_classes, class_counts)
        self.stream = stream
        self.temperature = check_number(temperature, "temperature", self, open_low=True)
        self.focus = check_number(focus, "focus", self)
        self.chunk = check_chunk(chunk, self)
        power = check_number(weighting, "weighting", self)
        counts = torch.ones(num_classes) if class_counts is None else class_counts.float()
        weight = torch.where(counts > 0, (counts.sum() / counts.clamp(min=1)).pow(power), 0.0)
        self.weight: Tensor
        self.register_buffer("weight", weight / weight.sum().clamp(min=1e-12), persistent=False)

    def forward(self, out, batch) -> Tensor:
        x, mask = stream(out, self.stream, self), counted(batch)
        labels = batch.labels.flatten()
        with full_precision(x):
            z = unit(rows(x, mask))
            weight = self.weight.to(z)[labels.clamp(min=0)] / mask.sum().clamp(min=1)
            return -contrast(z, z, labels, 1 / self.temperature, weight, focus=self.focus, chunk=self.chunk)


fusionzoo_register = fusionzoo.plugin(
    SWFC,
    summary="MultiEMO's contrastive loss with class weights and focus on hard positives",
    paper="Shi and Huang, MultiEMO: An Attention-Based Correlation-Aware Multimodal Fusion Framework for Emotion "
    "Recognition in Conversations, ACL 2023",
    code="TaoShi1998/MultiEMO-ACL2023@e96458b870",
    diagram="""
    z["stream, unit length"] --> s(("cosines / tau"))
    s --> p["log-softmax over the others"]
    y["labels"] --> q["positives of each"]
    p --> f(("focal mean"))
    q --> f
    w["class weights"] --> L["loss"]
    f --> L
    """,
)
