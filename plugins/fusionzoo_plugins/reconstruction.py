"""Reconstruction: private and shared part together give the modality back."""

from __future__ import annotations

from torch import Tensor

import fusionzoo
from fusionzoo.errors import ShapeError
from fusionzoo.objective import Objective
from fusionzoo_plugins import _misa_losses
from fusionzoo_plugins._objective_tools import counted, exact, full_precision, modality_streams, stream, total


class Reconstruction(Objective):
    r"""Mean squared error between a modality and what is made of its parts.

    .. math:: L = \frac1M \sum_m \frac{1}{N d} \sum_i \|r^m_i - x^m_i\|^2

    over the labelled utterances at which the modality was recorded. The gradient reaches both, as in the published code;
    `detach=True` keeps the target fixed, so that it cannot shrink towards what is easy to reconstruct.

    Options
    -------
    target : suffix of the streams to give back: `""` for the stream named like the modality, which the fusion misa
        reports beside `"<modality>.reconstruction"`.
    detach : no gradient to the target.

    Parameters: none. Source: Hazarika et al., "MISA", ACM MM 2020, equation 12.

    The fusion misa brings the same along in `Fused.losses`, which training adds by itself (`objective.auxiliary`): switch that
    off there (`reconstruction=0`) when this objective takes its place.

    Shapes: streams `(B, T, d)` -> scalar. The labels say only which utterances count.
    """

    uses_labels = False

    def __init__(self, num_classes: int, class_counts: Tensor | None = None, *, target: str = "", detach: bool = False):
        super().__init__(num_classes, class_counts)
        self.target, self.detach = target, bool(detach)

    def forward(self, out, batch) -> Tensor:
        losses = []
        for name, made in modality_streams(out, batch, self, None, "reconstruction", 1).items():
            modality = name.partition(".")[0]
            wanted = stream(out, f"{modality}.{self.target}" if self.target else modality, self)
            if wanted.shape != made.shape:
                raise ShapeError(
                    f"the stream {name!r} is {tuple(made.shape)}, but what it reconstructs is {tuple(wanted.shape)}; name "
                    "the right one with target="
                )
            with full_precision(out.logits):
                wanted = exact(wanted.detach() if self.detach else wanted)
                losses.append(_misa_losses.reconstruction(exact(made), wanted, counted(batch, name)))
        return total(losses, out) / max(len(losses), 1)


fusionzoo_register = fusionzoo.plugin(
    Reconstruction,
    summary="private and shared part together give the modality back",
    paper="Hazarika et al., MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment Analysis, "
    "ACM MM 2020",
    code="thuiar/MMSA@a94e65d07f",
    diagram="""
    p["text, private"] --> r["text, reconstruction"]
    s["text, shared"] --> r
    r --> L["squared error"]
    x["text stream"] --> L
    """,
)
