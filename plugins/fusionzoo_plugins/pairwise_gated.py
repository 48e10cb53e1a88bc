"""Gated attention of every pair of modalities."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive
from fusionzoo.fusion import Dims, Fused, Fusion, Streams, projection
from fusionzoo.graphs import GATE_FORMS, PairwiseGate
from fusionzoo.numerics import zero_padded

#: What modalities are called in the published weights.
LETTERS = {"a": "a", "audio": "a", "v": "v", "visual": "v", "video": "v", "vision": "v", "l": "l", "text": "l"}


class PairwiseGated(Fusion):
    r"""Gated attention of every pair of modalities (MMGatedAttention).

    `form="pairs"`: one gate per pair and step, read from both and their product, decides between the two,

    .. math::
        z_{pq} &= \sigma\big(w_{pq}\,[x_p; x_q; x_p \odot x_q] + b_{pq}\big), \qquad h_m = \tanh(W_m x_m + b_m) \\
        y &= \big[\, z_{pq} h_p + (1 - z_{pq}) h_q \,\big]_{p < q}

    over all :math:`M (M - 1) / 2` pairs; `form="background"`: the anchor as it is, every other modality gated by it,

    .. math:: y = \big[\, x_1;\; \sigma(U_m [x_m; x_1] + c_m) \odot (W_m x_m + b_m) \,\big]_{m > 1}

    Acts within a time step. A pair one of whose modalities is absent is the other one. Departures from the published
    code: modalities of another width are projected; any number of modalities from two.

    Options
    -------
    form : as above.
    width : common width w; default the anchor's.
    hidden : h, of a pair's result; default `width`.
    dropout : on the projected inputs, in training; published 0.5.

    Parameters: projections; pairs, with P of them: :math:`M (w + 1) h + P (3 w + 1)`; background:
    :math:`(M - 1)(3 w + 2) h`; the output map from :math:`P h`, or from :math:`w + (M - 1) h`.

    Source: code hujingwen6666/MMGCN@85732d984f, `model.py:MMGatedAttention`, `att_type` "general" and
    "av_bg_fusion"; the same class in feiyuchen7/M3NET and zerohd4869/MM-DFN. The gate is the bimodal unit of Arevalo et
    al., "Gated Multimodal Units for Information Fusion", arXiv 1702.01992, with one value per step.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.attention["text|audio"]` is `(B, T, 2)`, the shares of
    the pair; in the background form `(B, T, h, 2)`, what of audio passes and what is held back.

    >>> import torch
    >>> PairwiseGated({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        form: str = "pairs",
        width: int | None = None,
        hidden: int | None = None,
        dropout: float = 0.1,
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.form = check_choice(form, GATE_FORMS, "form", self)
        self.width = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        hidden = self.width if hidden is None else check_positive(hidden, "hidden", self)
        self.project = nn.ModuleList(projection(d, self.width) for d in self.dims.values())
        self.gates = PairwiseGate(self.width, hidden, len(self.dims), form=form, dropout=dropout)
        self.set_width(_fused_width(self.width, hidden, len(self.dims), form))

    def combine(self, streams: Streams) -> Fused:
        xs = [zero_padded(p(x), m) for p, x, m in zip(self.project, streams.x, streams.present, strict=True)]
        fused, shares = self.gates(xs, streams.presence())
        gates = self.gates.pairs if self.form == "pairs" else [(0, i) for i in range(1, len(xs))]
        names = [f"{self.names[p]}|{self.names[q]}" for p, q in gates]
        return Fused(fused, {}, dict(zip(names, shares, strict=True)) if streams.attention else {})

    def load_reference(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load the published `MMGatedAttention`, for modalities of one width called a, v, l or audio, visual, text.

        In this order for pairs, which their concatenation depends on; text first for the background form.
        """
        self.gates.load_reference(state_dict, [LETTERS.get(m, m) for m in self.names])


def _fused_width(width: int, hidden: int, modalities: int, form: str) -> int:
    if form == "pairs":
        return modalities * (modalities - 1) // 2 * hidden
    return width + (modalities - 1) * hidden


fusionzoo_register = fusionzoo.plugin(
    PairwiseGated,
    summary="a learned gate for every pair of modalities",
    paper="Hu et al., MMGCN: Multimodal Fusion via Deep Graph Convolution Network for Emotion Recognition in "
    "Conversation, ACL 2021, arXiv 2107.06779 (in its code)",
    code="hujingwen6666/MMGCN@85732d984f",
    handles={"attention"},
    diagram="""
    text["x_text"] --> ta["gate text, audio"]
    audio["x_audio"] --> ta
    text --> tv["gate text, visual"]
    visual["x_visual"] --> tv
    audio --> av["gate audio, visual"]
    visual --> av
    ta --> cat(("concat"))
    tv --> cat
    av --> cat
    """,
)
