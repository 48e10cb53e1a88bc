"""Foal-Net: voice and pictures of an utterance, cross-attention both ways, a linear classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

import fusionzoo
from fusionzoo._options import check_probability
from fusionzoo.clip_host import ClipHost, EncoderLike
from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Dims, Fused
from fusionzoo.host import FusionLike
from fusionzoo.kernels.dropout import Dropout
from fusionzoo.reference import within
from fusionzoo.specs import plain_name
from fusionzoo_adapters.parts.published_fusion import is_named


class FoalNet(ClipHost):
    r"""Foal-Net's network: WavLM frames and CLIP frames, dropout, two stacks of cross-attention, their means, a linear map.

    .. math:: g = [\operatorname{mean}(\text{stack}_{a \leftarrow v}) ; \operatorname{mean}(\text{stack}_{v \leftarrow a})],
              \qquad \text{logits} = W \operatorname{drop}(g) + b

    Alignment and label matching are the objectives `avel` and `mem`: the host reports what the fusion reads (the streams
    `audio.input` and `visual.input`, with the frames behind them in `HostOutput.sequences`), and `mem` runs the fusion's
    stacks again on pairs with hard negatives. As published: `objective.also={avel: {weight: 1}}`, or both:
    `{mem: {weight: 0.1, alignment: 10}}`, all in the published form of each.

    Options
    -------
    encoders : published `{audio: {model: microsoft/wavlm-large, trainable: transformer}}`; the pictures are ready CLIP
        features of frames, or an encoder of their own: `visual: openai/clip-vit-large-patch14`.
    sequence_dropout : on the states before the fusion
    dropout : before the classifier. Both are WavLM's `final_dropout` upstream; default 0.1.
    pool, fusion_width : see `ClipHost`.
    variant : see `variants`.

    Parameters: the encoders', the fusion's (12,866,560 at 1024 and 768), and 7,172 of the head for four classes.
    Source: Li et al., "Enhancing Modal Fusion by Alignment and Label Matching for Multimodal Emotion Recognition"
    (Foal-Net), Interspeech 2024, arXiv 2408.09438; code ASolitaryMan/Foal-Net@781849fdf6, `model.py`.

    Shapes: clips, or features `(B, T, d_m)`, to logits `(B, T, C)`; utterances know nothing of each other.
    """

    variants: ClassVar[dict[str, str]] = {"official": "fusionzoo_adapters.hosts.official.foal_net:OfficialFoalNet"}
    own = "foal-net"

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "foal-net",
        placement: str | None = None,
        *,
        encoders: Mapping[str, EncoderLike] | None = None,
        pool: str = "mean",
        sequence_dropout: float = 0.1,
        dropout: float = 0.1,
        fusion_width: int | None = None,
        variant: str = "default",
    ):
        super().__init__(
            dims,
            num_classes,
            num_speakers,
            fusion,
            placement,
            encoders=encoders,
            pool=pool,
            sequence_dropout=sequence_dropout,
            fusion_width=fusion_width,
        )
        self.dropout = Dropout(check_probability(dropout, "dropout", self))
        classifier = nn.Linear(self.fused_width, self.num_classes)
        nn.init.normal_(classifier.weight, std=0.02)
        nn.init.zeros_(classifier.bias)
        self.head = nn.Sequential(self.dropout, classifier)

    def own_options(self) -> dict[str, Any]:
        return super().own_options() | {"pool": "mean"}

    def _prepared(self, fusion: FusionLike, own: dict[str, Any]) -> FusionLike:
        """The published stacks stand side by side, without a map to another width."""
        prepared = super()._prepared(fusion, own)
        named = isinstance(prepared, tuple) and plain_name(prepared[0]) == self.own
        if named and isinstance(prepared, tuple) and self.fusion_width is None:
            widths = list(self.widths.values())
            return prepared[0], {"out_dim": (len(widths) - 1) * sum(widths), **prepared[1]}
        return prepared

    def fuse_sequences(self, encoded):
        fused, masks = super().fuse_sequences(encoded)
        # Whatever the fusion: what it read, which avel aligns.
        inputs = {f"{m}.input": e.states for m, e in encoded.items() if e is not None}
        return Fused(fused.fused, inputs | fused.streams, fused.attention, fused.losses), masks

    def reference_names(self) -> Mapping[str, str]:
        if not is_named(self.fusion, self.own) or self.fusion is None:
            raise ReferenceWeightsError(f"the published weights are those of fusion='{self.own}' with two modalities")
        return within("fusion", self.fusion.reference_names()) | {"cls_head.": "head.1"}

    def reference_unused(self) -> Sequence[str]:
        """WavLM, which `encoders` load, and the projections, heads and temperature of the objectives."""
        return [p for p in self.fusion.reference_unused() if p != "cls_head."]


fusionzoo_register = fusionzoo.plugin(
    FoalNet,
    summary="WavLM and CLIP frames, cross-attention both ways; for avel and mem",
    paper="Li et al., Enhancing Modal Fusion by Alignment and Label Matching for Multimodal Emotion Recognition, "
    "Interspeech 2024, arXiv 2408.09438",
    code="ASolitaryMan/Foal-Net@781849fdf6",
    level="sequence",
)
