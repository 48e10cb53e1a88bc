"""MERTools' baseline of the MER challenges: three vectors stacked, weighted by an attention over their concatenation."""

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
    """`toolkit/models/attention.py` of MER2024 with features of whole utterances."""
    sys.path.insert(0, str(root / "MER2024"))
    from toolkit.models.attention import Attention

    args = SimpleNamespace(
        text_dim=20, audio_dim=14, video_dim=10, output_dim1=6, output_dim2=1, dropout=0.2, hidden_dim=16, grad_clip=-1,
        feat_type="utt",
    )  # fmt: skip
    batch = {m: torch.randn(SAMPLES, d) for m, d in (("audios", 14), ("texts", 20), ("videos", 10))}
    return Attention(args), Call(batch), {}
