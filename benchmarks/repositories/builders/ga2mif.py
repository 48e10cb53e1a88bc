"""GA2MIF: flat nodes, a graph of each modality, then attention between them in padded batches."""

import sys
from typing import Any
from unittest import mock

import torch

from fusionzoo.patching import Call
from repositories.absent import stand_in
from repositories.batches import lengths_mask

REPOSITORY = "lijfrank-open/GA2MIF"
COMMIT = "56104c3"
LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 0, 5: 0, 6: 0}


def build(root: Any) -> Any:
    """As `run.py` does, narrower."""
    stand_in("torch_sparse", "SparseTensor", "matmul", "set_diag")
    with mock.patch.object(sys, "argv", ["run.py"]):  # the repository reads the command line at import
        from model import GNNModel
        from parsers import args
    args.no_cuda, args.hidesize, args.base_size = True, 16, [16, 16, 16]
    args.crossmodal_nlayers = 2
    model = GNNModel(args, D_m_a=14, D_m_v=10, D_m=20, num_speakers=2, n_classes=6)
    size = len(LENGTHS), max(LENGTHS)
    text, audio, visual = (torch.randn(*size, d) for d in (20, 14, 10))
    qmask = torch.nn.functional.one_hot(torch.randint(2, size), 2).float()
    return (
        model,
        Call(text, qmask, lengths_mask(LENGTHS).float(), torch.tensor(LENGTHS), max(LENGTHS), audio, visual),
        {},
    )
