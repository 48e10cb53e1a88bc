"""M3NET beside plain formulas: loops over dialogues, nodes and edges, one at a time."""

from __future__ import annotations

import math

import pytest
import torch
from graph_hosts import DIMS, M3, close, dialogues, gathered, make, make_batch
from torch import Tensor
from torch.nn import functional as F

from fusionzoo.batch import Batch
from fusionzoo.errors import ShapeError
from fusionzoo.seams import Dialogues
from fusionzoo_adapters.hosts.m3net import M3Net


def plain_m3net(host: M3Net, batch: Batch) -> Tensor:
    """With one linear map of every modality as encoder; weights by running number officially, learnt ones by default."""
    official = host.variant == "official"
    modalities = len(host.names)
    out = torch.zeros(*batch.mask.shape, 4)
    first_node = first_edge = 0
    known = Dialogues.of(batch, batch.features, batch.mask, 2, keep_attention=False)
    encoded = list(host.encoded(batch.features, known).values())
    for b, n, _ in dialogues(batch):
        nodes = [(m, i) for m in range(modalities) for i in range(n)]
        edges = [[k for k in nodes if k[0] == m] for m in range(modalities)]
        edges += [[k for k in nodes if k[1] == i] for i in range(n)]
        x = {(m, i): encoded[m][b, i] for m, i in nodes}
        base = {k: host.node_map(v) for k, v in x.items()}
        hyper = dict(base)
        for conv in host.hyper:
            gathered_edges = []
            for e, members in enumerate(edges):
                if official:
                    weight = sum(host.tables.EW_weight[first_node + nodes.index(k)] for k in members)
                    gathered_edges.append(sum(hyper[k] for k in members) / weight)
                else:
                    scores = torch.stack([host.score(base[k])[0 if e < modalities else 1] for k in members])
                    gathered_edges.append(gathered(scores.softmax(0), [hyper[k] for k in members]))
            new = {}
            for m, i in nodes:
                context, cross = gathered_edges[m], gathered_edges[modalities + i]
                if official:
                    weights = host.tables.hyperedge_weight[[first_edge + m, first_edge + modalities + i]]
                    y = (context + cross) / weights.sum()
                else:
                    share = host.share[m].sigmoid()
                    y = share * context + (1 - share) * cross
                new[m, i] = F.leaky_relu(y + conv.bias, 0.01)
            hyper = new
        frequency = dict(base)
        near = {(m, i): [k for k in nodes if k != (m, i) and (k[0] == m or k[1] == i)] for m, i in nodes}
        for conv in host.frequency:
            new = {}
            for k in nodes:
                y = frequency[k]
                for j in near[k]:
                    gate = torch.tanh(conv.gate(torch.cat([frequency[k], frequency[j]])))
                    y = y + gate * frequency[j] / math.sqrt(len(near[k]) * len(near[j]))
                new[k] = y
            frequency = new
        for i in range(n):
            parts = []
            for m in range(modalities):
                parts += [*([x[m, i]] if host.residue else []), hyper[m, i], frequency[m, i]]
            out[b, i] = host.out(torch.cat(parts).relu())
        first_node += modalities * n
        first_edge += modalities + n
    return out


@pytest.mark.parametrize("variant", ["default", "official"])
@pytest.mark.parametrize("dims", [DIMS, {"text": 14, "audio": 5}], ids=["3", "2"])
@pytest.mark.parametrize("residue", [False, True])
def test_m3net_is_its_formula(variant, dims, residue):
    host = make(M3Net, dims, variant=variant, residue=residue, **M3)
    if variant == "official":
        for table in host.tables.parameters():
            table.data.uniform_(0.5, 1.5)
    batch = make_batch(dims=dims)
    close(host(batch).logits, plain_m3net(host, batch))


@pytest.mark.parametrize("base", ["gru", "lstm", "transformer"])
def test_m3net_official_encoders_read_padding_and_the_default_ones_do_not(base):
    short, long = make_batch([3, 2], 3), make_batch([3, 2], 7)
    for m in DIMS:
        long.features[m] = F.pad(short.features[m], (0, 0, 0, 4))
    long.speakers = F.pad(short.speakers, (0, 4))
    for variant in ("default", "official"):
        host = make(M3Net, base=base, variant=variant, **M3)
        alike = torch.allclose(host(short).logits, host(long).logits[:, :3], atol=1e-5)
        assert alike is (variant == "default")


@pytest.mark.parametrize("norm", ["layer", "batch", "dialogue", "none"])
def test_m3net_averages_normalised_views(norm):
    dims = {**DIMS, "text": 4 * 6}
    host = make(M3Net, dims, text_views=4, views_norm=norm, variant="official", **M3)
    batch = make_batch([4, 4], dims=dims)
    views = batch.features["text"].unflatten(-1, (4, 6)).unbind(-2)
    if norm == "dialogue":
        views = [F.layer_norm(v, v.shape[1:]) for v in views]
    elif norm == "layer":
        views = [n(v) for n, v in zip(host.views.norms, views, strict=True)]
    elif norm == "batch":
        views = [n(v.flatten(0, 1)).view_as(v) for n, v in zip(host.views.norms, views, strict=True)]
    close(host.views(batch.features["text"], batch.mask), sum(views) / 4)


def test_the_dialogue_norm_leaves_padding_out_by_default():
    dims = {**DIMS, "text": 4 * 6}
    host = make(M3Net, dims, text_views=4, views_norm="dialogue", **M3)
    batch = make_batch([3], 6, dims=dims)
    views = batch.features["text"][:, :3].unflatten(-1, (4, 6)).unbind(-2)
    close(host.views(batch.features["text"], batch.mask)[:, :3], sum(F.layer_norm(v, v.shape[1:]) for v in views) / 4)


def test_m3net_official_tables_are_limited_and_say_so():
    host = make(M3Net, variant="official", max_edges=12, **M3)
    with pytest.raises(ShapeError, match="max_edges"):
        host(make_batch([5, 5]))
    host = make(M3Net, variant="official", max_nodes=12, **M3)
    with pytest.raises(ShapeError, match="max_nodes"):
        host(make_batch([5]))
