"""HKT (humour): four transformers over words, two attended with two, and everything pooled and concatenated.

ALBERT has random weights, two layers and HKT's width, and returns a tuple as it did then.
"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "matalvepu/HKT"
COMMIT = "4818be5455"
LENGTHS = [9, 7, 4]
STREAMS = {0: 0, 1: 0, 2: 0, 3: 0}


def build(root: Any) -> Any:
    """As `main.py` does."""
    import transformers
    from transformers.models.albert import modeling_albert

    sys.modules["transformers.modeling_albert"] = old = ModuleType("transformers.modeling_albert")
    old.AlbertEmbeddings, old.AlbertLayerGroup = modeling_albert.AlbertEmbeddings, modeling_albert.AlbertLayerGroup  # type: ignore[attr-defined]
    sys.modules["transformers"].load_tf_weights_in_albert = None  # type: ignore[attr-defined]  # imported, never called
    from models import ACOUSTIC_DIM, HCF_DIM, HKT, LANGUAGE_DIM, VISUAL_DIM, Transformer

    config = transformers.AlbertConfig(
        vocab_size=60, embedding_size=8, hidden_size=LANGUAGE_DIM, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, return_dict=False,
    )  # fmt: skip
    text = transformers.AlbertModel(config)
    visual, acoustic, hcf = (Transformer(d, num_layers=2, nhead=1) for d in (VISUAL_DIM, ACOUSTIC_DIM, HCF_DIM))
    heads = next(n for n in (4, 2, 1) if (LANGUAGE_DIM + HCF_DIM) % n == (ACOUSTIC_DIM + VISUAL_DIM) % n == 0)
    model = HKT(text, visual, acoustic, hcf, SimpleNamespace(cross_n_heads=heads, dropout=0.1, fusion_dim=16))
    mask = torch.arange(9) < torch.tensor(LENGTHS)[:, None]
    words = torch.randint(3, 60, (3, 9)) * mask
    streams = [torch.randn(3, 9, d) * mask[..., None] for d in (VISUAL_DIM, ACOUSTIC_DIM, HCF_DIM)]
    return model, Call(words, *streams, attention_mask=mask.long(), token_type_ids=torch.zeros_like(words)), {}
