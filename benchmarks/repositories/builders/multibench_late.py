"""MultiBench, late fusion: three packed GRUs, concatenated."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "pliang279/MultiBench"
COMMIT = "49f9be224f"
LENGTHS = [9, 7, 4]
STREAMS = {(0, 0, 0): 0, (0, 0, 1): 0, (0, 0, 2): 0}


def build(root: Any) -> Any:
    """As `examples/affect/affect_late_fusion.py` does, with small widths."""
    from fusions.common_fusions import Concat
    from training_structures.Supervised_Learning import MMDL
    from unimodals.common_models import GRU, MLP

    encoders = [GRU(d, h, dropout=True, has_padding=True) for d, h in ((35, 7), (74, 5), (300, 9))]
    model = MMDL(encoders, Concat(), MLP(21, 16, 1), has_padding=True)
    lengths = torch.tensor(LENGTHS)
    streams = [torch.randn(3, 9, d) for d in (35, 74, 300)]
    for x in streams:
        x[1, 7:] = x[2, 4:] = 0
    return model, Call([streams, [lengths] * 3]), {}
