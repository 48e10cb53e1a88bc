"""MERTools' baseline of the MER challenges: MulT over frames, two outputs."""

import sys
from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "zeroQiaoba/MERTools"
COMMIT = "89120b780a"
SAMPLES = 4
STREAMS = {(0, m): 0 for m in ("audios", "texts", "videos")}
OLD = True


def build(root: Any) -> Any:
    """`toolkit/models/mult.py` of MER2024 with features of frames."""
    sys.path.insert(0, str(root / "MER2024"))
    from toolkit.models.mult import MULT

    args = SimpleNamespace(
        text_dim=20, audio_dim=14, video_dim=10, output_dim1=6, output_dim2=1, dropout=0.2, hidden_dim=16, grad_clip=-1,
        feat_type="frm_align", layers=1, num_heads=2, conv1d_kernel_size=3,
    )  # fmt: skip
    batch = {m: torch.randn(SAMPLES, 9, d) for m, d in (("audios", 14), ("texts", 20), ("videos", 10))}
    return MULT(args), Call(batch), {}
