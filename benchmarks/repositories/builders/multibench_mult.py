"""MultiBench's own MulT: every pair of modalities attended in a loop."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "pliang279/MultiBench"
COMMIT = "49f9be224f"
SAMPLES = 3
STREAMS = {(0, 0): 0, (0, 1): 0, (0, 2): 0}


def build(root: Any) -> Any:
    """As `examples/affect/affect_mult.py` does, with small widths."""
    from fusions.mult import MULTModel
    from training_structures.Supervised_Learning import MMDL
    from unimodals.common_models import Identity

    model = MMDL([Identity(), Identity(), Identity()], MULTModel(3, [35, 74, 300]), Identity())
    return model, Call([torch.randn(3, 9, d) for d in (35, 74, 300)]), {}
