"""BAN (visual question answering): bilinear attention of regions and words, as an `einsum` of three."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "jnhwkim/ban-vqa"
COMMIT = "ef4cc36d63"
SAMPLES = 3
STREAMS = {0: 0, 1: 0, 2: 0}
OLD = True  # torch._six


def build(root: Any) -> Any:
    """As `main.py` does, with small widths; questions are padded in front, as its data set does."""
    from base_model import build_ban

    dataset = SimpleNamespace(dictionary=SimpleNamespace(ntoken=50), v_dim=24, num_ans_candidates=7)
    model = build_ban(dataset, 16, op="", gamma=2)
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
