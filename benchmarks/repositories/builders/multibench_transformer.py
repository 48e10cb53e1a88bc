"""MultiBench, late fusion of three transformers."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "pliang279/MultiBench"
COMMIT = "49f9be224f"
SAMPLES = 3
STREAMS = {(0, 0): 0, (0, 1): 0, (0, 2): 0}


def build(root: Any) -> Any:
    """As `examples/affect/affect_late_fusion_transformer.py` does, with small widths."""
    from fusions.common_fusions import Concat
    from training_structures.Supervised_Learning import MMDL
    from unimodals.common_models import MLP, Transformer

    model = MMDL([Transformer(35, 10), Transformer(74, 10), Transformer(300, 20)], Concat(), MLP(40, 16, 1))
    return model, Call([torch.randn(3, 9, d) for d in (35, 74, 300)]), {}
