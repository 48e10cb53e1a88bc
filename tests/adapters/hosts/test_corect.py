"""CORECT beside plain formulas: loops over dialogues, nodes and edges, one at a time."""

from __future__ import annotations

import pytest
import torch
from graph_hosts import COR, DIMS, close, dialogues, graph_attention, make, make_batch, transformer
from torch import Tensor
from torch.nn import functional as F

import fusionzoo
from fusionzoo.batch import Batch
from fusionzoo_adapters.hosts.corect import Corect


def plain_corect(host: Corect, batch: Batch) -> Tensor:
    official = host.variant == "official"
    past, future = host.window
    modalities, hidden = len(host.names), host.hidden
    steps = batch.mask.shape[1]
    numbers: dict[tuple, int] = {}
    for time in ("past", "future", "present"):
        for m in range(modalities):
            numbers[time, m, m] = len(numbers)
    for m in range(modalities):
        for k in range(modalities):
            if m != k:
                numbers["across", m, k] = len(numbers)
    pairs = [(m, k) for m in range(modalities) for k in range(modalities) if m != k]
    out = torch.zeros(*batch.mask.shape, 4)
    for b, n, speakers in dialogues(batch):
        real = steps if official else n
        x = []
        for i, (encoder, f) in enumerate(zip(host.encoders, batch.features.values(), strict=True)):
            y = f[b, :real]
            if i == 0:
                y = encoder.onto(transformer(encoder.encoder, 0, encoder.into(y), pre=not official))
            else:
                y = encoder.encoder(y)
            x.append(y + host.speakers(speakers[:real]))
        nodes = [(m, i) for m in range(modalities) for i in range(n)]
        conv, h, near = host.convolution, [], []
        for m, i in nodes:
            edges: dict[int, list[tuple[int, int]]] = {}
            for j in range(n):
                if (-past <= i - j < future) if official else (-past <= j - i <= future):
                    time = "past" if j < i else "future" if j > i else "present"
                    edges.setdefault(numbers[time, m, m], []).append((m, j))
            for k in range(modalities):
                if k != m:
                    edges[numbers["across", k, m]] = [(k, i)]
            y = x[m][i] @ conv.root + conv.bias
            for r, sources in edges.items():
                y = y + sum(x[k][j] @ conv.weight[r] for k, j in sources) / len(sources)
            h.append(y)
            near.append([nodes.index(s) for sources in edges.values() for s in sources])
        z = F.leaky_relu(host.norm(torch.stack(graph_attention(host.attention, h, near))))
        read = []
        for m in range(modalities):
            cross = [transformer(host.cross, pairs.index((m, k)), x[m], x[k]) for k in range(modalities) if k != m]
            c = transformer(host.memory, m, torch.cat(cross, -1))[:n]
            read += [z[m * n : (m + 1) * n], c]
        assert read[1].shape[-1] == hidden * (modalities - 1)
        out[b, :n] = host.head.out(host.head.hidden(torch.cat(read, -1)).relu())
    return out


@pytest.mark.parametrize("variant", ["default", "official"])
@pytest.mark.parametrize("dims", [DIMS, {"text": 14, "audio": 5}, {**DIMS, "touch": 3}], ids=["3", "2", "4"])
@pytest.mark.parametrize("window", [(2, 1), (0, 3), (4, 0)])
def test_corect_is_its_formula(variant, dims, window):
    if variant == "official" and window[1] == 0 and len(dims) == 2:
        window = (4, 2)
    past, future = window
    host = make(Corect, dims, variant=variant, **{**COR, "window_past": past, "window_future": future})
    batch = make_batch(dims=dims)
    close(host(batch).logits, plain_corect(host, batch))


def test_an_instance_may_name_its_modalities_differently():
    fusion = fusionzoo.get("gated")([32, 32, 32], out_dim=7)
    host = make(Corect, fusion=fusion, **{**COR, "heads": 2})
    assert host.fusion is fusion
    assert host(make_batch()).logits.shape == (3, 6, 4)
