"""CFN-ESA: `(T, B, d)`, cross-attention by hand over text, visual and audio, joined on features."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import lengths_mask

REPOSITORY = "lijfrank-open/CFN-ESA"
COMMIT = "9ad11f8"
LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1}


def build(root: Any) -> Any:
    """As `run_iemocap.py` does, narrower."""
    from model import CFNESA

    args = SimpleNamespace(
        textfeature_mode="concat4", cross_hidden_dim=16, rnn_drop=0.2, rnn_type="gru", use_vanilla=False, use_rnnpack=False,
        no_cuda=True, rnn_n_layers=2, cross_num_head=2, cross_drop=0.4, cross_n_layers=2, shift_output_dim=8, shift_drop=0.05,
    )  # fmt: skip
    model = CFNESA(args, [20, 10, 14], 6)
    size = max(LENGTHS), len(LENGTHS)
    text, visual, audio = [torch.randn(*size, 20) for _ in range(4)], torch.randn(*size, 10), torch.randn(*size, 14)
    qmask = torch.nn.functional.one_hot(torch.randint(2, size), 2).float()
    return model, Call(*text, visual, audio, lengths_mask(LENGTHS, True).float(), qmask, torch.tensor(LENGTHS)), {}
