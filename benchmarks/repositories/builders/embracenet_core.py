"""EmbraceNet itself: a list of vectors, one per modality, docked, stacked, and picked from at random."""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "idearibosome/embracenet"
COMMIT = "d4393b2218"
SAMPLES = 4
STREAMS = {(0, 0): 0, (0, 1): 0, (0, 2): 0}


def build(root: Any) -> Any:
    """Three modalities of different widths."""
    from embracenet_pytorch import EmbraceNet

    model = EmbraceNet(torch.device("cpu"), [20, 12, 6], embracement_size=16)
    return model, Call([torch.randn(4, 20), torch.randn(4, 12), torch.randn(4, 6)]), {}
