"""Every host with every fusion, at every place, takes a training step; what does not fit says why."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fusionzoo
from fusionzoo.batch import Batch
from fusionzoo.errors import OptionError
from fusionzoo.host import Host, HostOutput
from fusionzoo.testing.comparisons import gradients, reached

DIMS = {"text": 8, "audio": 6, "visual": 5}
CLASSES, SPEAKERS = 3, 2
GRAPH = {"hidden": 4, "graph_width": 4, "dropout": 0.0}
WINDOW = {"window_past": 2, "window_future": 1}
#: Widths that keep a step in milliseconds.
TINY = {
    "bc-lstm": {"hidden": 4, "head_width": 16, "dropout": 0.0},
    "cogmen": {"hidden": 8, "dropout": 0.0, "input_dropout": 0.0, **WINDOW},
    "corect": {"hidden": 8, "dropout": 0.0, "input_dropout": 0.0, **WINDOW},
    "dialogue-gcn": {**GRAPH, "head_width": 16, **WINDOW},
    "dialogue-rnn": {"hidden": 4, "head_width": 16, "global_width": 4, "party_width": 4, "dropout": 0.0},
    "m3net": {"hidden": 8, "graph_width": 8, "dropout": 0.0, "input_dropout": 0.0},
    "mm-dfn": {**GRAPH, "depth": 2},
    "mmgcn": {**GRAPH, "depth": 2},
    "multiemo": {"width": 8, "dropout": 0.0},
    "sdt": {"width": 8, "heads": 2, "dropout": 0.0},
    "text-cnn": {"hidden": 8, "head_width": 16, "dropout": 0.0},
}
#: Of conversations; hosts of clips take recordings and have tests of their own.
HOSTS = [n for n in fusionzoo.names("host") if fusionzoo.card(n, "host").spec.level in ("dialogue", "utterance")]
FUSIONS = fusionzoo.names()


def build(host: str, fusion: str, placement: str | None = None, dims: dict[str, int] = DIMS) -> Host:
    torch.manual_seed(0)
    return fusionzoo.get(host, kind="host")(dims, CLASSES, SPEAKERS, fusion, placement, **TINY[host])


def make_batch(dims: dict[str, int] = DIMS, device: str = "cpu") -> Batch:
    generator = torch.Generator().manual_seed(1)
    lengths = [5, 1, 3]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    features = {m: torch.randn(3, 5, d, generator=generator) for m, d in dims.items()}
    speakers = torch.randint(SPEAKERS, mask.shape, generator=generator) * mask
    labels = torch.where(mask, torch.randint(CLASSES, mask.shape, generator=generator), -100)
    return Batch(features, mask, speakers, labels, ["a", "b", "c"], None, lengths).to(device)


def total_loss(out: HostOutput, batch: Batch) -> Tensor:
    loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), batch.labels.flatten())
    return sum((extra.float() for extra in out.losses.values()), loss)


def step(host: Host) -> None:
    """A training step after which every modality had a gradient and every weight of the fusion that got one moved."""
    batch = make_batch(host.dims)
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
    with pytest.raises(OptionError, match=rf"fuses 2 to {most} modalities, got {most + 1} .*; concat, sum"):
        build(host, fusion, dims={f"m{i}": 4 for i in range(most + 1)})


@pytest.mark.parametrize("host", HOSTS)
def test_no_step_waits_for_a_device(host):
    """A tensor without values cannot be looked at: forward pass, losses and backward pass run without reading one."""
    with torch.device("meta"):
        model = build(host, "lmam")
    batch = make_batch(device="meta")
    total_loss(model.train()(batch), batch).backward()
    assert any(p.grad is not None for p in model.parameters())
