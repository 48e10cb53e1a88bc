"""Self-distillation of SDT: each modality alone learns from the labels and from what all of them together say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_probability
from fusionzoo.layers import dropout
from fusionzoo.objective import IGNORE, Objective, stream_widths
from fusionzoo_plugins._objective_tools import (
    check_dims,
    check_names,
    check_number,
    counted,
    exact,
    full_precision,
    modality_streams,
    total,
    unbound,
)
from fusionzoo_plugins.avel import here, stream_names


class SelfDistillation(Objective):
    r"""Cross-entropy of each modality's own prediction, and its divergence from the prediction of all of them.

    .. math:: L = \sum_m \frac{1}{N} \sum_i \Big( -\gamma_2 \log \operatorname{softmax}(l^m_i)_{y_i}
              + \gamma_3\, \tau^2 \operatorname{KL}\big(\operatorname{softmax}(l_i / \tau) \,\|\,
              \operatorname{softmax}(l^m_i / \tau)\big) \Big)

    with the host's logits l as teacher, over the labelled utterances at which the modality was recorded. The teacher's own
    cross-entropy is the objective `cross-entropy`; weigh the two by name. The students are linear classifiers after a ReLU
    on the modalities' streams that belong to this objective: prediction does without them.

    Options
    -------
    ce, kl : :math:`\gamma_2`, :math:`\gamma_3`.
    temperature : :math:`\tau`.
    dropout : before the students.
    streams : names of the students' streams. Default: `"<modality>.logits"`, taken as they are, where the fusion reports
    such (late-average, late-product, multiplicative), else the streams of the modalities.
    dims : stream name -> width, to build the students without a host; default asks the host.
    variant : see `variants`.

    Parameters: per student :math:`(d_m + 1)\,C`; none where the fusion reports logits.
    Source: Ma et al., "A Transformer-Based Model With Self-Distillation for Multimodal Emotion Recognition in
    Conversations", IEEE TMM 2024, arXiv 2310.20494; code butterfliesss/SDT@60af921823,
    `train.py`.

    Shapes: logits `(B, T, C)`, streams `(B, T, d_m)`, labels `(B, T)` -> scalar.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_plugins.official.self_distillation:OfficialSelfDistillation"}  # fmt: skip

    without_effect: ClassVar[dict[str, str]] = {
        "dropout": "before students of its own, which it builds where the host brings no logits per modality",
    }

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | None = None,
        *,
        ce: float = 1.0,
        kl: float = 1.0,
        temperature: float = 1.0,
        dropout: float = 0.5,
        streams: list[str] | None = None,
        dims: dict[str, int] | None = None,
        variant: str = "default",
    ):
        super().__init__(num_classes, class_counts)
        self.ce, self.kl = check_number(ce, "ce", self), check_number(kl, "kl", self)
        self.temperature = check_number(temperature, "temperature", self, open_low=True)
        self.dropout = check_probability(dropout, "dropout", self)
        self.streams = check_names(streams, self, 1)
        self.names: tuple[str, ...] = ()
        self.students = nn.ModuleList()
        if dims is not None:
            self._build(check_dims(dims, self))

    def bind(self, host) -> None:
        """Build students for the widths of the host's streams, where neither `dims` nor the fusion brings any."""
        if self.names:
            return
        widths = stream_widths(host)
        if self.streams is None and any(widths.get(f"{m}.logits") == self.num_classes for m in host.names):
            return
        names = stream_names(widths, host.names, self.streams, self, inputs=False)
        self._build({n: widths[n] for n in names})

    def _build(self, dims: Mapping[str, int]) -> None:
        self.names = tuple(dims)
        self.students.extend(nn.Linear(d, self.num_classes) for d in dims.values())

    def forward(self, out, batch) -> Tensor:
        teacher = exact(self.teacher(out.logits)) / self.temperature
        losses = []
        for name, logits in self._students(out, batch).items():
            mask = counted(batch, name)
            flat, labels = mask.flatten(), torch.where(mask, batch.labels, IGNORE).flatten()
            logits = exact(logits).flatten(0, 1)
            losses.append(self.ce * masked_nll(logits.log_softmax(-1), labels.clamp(min=0), flat))
            log_pred = (logits / self.temperature).log_softmax(-1)
            losses.append(self.kl * self.proportion() * masked_kl(log_pred, teacher.softmax(-1).flatten(0, 1), flat))
        return total(losses, out)

    def teacher(self, logits: Tensor) -> Tensor:
        """The logits that the students learn from."""
        return logits.detach()

    def proportion(self) -> float:
        """What keeps the two terms in proportion when the temperature changes."""
        return self.temperature**2

    def _students(self, out, batch) -> dict[str, Tensor]:
        """Stream name -> logits `(B, T, C)`."""
        if not self.names:
            found = [f"{m}.logits" for m in batch.modalities if f"{m}.logits" in out.streams]
            if self.streams is not None or not found:
                raise unbound(self, "students")
            return modality_streams(out, batch, self, None, "logits", 1)
        students = dict(zip(self.names, self.students, strict=True))
        logits = {}
        for name, x in here(out, batch, self.names, self).items():
            with full_precision(x):
                x = exact(torch.where(counted(batch, name).unsqueeze(-1), x, 0.0)).relu()
                x = dropout(x, self.dropout, self.training)
                logits[name] = students[name](x.to(students[name].get_parameter("weight").dtype))
        return logits


def masked_kl(log_pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """SDT's `MaskedKLDivLoss`: mean of `KL(target || pred)` over the rows `(N, C)` at which `mask` is True, zero without one.

    mask : N entries in any shape, bool or 0 and 1.
    """
    real = mask.reshape(-1, 1) > 0
    # The clamp keeps the slope finite where a probability has underflown.
    entropy = target * target.clamp(min=torch.finfo(target.dtype).tiny).log()
    each = torch.where(real, entropy - target * log_pred, 0.0)
    return each.sum() / real.sum().clamp(min=1)


def masked_nll(log_pred: Tensor, target: Tensor, mask: Tensor, weight: Tensor | None = None) -> Tensor:
    """SDT's `MaskedNLLLoss`: mean, weighted by class, of the negative log-likelihood over the rows `(N, C)` in the mask.

    mask : N entries in any shape, bool or 0 and 1.
    weight : `(C,)`, or None.
    """
    real = mask.reshape(-1) > 0
    picked = log_pred.gather(1, target.reshape(-1, 1)).squeeze(1)
    weights = torch.ones_like(picked) if weight is None else weight.to(picked)[target.reshape(-1)]
    weights = torch.where(real, weights, 0.0)
    return -torch.where(real, weights * picked, 0.0).sum() / weights.sum().clamp(min=1e-12)


fusionzoo_register = fusionzoo.plugin(
    SelfDistillation,
    summary="SDT's distillation: each modality alone learns from all of them together",
    paper="Ma et al., A Transformer-Based Model With Self-Distillation for Multimodal Emotion Recognition in "
    "Conversations, IEEE TMM 2024, arXiv 2310.20494",
    code="butterfliesss/SDT@60af921823",
    diagram="""
    t["text stream"] --> s["student"]
    l["logits"] --> T["teacher"]
    s --> ce["cross-entropy with the labels"]
    s --> kl["divergence from the teacher"]
    T --> kl
    ce --> L["loss, summed over modalities"]
    kl --> L
    """,
)
