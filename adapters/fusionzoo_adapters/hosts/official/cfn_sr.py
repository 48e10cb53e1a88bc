"""CFN-SR's network of clips as skeletonNN/CFN-SR@2443494729 has it, `networks/msaf_ravdess.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo.fusion import Fused
from fusionzoo.reference import state_within, within
from fusionzoo_adapters.hosts.cfn_sr import CFNSR
from fusionzoo_adapters.parts.published_fusion import is_named

#: Official places of the trunks' parts in `video_model_blocks.0` and `audio_model_blocks.0`.
VIDEO = {"conv1": 0, "bn1": 1, "layer1": 3, "layer2": 4, "layer3": 5, "layer4": 6}
AUDIO = {"conv1": 0, "bn1": 2, "conv2": 3, "bn2": 6, "conv3": 8, "bn3": 10}


class OfficialCFNSR(CFNSR):
    """What the authors' joint networks compute.

    That variant of the fusion, and no ReLU after the first convolution of the video trunk. All clips of a batch run
    together, padding included, and one that is absent has maps like the others.

    Parameters: one more, the bias of w in the fusion, which a softmax does not see. Weights: the first modality is the
    video; without entries of its trunk that stays as it is.
    """

    variant = "official"
    rectified_stem = False

    def in_groups(self, inputs: dict[str, Tensor], masks: dict[str, Tensor]) -> Fused:
        return self.fuse_clips(inputs, masks)

    def only_there(self, maps: list[Tensor], there: Sequence[Tensor] | None) -> list[Tensor]:
        return maps

    def reference_names(self) -> Mapping[str, str]:
        if self.fusion is None or not self.on_maps or not is_named(self.fusion, "cfn-sr"):
            raise ReferenceWeightsError("the official weights fit CFNSR(fusion='cfn-sr', variant='official') only")
        video, audio = self.names
        names = {"fc.": "head"} | within("fusion.block", self.fusion.block.reference_names(), "msaf.0.")
        names |= {f"audio_model_blocks.0.{place}.": f"encoders.{audio}.{n}" for n, place in AUDIO.items()}
        return names | {prefix: f"encoders.{video}.{n}" for prefix, n in self._of_video().items()}

    def _of_video(self) -> dict[str, str]:
        """Official prefixes and parts of the video trunk, which may be any module."""
        trunk = self.encoders[self.names[0]]
        return {f"video_model_blocks.0.{place}.": n for n, place in VIDEO.items() if hasattr(trunk, n)}

    def reference_unused(self) -> Sequence[str]:
        return [f"msaf.0.{p}" for p in self.fusion.block.reference_unused()]

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        state = {k.removeprefix("module."): v for k, v in state_dict.items()}
        if not any(k.startswith("video_model_blocks.") for k in state):
            trunk = self.encoders[self.names[0]]
            for prefix, n in self._of_video().items():
                state |= {prefix + k: v for k, v in trunk.get_submodule(n).state_dict().items()}
        return state_within(self.fusion.block, state, "msaf.0.")
