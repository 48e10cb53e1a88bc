"""Small outputs of hosts and batches for the tests of objectives."""

from __future__ import annotations

import torch

from fusionzoo.batch import Batch
from fusionzoo.host import HostOutput
from fusionzoo.objective import IGNORE

C = 3
COUNTS = torch.tensor([6, 2, 4])
LABELS = torch.tensor([[0, 1, 2, 0, IGNORE], [1, 0, IGNORE, IGNORE, IGNORE]])
REAL = LABELS != IGNORE
TWO = ("text", "audio")


def case(*names, width=4, labels=LABELS, present=None, classes=C):
    """Random logits and streams for `labels`, leaves that want a gradient."""
    generator = torch.Generator().manual_seed(0)

    def leaf(size):
        return torch.randn(*labels.shape, size, generator=generator).requires_grad_()

    streams = {n: leaf(classes if n.endswith(".logits") else width) for n in names}
    features = {n.partition(".")[0]: torch.zeros(*labels.shape, 1) for n in names}
    mask = torch.ones(labels.shape, dtype=torch.bool)
    batch = Batch(features, mask, torch.zeros_like(labels), labels, ["a", "b"], present)
    return HostOutput(leaf(classes), streams), batch


def gradient_of(out, name):
    gradient = out.streams[name].grad
    assert gradient is not None
    return gradient


def picked(out, name, mask=REAL):
    return out.streams[name][mask]
