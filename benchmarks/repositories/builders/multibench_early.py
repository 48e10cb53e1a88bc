"""MultiBench, early fusion: features concatenated before one GRU."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "pliang279/MultiBench"
COMMIT = "49f9be224f"
SAMPLES = 3
STREAMS = {(0, 0): 0, (0, 1): 0, (0, 2): 0}


def build(root: Any) -> Any:
    """As `examples/affect/affect_early_fusion.py` does, with a small GRU."""
    from fusions.common_fusions import ConcatEarly
    from training_structures.Supervised_Learning import MMDL
    from unimodals.common_models import GRU, MLP, Identity, Sequential

    head = Sequential(GRU(409, 16, dropout=True, has_padding=False, batch_first=True, last_only=True), MLP(16, 16, 1))
    model = MMDL([Identity(), Identity(), Identity()], ConcatEarly(), head)
    return model, Call([torch.randn(3, 9, d) for d in (35, 74, 300)]), {}
