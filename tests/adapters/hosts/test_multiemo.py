"""MultiEMO: its formula, its variants, what its objectives find."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformer_hosts import ATTENTION, DIMS, build, close, make_batch

import fusionzoo
from fusionzoo import kernels
from fusionzoo_adapters.hosts.multiemo import MultiEMO, UnimodalContext


def naive_context(encoder: UnimodalContext, x: Tensor, speakers: Tensor) -> Tensor:
    """One dialogue `(T, width)`, a step at a time, with torch's own cells and simple attention."""

    def direction(cell, x, speakers):
        party = x.new_zeros(2, cell.party_width)
        emotion = x.new_zeros(cell.e_cell.hidden_size)
        past, out = [], []
        for u, s in zip(x, speakers.tolist(), strict=True):
            last = past[-1] if past else x.new_zeros(cell.global_width)
            state = cell.g_cell(torch.cat([u, party[s]]), last)
            context = x.new_zeros(cell.global_width)
            if past:
                memory = torch.stack(past)
                context = cell.attention.scalar(memory).softmax(0).t() @ memory
            spoken = cell.p_cell(torch.cat([u, context.flatten()]), party[s])
            party = torch.stack([spoken if p == s else party[p] for p in range(2)])
            emotion = cell.e_cell(spoken, emotion)
            past.append(state)
            out.append(emotion)
        return torch.stack(out)

    states = direction(encoder.rnn.forward_cell, x, speakers)
    if encoder.rnn.backward_cell is not None:
        states = torch.cat([states, direction(encoder.rnn.backward_cell, x.flip(0), speakers.flip(0)).flip(0)], -1)
    return F.relu(states if encoder.linear is None else encoder.linear(states))


@pytest.mark.parametrize("options", [{}, {"directions": 1}, {"directions": 1, "hidden": 5}, {"anchor_context": False}])
def test_multiemo_formula(options):
    host = build(MultiEMO, fusion="concat", speaker_embedding=False, **options)
    batch = make_batch([5])
    out = host(batch)
    streams = []
    for m, project, encoder in zip(DIMS, host.projections, host.encoders, strict=True):
        x = project(batch.features[m])
        if isinstance(encoder, UnimodalContext):
            x = naive_context(encoder, x[0], batch.speakers[0]).unsqueeze(0)
        streams.append(x)
        close(out.streams[m], x)
    z = host.fusion.out(torch.cat(streams, -1))
    close(out.streams["fused"], z)
    close(out.logits, host.head.out(F.relu(host.head.hidden(z))))


def test_multiemo_builds_the_published_fusion_at_its_width():
    host = build(MultiEMO)
    assert host.fusion.width == 8
    assert not any(isinstance(p, torch.nn.Linear) for p in host.fusion.project)
    assert host.fusion.out.in_features == 24
    assert build(MultiEMO, fusion=("multi_attn", {"layers": 3, "width": 16})).fusion.width == 16


def test_multiemo_objectives_find_their_streams():
    host, batch = build(MultiEMO, fusion=ATTENTION), make_batch([4, 3])
    host.keep_attention = True
    out = host(batch)
    assert "text<-audio.0" in out.attention
    loss = torch.zeros(())
    for name in ("swfc", "soft-hgr"):
        objective = fusionzoo.get(name, kind="objective")(3)
        objective.bind(host)
        loss = loss + objective(out, batch)
    loss.backward()
    # What the modalities' streams are is behind the fusion, so that soft-hgr shapes its stacks.
    assert all(p.grad is not None for p in host.fusion.parameters())
    bare = build(MultiEMO, fusion="concat")(batch).streams
    assert {m: bare[m].shape[-1] for m in DIMS} == dict.fromkeys(DIMS, 8)


def test_multiemo_official_fusion_reads_padding_and_the_default_does_not():
    short, long = make_batch([5, 2]), make_batch([5, 2], steps=8)
    official, default = build(MultiEMO, variant="official", fusion=ATTENTION), build(MultiEMO, fusion=ATTENTION)
    close(default(long).logits[:, :5], default(short).logits)
    assert not torch.allclose(official(long).logits[:, :5], official(short).logits, atol=1e-4)
    # With a fusion that looks at one utterance alone, the official form is sound too.
    official = build(MultiEMO, variant="official", fusion="concat")
    close(official(long).logits[:, :5], official(short).logits)


def test_multiemo_groups_dialogues_of_similar_length(monkeypatch):
    from fusionzoo_adapters.hosts import multiemo
    from fusionzoo_adapters.kernels.length_groups import worth_grouping

    with kernels.use("fast"):
        assert not worth_grouping([100] * 16, 100, 4)
        assert not worth_grouping([5, 3, 1], 5, 4)
        assert worth_grouping(list(range(20, 100, 5)), 95, 4)
    host, batch = build(MultiEMO, fusion=ATTENTION), make_batch([3, 9, 1, 4, 8, 2, 7], steps=11)
    partly = copy.copy(batch)
    partly.present = {"audio": torch.arange(11).expand(7, 11) % 3 > 0}
    absent = copy.copy(batch)
    absent.features = {m: x for m, x in batch.features.items() if m != "visual"}
    for b in (batch, partly, absent):
        whole = host(b)
        with monkeypatch.context() as patch:
            patch.setattr(multiemo, "worth_grouping", lambda *_: True)
            grouped = host(b)
        close(grouped.logits, whole.logits)
        assert set(grouped.streams) == set(whole.streams)
        for name, stream in whole.streams.items():
            close(grouped.streams[name], stream)


def test_multiemo_official_drops_logits():
    host = build(MultiEMO, variant="official", fusion="concat", dropout=0.5).train()
    batch = make_batch([40])
    assert (host(batch).logits == 0).float().mean() > 0.3
    assert not (build(MultiEMO, fusion="concat", dropout=0.5).train()(batch).logits == 0).any()
