"""LNLN: a dominant modality corrected by a weighted sum, then learned tokens as in ALMT; two tuples of modalities."""

from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import packed_tokens
from repositories.pretrained import random_weights

REPOSITORY = "Haoyu-ha/LNLN"
COMMIT = "80a052c"
SAMPLES = 4
STREAMS = {(i, j): 0 for i in (0, 1) for j in (0, 1)}  # not the packed token ids


def build(root: Any) -> Any:
    """`configs/train_mosi.yaml` with shorter clips."""
    import yaml
    from models.lnln import build_model

    args = yaml.safe_load((root / "configs/train_mosi.yaml").read_text())
    args["model"]["feature_extractor"]["input_length"] = [9, 11, 13]
    with random_weights(vocab_size=90, num_hidden_layers=1, intermediate_size=64):
        model = build_model(args)
    views = [(torch.randn(SAMPLES, 11, 20), torch.randn(SAMPLES, 13, 5), packed_tokens([9, 7, 5, 4])) for _ in range(2)]
    names = {
        f"{view}_input[{i}]": m
        for view in ("complete", "incomplete")
        for i, m in enumerate(("visual", "audio", "text"))
    }
    return model, Call(*views), {"modalities": names}
