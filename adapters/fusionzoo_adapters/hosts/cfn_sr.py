"""CFN-SR's network of clips: a 3-D ResNeXt-50 over faces, a network over MFCCs, and a fusion of the two.

It takes clips and not conversations, so it is no host of the registry: a plain module, `(video, audio) -> logits`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fusionzoo._options import check_choice, check_probability
from fusionzoo.encoders.mfccnet import MFCCNet
from fusionzoo.encoders.resnext3d import ResNeXt3D
from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.fusion import Fusion
from fusionzoo.host import FusionLike, build_fusion
from fusionzoo.layers import copy_reference_parts, prefixed
from fusionzoo.specs import normalise_name
from fusionzoo_adapters.hosts._published import is_named, with_options

VARIANTS = ("default", "official")

#: Official places of the trunks' parts in `video_model_blocks.0` and `audio_model_blocks.0`.
_VIDEO = {"conv1": 0, "bn1": 1, "layer1": 3, "layer2": 4, "layer3": 5, "layer4": 6}
_AUDIO = {"conv1": 0, "bn1": 2, "conv2": 3, "bn2": 6, "conv3": 8, "bn3": 10}


class CFNSRNetwork(nn.Module):
    r"""Faces and voice of a clip to an emotion.

    .. math::
        \tilde X_v = \operatorname{block}(X_v, X_a), \qquad
        \text{logits} = W\,[\operatorname{mean}\tilde X_v ;\ \operatorname{drop}(\operatorname{flatten} X_a)] + b

    Parameters
    ----------
    num_classes : 8 in RAVDESS.
    fusion : `"cfn-sr"`, whose block works on the feature maps as above; any other takes the two pooled vectors, of widths
        2048 and 1664, and a linear layer follows it.
    video : what has `maps(clips) -> (B, C, F, H, W)` and `width`; default `ResNeXt3D()`.
    audio : a `MFCCNet` without a head; default that of CFN-SR.
    dropout : on the flattened audio, 0.4.
    variant : `"official"` has the quirks of `cfn-sr`'s official variant, and no ReLU after the first convolution of the
        video trunk, as its weights were trained.

    Shapes: video `(B, 3, F, H, W)`, audio `(B, 13, T)` -> `(B, num_classes)`; published: 30 frames of 224 x 224, 212 steps.
    Parameters: 26,301,417 with `variant="official"`, one fewer without (the bias of w, which a softmax does not see).
    Source: Fu et al., "A cross-modal fusion network based on self-attention and residual structure for multimodal emotion
    recognition", arXiv 2111.02172; official code skeletonNN/CFN-SR@2443494729, `networks/msaf_ravdess.py`, which as
    committed lacks the block's encoder; that of `msaf_ravdess_ab_1.py` is in its place.
    """

    def __init__(
        self,
        num_classes: int = 8,
        fusion: FusionLike = "cfn-sr",
        *,
        video: Any = None,
        audio: MFCCNet | None = None,
        dropout: float = 0.4,
        variant: str = "default",
    ):
        super().__init__()
        self.variant = check_choice(variant, VARIANTS, "variant", self)
        self.video = ResNeXt3D(rectified_stem=variant != "official") if video is None else video
        self.audio = MFCCNet() if audio is None else audio
        if self.audio.fc1 is not None:
            raise OptionError("CFNSRNetwork: audio must be a MFCCNet without a head; build it with classes=0")
        self.dropout = nn.Dropout(check_probability(dropout, "dropout", self))
        maps = {"video": int(self.video.width), "audio": self.audio.width}
        pooled = {"video": maps["video"], "audio": self.audio.flat}
        # The published block is used on maps; it needs no output map of its own, so the widths are those that build none.
        options = {"out_dim": sum(maps.values()), "width": self.audio.width, "variant": variant}
        named = with_options(fusion, "cfn-sr", **options)
        if isinstance(named, Fusion):
            self.on_maps = is_named(named, "cfn-sr")
        else:
            self.on_maps = normalise_name(named if isinstance(named, str) else named[0]) == "cfn-sr"
        self.fusion = build_fusion(named, maps if self.on_maps else pooled)
        width = sum(pooled.values()) if self.on_maps else self.fusion.out_dim
        self.fc = nn.Linear(width, num_classes)

    def fuse(self, video: Tensor, audio: Tensor) -> Tensor:
        """What the head reads, from the trunks' maps `(B, C, F, H, W)` and `(B, k, T)`."""
        flat = self.dropout(audio.flatten(1))
        if self.on_maps:
            looked, _ = self.fusion.block(video, audio)  # type: ignore[operator]
            return torch.cat([looked.flatten(2).mean(-1), flat], dim=-1)
        return self.fusion({"video": video.flatten(2).mean(-1), "audio": flat})

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        return self.fc(self.fuse(self.video.maps(video), self.audio.maps(audio)))

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Load the official `MSAFNet`; one without a video trunk leaves that as it is."""
        if self.variant != "official" or not self.on_maps or not is_named(self.fusion, "cfn-sr"):
            raise ReferenceWeightsError(
                "the official weights fit CFNSRNetwork(fusion='cfn-sr', variant='official') only"
            )
        plain = {k.removeprefix("module."): v for k, v in state.items()}
        parts: dict[str, nn.Module] = {"fc.": self.fc}
        parts |= {f"audio_model_blocks.0.{place}.": getattr(self.audio, n) for n, place in _AUDIO.items()}
        if any(k.startswith("video_model_blocks.") for k in plain):
            parts |= {f"video_model_blocks.0.{place}.": getattr(self.video, n) for n, place in _VIDEO.items()}
        block, own = self.fusion.block, prefixed(plain, "msaf.0.")
        copy.deepcopy(block).load_reference(own)  # type: ignore[operator]  # refuses before anything is copied
        copy_reference_parts(parts, plain, ("msaf.0.",))
        block.load_reference(own)  # type: ignore[operator]
