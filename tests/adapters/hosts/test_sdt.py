"""SDT: its formula, its places and variants, what its objective finds."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F
from transformer_hosts import DIMS, build, close, make_batch

import fusionzoo
from fusionzoo.errors import ReferenceWeightsError
from fusionzoo_adapters.hosts.sdt import SDT, Gate, View


def test_sdt_formula():
    host = build(SDT, heads=2)
    batch = make_batch([4])
    out = host(batch)
    x = [p(batch.features[m]) for p, m in zip(host.projections, DIMS, strict=True)]
    offset = host.speaker_embedding(batch.speakers)
    views = []
    for i, view in enumerate(host.views):
        seen = []
        for n, encoder, gate in zip([i, *(n for n in range(3) if n != i)], view.encoders, view.gates, strict=True):
            s, _ = encoder(x[i], None if n == i else x[n], None, offset)
            seen.append(torch.sigmoid(s @ gate.fc.weight.t()) * s)
        views.append(view.reduce(torch.cat(seen, -1)))
    stacked = torch.stack(views)
    weights = (stacked @ host.fusion.multimodal.fc.weight.t()).softmax(0)
    fused = (weights * stacked).sum(0)
    for m, v in zip(DIMS, views, strict=True):
        close(out.streams[m], v)
    close(out.streams["fused"], fused)
    close(out.logits, host.classifier(fused))


def test_sdt_gate_is_the_plugin_s():
    # Adapters may not import plugins; that both say the same is checked here.
    from fusionzoo_plugins.sdt_gate import UnimodalGate

    x = torch.randn(2, 3, 8)
    for learned in (True, False):
        ours, theirs = Gate(8, learned), UnimodalGate(8, learned)
        theirs.load_state_dict(ours.state_dict())
        close(ours(x), theirs(x))
        assert len(list(ours.parameters())) == len(list(theirs.parameters()))
    close(Gate(8, learned=False)(x), F.silu(x))


def test_sdt_placements_differ_in_what_meets_where():
    batch = make_batch([4])
    other = copy.copy(batch)
    other.features = {**batch.features, "audio": batch.features["audio"] + 1}
    late, intra = build(SDT), build(SDT, placement="intra")
    assert not torch.allclose(late(batch).streams["text"], late(other).streams["text"])
    # Within the modalities nothing knows of the others; the fusion joins them.
    close(intra(batch).streams["text"], intra(other).streams["text"])
    assert not torch.allclose(intra(batch).logits, intra(other).logits)
    assert len(list(build(SDT, placement="early").views)) == 1


def test_sdt_attention_maps_only_when_wanted():
    host, batch = build(SDT, heads=2), make_batch([4, 2])
    assert not host(batch).attention
    plain = host(batch).logits
    host.keep_attention = True
    out = host(batch)
    close(out.logits, plain)
    names = {f"{m}<-{n}" for m in DIMS for n in DIMS}
    assert names <= set(out.attention)
    weights = out.attention["text<-audio"]
    assert weights.shape == (2, 2, 4, 4)
    close(weights.sum(-1), torch.ones(2, 2, 4))
    assert (weights[1, ..., 2:] == 0).all()


@pytest.mark.parametrize("placement", ["late", "intra", "early"])
def test_sdt_packed_is_sdt_padded(placement):
    """With the maps wanted everything is padded, without them only real utterances go through the layers."""
    host, batch = build(SDT, heads=2, layers=2, placement=placement), make_batch([4, 1, 3], steps=6)
    first, second, _ = batch.features
    there = {m: batch.mask.clone() for m in batch.features}
    # One dialogue without the second modality at all, one without the first at some steps.
    there[second][0], there[first][2, 1:] = False, False
    batch.present = there
    results = []
    for kept in (False, True):
        host.keep_attention = kept
        host.zero_grad()
        logits = host(batch).logits
        logits[batch.mask].square().sum().backward()
        results.append([logits.detach(), *(p.grad.clone() for p in host.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1]) > 20
    for packed, padded in zip(*results, strict=True):
        close(packed, padded)


def test_sdt_students_in_the_host_or_in_the_objective():
    batch = make_batch([4, 2])
    objective = fusionzoo.get("self-distillation", kind="objective")
    host = build(SDT)
    torch.manual_seed(0)
    loss = objective(3, dropout=0.0)
    loss.bind(host)
    assert set(loss.names) == set(DIMS)
    out = host(batch)
    value = loss(out, batch)
    # The host's own students, given the objective's weights, are the same students.
    own = build(SDT, students=True)
    own.load_state_dict(host.state_dict(), strict=False)
    own.students.load_state_dict(loss.students.state_dict())
    bare = objective(3)
    bare.bind(own)
    assert not bare.names
    close(bare(own(batch), batch), value)
    assert own(batch).streams["audio.logits"].shape == (2, 4, 3)
    value.backward()
    assert all(p.grad is not None for p in host.views.parameters())


def test_sdt_official_embeds_the_padding_apart():
    host = build(SDT, variant="official")
    assert host.speaker_embedding.num_embeddings == 3
    assert (host.speaker_embedding.weight[2] == 0).all()
    batch = make_batch([4, 2])
    expected = host(batch).logits
    with torch.no_grad():
        host.speaker_embedding.weight[2] = 5.0
    close(host(batch).logits, expected)


def test_sdt_identity_gates_are_not_learnt():
    host = build(SDT, gate="identity")
    assert not [n for n, _ in host.named_parameters() if ".gates." in n]
    assert not list(build(SDT, gate="none").views[0].gates.parameters())
    assert build(SDT, dims={"text": 6}).views[0].reduce is None
    assert View(8, 2, "none", heads=2).reduce is not None


def test_sdt_official_weights_load_with_the_fusion_or_not_at_all():
    host = build(SDT, variant="official")
    before = copy.deepcopy(host.state_dict())
    with pytest.raises(ReferenceWeightsError, match="missing"):
        host.load_reference({"last_gate.fc.weight": torch.ones(8, 8)})
    assert all(torch.equal(x, before[k]) for k, x in host.state_dict().items())
