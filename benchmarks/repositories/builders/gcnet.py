"""GCNet: the trainer joins the features into the only item of a list."""

import sys
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask

REPOSITORY = "zeroQiaoba/GCNet"
COMMIT = "8cce4a0c9a"
LENGTHS = [9, 7, 5, 4]
STREAMS = {(0, 0): 1}


def build(root: Any) -> Any:
    """The model for the published features."""
    sys.path.insert(0, str(root / "gcnet"))
    from model import GraphModel

    model = GraphModel("LSTM", 512, 1024, 1024, 200, 100, 2, 2, 2, 6, dropout=0.5, time_attn=True, no_cuda=True)
    real = lengths_mask(LENGTHS)
    call = Call(features(LENGTHS, 2560), torch.randint(2, real.shape), real.float(), LENGTHS)
    return model, call, {"modalities": {"inputfeats[0]": {"audio": 512, "text": 1024, "visual": 1024}}}
