"""SDT and MultiEMO: their formulas, their variants, what their objectives find, and what they refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fusionzoo
from fusionzoo import kernels
from fusionzoo.batch import Batch
from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.testing import check_host
from fusionzoo_adapters.hosts.multiemo import MultiEMO, UnimodalContext
from fusionzoo_adapters.hosts.sdt import SDT, Gate, View

DIMS = {"text": 6, "audio": 5, "visual": 4}
SMALL = {"width": 8, "dropout": 0.1}
ATTENTION = ("multi-attn", {"layers": 1, "heads": 2, "hidden": 8})

#: Options under which each host is checked; every set must pass.
PASS = {
    SDT: [
        {**SMALL, "heads": 2},
        {**SMALL, "placement": "intra", "layers": 2, "gate": "identity"},
        {**SMALL, "placement": "early", "speaker_embedding": False, "gate": "none", "hidden": 5},
    ],
    MultiEMO: [
        {**SMALL, "fusion": ATTENTION},
        {
            **SMALL,
            "fusion": "concat",
            "hidden": 5,
            "global_width": 6,
            "party_width": 7,
            "directions": 1,
            "anchor_context": False,
            "listener_state": True,
            "context_attention": "general",
            "head_width": 32,
        },
        {**SMALL, "fusion": "concat", "placement": "early", "head_width": 32, "speaker_embedding": 3},
    ],
}
_READ = "the official fusion attends to padded utterances"
#: Host -> (options, {check that fails: why}). Exactly these fail.
OFFICIAL = {
    SDT: (
        {**SMALL, "variant": "official"},
        {"gradient_to_parameters": "the students' logits are for an objective: prediction does without them"},
    ),
    MultiEMO: (
        {**SMALL, "variant": "official", "fusion": ATTENTION},
        dict.fromkeys(("padding_length", "batch_size"), _READ),
    ),
}


def make_batch(lengths: list[int], dims=DIMS, steps: int | None = None, fill: float = 0.0, seed: int = 1) -> Batch:
    """Random dialogues of two speakers; what one holds depends on its number and `seed` only."""
    steps = steps or max(lengths)
    mask = torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)
    features = {m: torch.full((len(lengths), steps, d), fill) for m, d in dims.items()}
    speakers = torch.zeros(len(lengths), steps, dtype=torch.long)
    for b, n in enumerate(lengths):
        generator = torch.Generator().manual_seed(100 * seed + b)
        for m, d in dims.items():
            features[m][b, :n] = torch.randn(n, d, generator=generator)
        speakers[b, :n] = torch.randint(2, (n,), generator=generator)
    labels = (torch.arange(len(lengths) * steps).view(mask.shape) % 3).masked_fill(~mask, -100)
    return Batch(features, mask, speakers, labels, [str(b) for b in range(len(lengths))], None, lengths)


def build(cls, dims=DIMS, **options):
    torch.manual_seed(0)
    return cls(dims, 3, 2, **{**SMALL, **options}).eval()


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", PASS)
def test_conformance(cls):
    check_host(cls, options=PASS[cls]).raise_if_failed()


@pytest.mark.parametrize("cls", OFFICIAL)
def test_what_the_official_variant_cannot_keep(cls):
    options, failures = OFFICIAL[cls]
    results = check_host(cls, options=options, expected_failures=failures)
    results.raise_if_failed()
    assert {r.check for r in results.expected} == set(failures)


# -- SDT ---------------------------------------------------------------------------------------------------------------


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


# -- MultiEMO ----------------------------------------------------------------------------------------------------------


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
    from fusionzoo_adapters.parts import published_fusion as _published

    with kernels.use("fast"):
        assert not _published.worth_grouping([100] * 16, 100, 4)
        assert not _published.worth_grouping([5, 3, 1], 5, 4)
        assert _published.worth_grouping(list(range(20, 100, 5)), 95, 4)
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


# -- both --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", PASS)
def test_one_modality_has_no_fusion(cls):
    batch = make_batch([3, 1], {"text": 6})
    host = build(cls, dims={"text": 6}, fusion="lmam")
    assert host.fusion is None
    assert host(batch).logits.shape == (2, 3, 3)
    assert "fused" in host(batch).streams


@pytest.mark.parametrize("cls", PASS)
def test_a_missing_modality_is_one_that_is_masked(cls):
    host, batch = build(cls, fusion="gated"), make_batch([4, 2])
    absent = copy.copy(batch)
    absent.features = {m: x for m, x in batch.features.items() if m != "audio"}
    masked = copy.copy(batch)
    masked.features = {**batch.features, "audio": torch.full_like(batch.features["audio"], torch.nan)}
    masked.present = {"audio": torch.zeros_like(batch.mask)}
    close(host(masked).logits, host(absent).logits)
    assert "audio" not in host(absent).streams or not host(absent).streams["audio"].any()


@pytest.mark.parametrize("cls", PASS)
def test_a_fusion_instance_brings_its_width(cls):
    fusion = fusionzoo.get("concat")(dict.fromkeys(DIMS, 8), 11)
    host = build(cls, fusion=fusion)
    assert host.fusion is fusion
    assert host(make_batch([3])).streams["fused"].shape[-1] == 11


@pytest.mark.parametrize(
    ("cls", "options", "word"),
    [
        (SDT, {"heads": 3}, "heads"),
        (SDT, {"gate": "open"}, "gate"),
        (SDT, {"layers": 0}, "layers"),
        (SDT, {"variant": "paper"}, "variant"),
        (MultiEMO, {"directions": 3}, "directions"),
        (MultiEMO, {"speaker_embedding": -1}, "speaker_embedding"),
        (MultiEMO, {"state_dropout": 1.5}, "state_dropout"),
        (MultiEMO, {"context_attention": "general3"}, "context_attention"),
    ],
)
def test_refused_options(cls, options, word):
    with pytest.raises(OptionError, match=word):
        build(cls, **options)


@pytest.mark.parametrize("cls", PASS)
def test_official_weights_are_refused_where_they_do_not_fit(cls):
    with pytest.raises(ReferenceWeightsError, match="official"):
        build(cls).load_reference({})
    official = build(cls, variant="official", fusion="concat")
    with pytest.raises(ReferenceWeightsError, match="missing"):
        official.load_reference({})
    with pytest.raises(ReferenceWeightsError, match="nonsense"):
        official.load_reference({"nonsense.weight": torch.zeros(1)})
