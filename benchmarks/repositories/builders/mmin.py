"""MMIN's fusion baseline, no `nn.Module`: wrapped in one that calls `set_input` and `forward`, with its networks as submodules."""

import tempfile
from argparse import Namespace
from typing import Any

import torch
from torch import nn

from fusionzoo.patching import Call

REPOSITORY = "AIM3-RUC/MMIN"
COMMIT = "69a45fedff"
SAMPLES = 4
STREAMS = {(0, "A_feat"): 0, (0, "L_feat"): 0, (0, "V_feat"): 0}


class Wrapped(nn.Module):
    """Its networks are the submodules."""

    def __init__(self, plain: Any):
        super().__init__()
        self.plain = plain
        self.netA, self.netL, self.netV, self.netC = plain.netA, plain.netL, plain.netV, plain.netC

    def forward(self, batch: dict[str, Any]) -> Any:
        """The logits."""
        self.plain.set_input(batch)
        self.plain.forward()
        return self.plain.logits


def build(root: Any) -> Any:
    """The baseline with audio, text and visual."""
    from models.utt_fusion_model import UttFusionModel

    plain = UttFusionModel(
        Namespace(
            modality="AVL", input_dim_a=130, input_dim_l=1024, input_dim_v=342, embd_size_a=128, embd_size_l=128,
            embd_size_v=128, embd_method_a="maxpool", embd_method_v="maxpool", cls_layers="128,128", dropout_rate=0.3,
            bn=False, output_dim=4, gpu_ids=[], isTrain=False, checkpoints_dir=tempfile.mkdtemp(), name="",
            cuda_benchmark=False, cvNo=1,
        )
    )  # fmt: skip
    sizes = {"A_feat": (30, 130), "L_feat": (22, 1024), "V_feat": (25, 342)}
    batch = {k: torch.randn(SAMPLES, *s) for k, s in sizes.items()} | {"label": torch.randint(4, (SAMPLES,))}
    return Wrapped(plain), Call(batch), {}
