"""GraphSmile: dialogues cut into flat nodes, three graphs of two modalities each, summed."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import lengths_mask

REPOSITORY = "lijfrank-open/GraphSmile"
COMMIT = "96745a2"
LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1}


def build(root: Any) -> Any:
    """As `run.py` does, narrower."""
    from model import GraphSmile

    args = SimpleNamespace(
        textf_mode="concat4", no_cuda=True, win=[3, 3], modals="avl", shift_win=4, hidden_dim=16, drop=0.2,
        heter_n_layers=[2, 2, 2],
    )  # fmt: skip
    model = GraphSmile(args, [20, 10, 14], 6)
    size = max(LENGTHS), len(LENGTHS)
    text, visual, audio = [torch.randn(*size, 20) for _ in range(4)], torch.randn(*size, 10), torch.randn(*size, 14)
    qmask = torch.nn.functional.one_hot(torch.randint(2, size), 2).float()
    return model, Call(*text, visual, audio, lengths_mask(LENGTHS, True).float(), qmask, LENGTHS), {}
