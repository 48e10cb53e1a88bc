"""MCAN (visual question answering): self and guided attention of words and regions, then their sum; zeros are padding."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "MILVLG/mcan-vqa"
COMMIT = "6b165e9a88"
SAMPLES = 3
STREAMS = {0: 0, 1: 0}


def build(root: Any) -> Any:
    """The small model with two layers and small widths."""
    from core.model.net import Net

    options = SimpleNamespace(
        WORD_EMBED_SIZE=12, USE_GLOVE=False, HIDDEN_SIZE=16, IMG_FEAT_SIZE=24, LAYER=2, MULTI_HEAD=2, HIDDEN_SIZE_HEAD=8,
        DROPOUT_R=0.1, FLAT_MLP_SIZE=16, FLAT_GLIMPSES=1, FLAT_OUT_SIZE=32, FF_SIZE=32,
    )  # fmt: skip
    regions, words = torch.randn(3, 12, 24), torch.randint(1, 50, (3, 10))
    regions[1, 9:] = regions[2, 6:] = 0
    words[1, 7:] = words[2, 4:] = 0
    return Net(options, None, 50, 7), Call(regions, words), {"modalities": {"img_feat": "visual", "ques_ix": "text"}}
