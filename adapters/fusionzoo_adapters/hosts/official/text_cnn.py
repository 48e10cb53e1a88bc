"""TextCNN as yuntaoshou/LMAM @1ac9f43823 has it, `baseline/TextCNN.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo_adapters.hosts.official.lmam import LMAMHost
from fusionzoo_adapters.hosts.text_cnn import TextCNN


class OfficialTextCNN(LMAMHost, TextCNN):
    """No dropout, one second layer for all modalities, and batch normalisation of the text views, which reads padding in training.

    As shipped it cannot run with the fusion LMAM, whose 512 features meet a classifier made for 1536; here the classifier has
    the fusion's width, and `fusion_width` is `hidden` for a fusion that keeps the width.

    Its weights are of three modalities (text, audio, visual) late, loaded with those of its fusion where that is `lmam`.
    `linear4` must have the fusion's width, as in the repaired form; `linear2` is unused there.
    """

    variant = "official"
    fixed: ClassVar[Mapping[str, object]] = {"dropout": 0.0, "shared": True}

    def loads_fusion(self) -> bool:
        return hasattr(self.fusion, "match")

    def reference_names(self) -> Mapping[str, str]:
        if self.placement != "late" or len(self.dims) != 3:
            raise ReferenceWeightsError(
                "official weights fit TextCNN(variant='official', placement='late') with text, audio and visual"
            )
        inputs = zip(("textf_input.", "acouf_input.", "visuf_input."), range(3), strict=True)
        names = {name: f"convolutions.{i}" for name, i in inputs}
        return {**self.view_names(), **names, "linear1.": "layers.0", "linear4.": "head.hidden", "linear3.": "head.out"}

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        # A convolution of kernel one is a linear map.
        return {k: v.squeeze(-1) if k.endswith("_input.weight") else v for k, v in state_dict.items()}
