"""Every host with every fusion, at every place, takes a training step; what does not fit says why."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fusionzoo
from fusionzoo import kernels
from fusionzoo.batch import Batch
from fusionzoo.errors import OptionError
from fusionzoo.host import Host, HostOutput
from fusionzoo.testing.batches import dialogues
from fusionzoo.testing.comparisons import gradients, reached
from fusionzoo.testing.subjects import small_options

DIMS = {"text": 8, "audio": 6, "visual": 5}
LENGTHS = (5, 1, 3)
CLASSES, SPEAKERS = 3, 2
#: Of conversations; hosts of clips take recordings and have tests of their own.
HOSTS = [n for n in fusionzoo.names("host") if fusionzoo.card(n, "host").spec.level in ("dialogue", "utterance")]
FUSIONS = fusionzoo.names()


def build(host: str, fusion: str, placement: str | None = None, dims: dict[str, int] = DIMS) -> Host:
    torch.manual_seed(0)
    cls = fusionzoo.get(host, kind="host")
    return cls(dims, CLASSES, SPEAKERS, fusion, placement, **small_options(cls))


def total_loss(out: HostOutput, batch: Batch) -> Tensor:
    loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), batch.labels.flatten())
    return sum((extra.float() for extra in out.losses.values()), loss)


def step(host: Host) -> None:
    """A training step after which every modality had a gradient and every weight of the fusion that got one moved."""
    batch = dialogues(LENGTHS, host.dims)
    for x in batch.features.values():
        x.requires_grad_()
    before = {n: p.detach().clone() for n, p in host.named_parameters()}
    optimizer = torch.optim.AdamW(host.parameters(), lr=1e-2, weight_decay=0.0)
    loss = total_loss(host.train()(batch), batch)
    loss.backward()
    assert loss.isfinite()
    felt = reached({m: x.grad for m, x in batch.features.items()})
    for m, x in batch.features.items():
        assert x.grad is not None, m
        assert x.grad.isfinite().all(), m
        assert felt[m][batch.mask].any(), m
        assert not x.grad[~batch.mask].any(), m
    optimizer.step()
    learnt = {n for n, there in reached(gradients(host)).items() if there.any()}
    moved = {n for n, p in host.named_parameters() if not torch.equal(p.detach(), before[n])}
    # A gradient that is no more than rounding may move a weight or not: AdamW divides by its size.
    assert learnt <= moved <= {n for n, p in host.named_parameters() if p.grad is not None}
    inside = [n for n in before if n.startswith("fusion.")]
    assert not inside or moved & set(inside)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("host", HOSTS)
def test_takes_a_training_step(host, fusion):
    step(build(host, fusion))


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(
    ("host", "placement"),
    [(h, p) for h in HOSTS for p in fusionzoo.card(h, "host").spec.placements[1:]],
)
def test_takes_a_training_step_at_its_other_places(host, placement, fusion):
    step(build(host, fusion, placement))


@pytest.mark.parametrize("fusion", [f for f in FUSIONS if fusionzoo.card(f).spec.modalities[1] is not None])
@pytest.mark.parametrize("host", HOSTS)
def test_what_does_not_fit_says_why(host, fusion):
    most = fusionzoo.card(fusion).spec.modalities[1]
    with pytest.raises(
        OptionError, match=rf"fuses 2 to {most} modalities, got {most + 1} .*; so many are taken by: .*concat"
    ):
        build(host, fusion, dims={f"m{i}": 4 for i in range(most + 1)})


@pytest.mark.parametrize("host", HOSTS)
def test_no_step_waits_for_a_device(host):
    """A tensor without values cannot be looked at: forward pass, losses and backward pass run without reading one."""
    with torch.device("meta"):
        model = build(host, "lmam")
    batch = dialogues(LENGTHS, DIMS).to("meta")
    with kernels.use("fast"):  # torch's packed sequences, in plain forms, do wait
        total_loss(model.train()(batch), batch).backward()
    assert any(p.grad is not None for p in model.parameters())
