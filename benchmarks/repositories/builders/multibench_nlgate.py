"""MultiBench, a non-local gate of two modalities (clinical records)."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "pliang279/MultiBench"
COMMIT = "49f9be224f"
SAMPLES = 3
STREAMS = {(0, 0): 0, (0, 1): 0}


def build(root: Any) -> Any:
    """As its docstring says; no example uses it."""
    from fusions.common_fusions import NLgate
    from training_structures.Supervised_Learning import MMDL
    from unimodals.common_models import GRU, MLP

    encoders = [GRU(12, 30, dropout=False), MLP(5, 10, 10, dropout=False)]
    fusion = NLgate(24, 30, 10, None, (10, 300), (10, 300))
    return MMDL(encoders, fusion, MLP(720, 40, 6, dropout=False)), Call([torch.randn(3, 24, 12), torch.randn(3, 5)]), {}
