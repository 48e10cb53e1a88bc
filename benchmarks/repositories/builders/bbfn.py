"""BBFN (sentiment): words attended with sound and with video in gated pairs, first steps concatenated; `(T, B, d)`."""

import sys
from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "declare-lab/BBFN"
COMMIT = "1a251bd2a8"
LENGTHS = [9, 7, 4]
STREAMS = {0: 1, 1: 1, 2: 1}
OLD = True  # asks for CUDA


def build(root: Any) -> Any:
    """As `main.py` does with word vectors instead of BERT, with small widths."""
    sys.path.insert(0, str(root / "src"))
    from models import MULTModel

    rates = {f"{k}_dropout": 0.1 for k in ("attn", "relu", "res", "out", "embed", "div")}
    options = SimpleNamespace(
        orig_d_l=12, orig_d_a=10, orig_d_v=6, attn_dim=20, num_heads=5, layers=2, attn_dropout_a=0.0, attn_dropout_v=0.0,
        attn_mask=True, l_ksize=3, v_ksize=3, a_ksize=3, output_dim=1, use_bert=False, proj_type="cnn", use_disc=True,
        word2id=range(50), **rates,
    )  # fmt: skip
    mask = torch.arange(9)[:, None] < torch.tensor(LENGTHS)
    words = torch.randint(1, 50, (9, 3)) * mask
    video, sound = (torch.randn(9, 3, d) * mask[..., None] for d in (6, 10))
    return MULTModel(options), Call(words, video, sound, torch.tensor(LENGTHS), None, None, None), {}
