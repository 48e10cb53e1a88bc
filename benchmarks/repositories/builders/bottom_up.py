"""Bottom-up attention (visual question answering): regions attended by the question, then their product."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "hengyuan-hu/bottom-up-attention-vqa"
COMMIT = "392520640e"
SAMPLES = 3
STREAMS = {0: 0, 2: 0}


def build(root: Any) -> Any:
    """As `main.py` does by default, with small widths; questions are padded in front, as its data set does."""
    import base_model

    dataset = SimpleNamespace(dictionary=SimpleNamespace(ntoken=50), v_dim=24, num_ans_candidates=7)
    model = base_model.build_baseline0_newatt(dataset, 16)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.inplace = False  # behind a ReLU, which torch does not train any more
    words = torch.randint(50, (3, 14))
    words[1, :4] = words[2, :7] = 50
    return (
        model,
        Call(torch.randn(3, 12, 24), torch.rand(3, 12, 6), words, None),
        {"modalities": {"v": "visual", "q": "text"}},
    )
