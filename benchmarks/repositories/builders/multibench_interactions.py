"""MultiBench, multiplicative interactions of two modalities (clinical records: fixed features and a series)."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "pliang279/MultiBench"
COMMIT = "49f9be224f"
SAMPLES = 3
STREAMS = {(0, 0): 0, (0, 1): 0}


def build(root: Any) -> Any:
    """As `examples/healthcare/mimic_MI.py` does."""
    from fusions.common_fusions import MultiplicativeInteractions2Modal
    from training_structures.Supervised_Learning import MMDL
    from unimodals.common_models import GRU, MLP

    encoders = [MLP(5, 10, 10), GRU(12, 30, flatten=True)]
    fusion = MultiplicativeInteractions2Modal([10, 720], 64, "matrix", True)
    return MMDL(encoders, fusion, MLP(64, 40, 6)), Call([torch.randn(3, 5), torch.randn(3, 24, 12)]), {}
