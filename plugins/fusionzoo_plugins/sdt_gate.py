"""SDT's hierarchical gated fusion: each modality gates itself, then all are weighed against each other per feature."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo._options import check_choice, check_positive
from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Dims, Fused, Fusion, Streams
from fusionzoo.numerics import masked_softmax
from fusionzoo.reference import WithReference

UNIMODAL = ("learned", "identity", "none")


class UnimodalGate(WithReference, nn.Module):
    """A modality gates its own features: `sigmoid(W x) * x`.

    Parameters
    ----------
    width : of the features.
    learned : False keeps W a constant, the identity unless weights are loaded, as SDT does for MELD.

    Source: `Unimodal_GatedFusion` of butterfliesss/SDT. Learnt parameters: `width ** 2`.
    """

    def __init__(self, width: int, learned: bool = True):
        super().__init__()
        self.fc = nn.Linear(width, width, bias=False)
        if not learned:
            del self.fc.weight
            self.fc.register_buffer("weight", torch.eye(width))

    def forward(self, x: Tensor) -> Tensor:
        """`(..., width)` to `(..., width)`."""
        return torch.sigmoid(self.fc(x)) * x

    def reference_names(self) -> Mapping[str, str]:
        return {"": ""}


class MultimodalGate(WithReference, nn.Module):
    """Weighted sum of the modalities; the weights are, per feature, a softmax over them of `W x_m`, one W for all.

    Source: `Multimodal_GatedFusion` of butterfliesss/SDT. Learnt parameters: `width ** 2`.
    """

    def __init__(self, width: int):
        super().__init__()
        self.fc = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, presence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The sum `(..., width)` and the weights `(..., width, M)`.

        x : the modalities, `(..., width, M)`.
        presence : bool `(..., M)`, None where all are present.
        """
        scores = self.fc(x.transpose(-1, -2)).transpose(-1, -2)
        weights = masked_softmax(scores, None if presence is None else presence.unsqueeze(-2))
        return (weights * x).sum(-1), weights

    def reference_names(self) -> Mapping[str, str]:
        return {"": ""}


class SDTGate(Fusion):
    r"""Hierarchical gated fusion of SDT: a unimodal gate per modality, then a multimodal gate.

    .. math::
        g_m = \sigma(W_m x_m) \odot x_m, \qquad
        a_m = \operatorname{softmax}_m(W g_m), \qquad
        y = \sum_m a_m \odot g_m

    with one weight per feature and modality and one W for all of them. Modalities of another width are projected first,
    without bias as in SDT. A missing modality gets no weight. Acts within a time step.

    SDT puts nine transformers in front: its unimodal gates act on each modality as every modality sees it, three streams
    per modality that one linear map joins before the multimodal gate. They are `fusionzoo.transformer.DialogueTransformer`
    and belong to the host; here each modality has the one stream that it comes with.

    Options
    -------
    width : common width w; default the anchor's.
    unimodal : `"learned"`; `"identity"`, W_m fixed to the identity, as SDT does for MELD; `"none"`, the multimodal
        gate alone.

    Parameters: projections :math:`d_m w` where the widths differ, :math:`w^2` per learned unimodal gate and :math:`w^2`
    for the multimodal one.
    Source: Ma et al., "A Transformer-Based Model With Self-Distillation for Multimodal Emotion Recognition in
    Conversations", IEEE TMM 26, 2024, arXiv 2310.20494, section on hierarchical gated fusion;
    butterfliesss/SDT@60af921823, `model.py:Unimodal_GatedFusion` and `Multimodal_GatedFusion`.

    Shapes: streams `(B, T, d_m)` -> `(B, T, out_dim)`; `Fused.attention["gate"]` is `(B, T, w, M)`, `Fused.streams` are
    the modalities behind their unimodal gates.

    >>> SDTGate({"text": 8, "audio": 4})([torch.rand(2, 5, 8), torch.rand(2, 5, 4)]).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dims: Dims,
        out_dim: int | None = None,
        *,
        width: int | None = None,
        unimodal: str = "learned",
        missing: str = "zero",
    ):
        super().__init__(dims, out_dim, missing=missing)
        self.width = self.dims[self.anchor] if width is None else check_positive(width, "width", self)
        check_choice(unimodal, UNIMODAL, "unimodal", self)
        self.project = nn.ModuleList(
            nn.Identity() if d == self.width else nn.Linear(d, self.width, bias=False) for d in self.dims.values()
        )
        self.unimodal = nn.ModuleList(
            nn.Identity() if unimodal == "none" else UnimodalGate(self.width, unimodal == "learned") for _ in self.dims
        )
        self.multimodal = MultimodalGate(self.width)
        self.set_width(self.width)

    def combine(self, streams: Streams) -> Fused:
        gated = [g(p(x)) for g, p, x in zip(self.unimodal, self.project, streams.x, strict=True)]
        fused, weights = self.multimodal(torch.stack(gated, -1), streams.presence())
        if not streams.attention:
            return Fused(fused)
        return Fused(fused, dict(zip(self.names, gated, strict=True)), {"gate": weights})

    def reference_names(self) -> Mapping[str, str]:
        if any(isinstance(g, UnimodalGate) for g in self.unimodal):
            raise ReferenceWeightsError(
                "SDT's last_gate is SDTGate(unimodal='none'); build it that way, or load the gates one by one with "
                "fusion.unimodal[i].load_reference and fusion.multimodal.load_reference"
            )
        return {"": "multimodal"}


fusionzoo_register = fusionzoo.plugin(
    SDTGate,
    summary="each modality gates itself, then a softmax per feature weighs all",
    paper="Ma et al., A Transformer-Based Model With Self-Distillation for Multimodal Emotion Recognition in "
    "Conversations, IEEE TMM 26, 2024, arXiv 2310.20494",
    code="butterfliesss/SDT@60af921823",
    handles={"attention"},
    diagram="""
    x["x_m"] --> own["sigmoid of W_m x_m"] --> times(("*"))
    x --> times
    times --> softmax["softmax over m of W g_m, per feature"] --> mix(("weighted sum over m"))
    times --> mix
    mix --> y["y"]
    """,
)
