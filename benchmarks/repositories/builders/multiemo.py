"""MultiEMO: cross-attention over dialogues, then real utterances as a flat list; two layers in place of six."""

import sys
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import features, lengths_mask, speakers

REPOSITORY = "TaoShi1998/MultiEMO-ACL2023"
COMMIT = "e96458b870"
LENGTHS = [9, 7, 5, 4]
STREAMS = {0: 1, 1: 1, 2: 1}
MAIN = 4  # the prediction comes after the features


def build(root: Any) -> Any:
    """The model for IEMOCAP."""
    sys.path.insert(0, str(root / "Model"))
    from MultiEMO_Model import MultiEMO

    d = 256
    model = MultiEMO(
        "IEMOCAP", True, 768, 1024, 0.1, 2, d, 4, 512, 1000, d, d, d, d, 6, 2, False, "simple", d, 0.1, "cpu"
    )
    real = lengths_mask(LENGTHS)
    labels = torch.where(real, torch.randint(6, real.shape), -1).reshape(-1)
    return model, Call(*features(LENGTHS, 768, 512, 1000), speakers(LENGTHS), real.float(), labels), {}
