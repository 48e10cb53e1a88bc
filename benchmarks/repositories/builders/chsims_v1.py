"""CH-SIMS v2's supervised model: one vector per modality, heads of their own, hidden layers concatenated."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import packed_tokens
from repositories.pretrained import random_weights

REPOSITORY = "thuiar/ch-sims-v2"
COMMIT = "6eb09e5"
SAMPLES = 4
STREAMS = {1: 0, 2: 0}  # not the packed token ids


def build(root: Any) -> Any:
    """`V1` with BERT, narrower."""
    package = ModuleType("models.multiTask")  # its own import wants files that the repository lacks
    package.__path__ = [str(root / "models/multiTask")]
    sys.modules["models.multiTask"] = package
    from models.multiTask.V1 import V1

    args = SimpleNamespace(
        feature_dims=(768, 25, 17), hidden_dims=(16, 16, 16), language="cn", use_bert_finetune=True, dropouts=(0.1, 0.1, 0.1),
        post_dropouts=(0.1, 0.1, 0.1, 0.1), post_text_dim=8, post_audio_dim=8, post_video_dim=8, post_fusion_out=8,
    )  # fmt: skip
    with random_weights(vocab_size=90, num_hidden_layers=1, intermediate_size=64):
        model = V1(args)
    return model, Call(packed_tokens([9, 7, 5, 4]), torch.randn(SAMPLES, 1, 25), torch.randn(SAMPLES, 1, 17)), {}
