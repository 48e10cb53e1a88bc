"""ALMT: learned tokens read three modalities by cross-attention of its own, guided by the text."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import packed_tokens
from repositories.pretrained import random_weights

REPOSITORY = "Haoyu-ha/ALMT"
COMMIT = "da94610"
SAMPLES = 4
STREAMS = {0: 0, 1: 0}  # not the packed token ids


def build(root: Any) -> Any:
    """`configs/mosi.yaml` with shorter clips and narrower."""
    from models.almt import build_model

    width = {f"{m}_proj_dst_dim": 16 for m in "lav"} | {
        f"{m}_input_dim": d for m, d in zip("lav", (768, 5, 20), strict=True)
    }
    args = SimpleNamespace(
        bert_pretrained="bert-base-uncased", **width, token_len=8, token_dim=16, l_input_length=9, a_input_length=13,
        v_input_length=11, proj_input_dim=16, proj_depth=1, proj_heads=2, proj_mlp_dim=16, token_length=8, l_enc_heads=2,
        l_enc_mlp_dim=16, AHL_depth=3, ahl_heads=2, ahl_dim_head=8, ahl_droup=0.0, fusion_heads=2, fusion_mlp_dim=16,
        fusion_layer_depth=2,
    )  # fmt: skip
    with random_weights(vocab_size=90, num_hidden_layers=1, intermediate_size=64):
        model = build_model(SimpleNamespace(model=args))
    return model, Call(torch.randn(SAMPLES, 11, 20), torch.randn(SAMPLES, 13, 5), packed_tokens([9, 7, 5, 4])), {}
