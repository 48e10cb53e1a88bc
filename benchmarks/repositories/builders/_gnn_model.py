"""What the repositories of lijfrank-open share: one class, one command line, one form of a call."""

import sys
from typing import Any
from unittest import mock

import torch

from fusionzoo.patching import Call
from repositories.absent import stand_in
from repositories.batches import lengths_mask

LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 0, 5: 0, 6: 0}


def gnn_model(**options: Any) -> Any:
    """As their `run.py` does, narrower, with options of its command line."""
    stand_in("torch_sparse", "SparseTensor", "matmul", "set_diag")
    with mock.patch.object(sys, "argv", ["run.py"]):  # the repository reads the command line at import
        from model import GNNModel
        from parsers import args
    args.no_cuda, args.hidesize, args.base_size = True, 16, [16, 16, 16]
    vars(args).update(options)
    model = GNNModel(args, D_m_a=14, D_m_v=10, D_m=20, num_speakers=2, n_classes=6)
    size = len(LENGTHS), max(LENGTHS)
    text, audio, visual = (torch.randn(*size, d) for d in (20, 14, 10))
    qmask = torch.nn.functional.one_hot(torch.randint(2, size), 2).float()
    return (
        model,
        Call(text, qmask, lengths_mask(LENGTHS).float(), torch.tensor(LENGTHS), max(LENGTHS), audio, visual),
        {},
    )
