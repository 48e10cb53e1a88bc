"""What every host built on context encoders promises, whatever its placement and base."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo.batch import Batch
from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo.host import Host
from fusionzoo.testing.batches import dialogues
from fusionzoo.testing.comparisons import reached

DIMS = {"text": 6, "audio": 5, "visual": 4}
# A classifier this wide has no seed with which every unit of its ReLU is dead.
SMALL = {"hidden": 4, "head_width": 32, "dropout": 0.0}
GCN = {**SMALL, "graph_width": 5, "bases": 3, "window_past": 2, "window_future": 1}
RNN = {"base": "dialogue-rnn", "global_width": 4, "party_width": 3}

BUILDS = {
    **{f"bc-lstm {p}": ("bc-lstm", {**SMALL, "placement": p}) for p in ("late", "early", "early-residual")},
    "bc-lstm attention": ("bc-lstm", {**SMALL, "attention": True, "speaker_embedding": 3}),
    **{f"dialogue-gcn {p}": ("dialogue-gcn", {**GCN, "placement": p}) for p in ("early", "early-residual", "late")},
    **{f"dialogue-gcn {b}": ("dialogue-gcn", {**GCN, "base": b}) for b in ("gru", "none")},
    "dialogue-gcn dialogue-rnn": ("dialogue-gcn", {**GCN, **RNN}),
    "dialogue-gcn listeners": ("dialogue-gcn", {**GCN, **RNN, "listener_state": True, "context_attention": "concat"}),
    "dialogue-gcn unlimited": ("dialogue-gcn", {**GCN, "window_past": None, "window_future": None, "bases": None}),
    "dialogue-gcn no graph": ("dialogue-gcn", {**GCN, "graph": False}),
    "dialogue-gcn plain": ("dialogue-gcn", {**GCN, "nodal_attention": False, "neighbours": "add"}),
}


@pytest.fixture(params=BUILDS, ids=lambda name: name.replace(" ", "-"))
def host(request) -> Host:
    return build(request.param)


def build(name: str, dims=DIMS, fusion="concat", **options) -> Host:
    host, own = BUILDS[name]
    torch.manual_seed(0)
    return fusionzoo.get(host, kind="host")(dims, 3, 2, fusion=fusion, **{**own, **options}).eval()


def only(batch: Batch, row: int) -> Batch:
    """One dialogue of a batch, without padding."""
    n = batch.lengths_list()[row]

    def cut(x: Tensor) -> Tensor:
        return x[row : row + 1, :n]

    features = {m: cut(x) for m, x in batch.features.items()}
    present = None if batch.present is None else {m: cut(x) for m, x in batch.present.items()}
    return Batch(features, cut(batch.mask), cut(batch.speakers), cut(batch.labels), [batch.ids[row]], present, [n])


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_shapes_and_zero_padding(host):
    batch = dialogues([5, 1, 3], DIMS)
    out = host(batch)
    assert out.logits.shape == (3, 5, 3)
    assert torch.isfinite(out.logits).all()
    assert (out.logits[~batch.mask] == 0).all()
    assert {"fused", "context"} <= set(out.streams)


def test_padding_is_never_read(host):
    expected = host(dialogues([5, 1, 3], DIMS))
    poisoned = dialogues([5, 1, 3], DIMS, steps=9, fill=float("nan"))
    poisoned.speakers[:, 5:] = 1
    out = host(poisoned)
    close(out.logits[:, :5], expected.logits)
    assert (out.logits[:, 5:] == 0).all()
    host.train()
    host.zero_grad()
    host(poisoned).logits.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in host.parameters() if p.grad is not None)


def test_a_dialogue_does_not_depend_on_its_batch(host):
    batch = dialogues([5, 1, 3, 7], DIMS)
    together = host(batch).logits
    for row, n in enumerate(batch.lengths_list()):
        close(host(only(batch, row)).logits[0], together[row, :n])


def test_gradient_reaches_every_modality_and_parameter(host):
    host.train()
    batch = dialogues([6, 3], DIMS)
    for x in batch.features.values():
        x.requires_grad_()
    logits = host(batch).logits
    nn.functional.cross_entropy(logits.flatten(0, 1), torch.arange(12) % 3).backward()
    for m, felt in reached({m: x.grad for m, x in batch.features.items()}).items():
        assert felt[batch.mask].any(-1).all(), m
    without = [name for name, p in host.named_parameters() if p.grad is None]
    assert not without


def test_missing_modalities(host):
    batch = dialogues([5, 3], DIMS)
    whole = host(batch).logits
    absent = copy.copy(batch)
    absent.features = {m: x for m, x in batch.features.items() if m != "audio"}
    logits = host(absent).logits
    assert torch.isfinite(logits).all()
    assert not torch.allclose(logits, whole)
    # Missing everywhere by mask, with rubbish in the features, is the same as absent where a fusion stands in for both.
    masked = copy.copy(batch)
    masked.features = {**batch.features, "audio": torch.full_like(batch.features["audio"], float("nan"))}
    masked.present = {"audio": torch.zeros_like(batch.mask)}
    close(host(masked).logits, logits)
    half = copy.copy(batch)
    half.present = {"audio": torch.arange(5).expand(2, 5) % 2 == 0}
    alone = host(only(half, 1)).logits
    close(host(half).logits[1:, :3], alone)


def test_round_trips(host):
    batch = dialogues([4, 2], DIMS)
    expected = host(batch).logits
    fresh = copy.deepcopy(host)
    with torch.no_grad():
        for p in fresh.parameters():
            p.add_(1.0)
    assert not torch.allclose(fresh(batch).logits, expected)
    fresh.load_state_dict(host.state_dict(), strict=True)
    torch.testing.assert_close(fresh(batch).logits, expected, atol=0, rtol=0)
    again = pickle.loads(pickle.dumps(host))
    torch.testing.assert_close(again(batch).logits, expected, atol=0, rtol=0)


def test_speakers_matter(host):
    batch = dialogues([6], DIMS)
    expected = host(batch).logits
    batch.speakers = 1 - batch.speakers
    assert not torch.allclose(host(batch).logits, expected, atol=1e-6)


def test_without_graph_and_embedding_nobody_knows_the_speakers():
    host = build("dialogue-gcn no graph", speaker_embedding=False)
    batch = dialogues([6], DIMS)
    expected = host(batch).logits
    batch.speakers = 1 - batch.speakers
    torch.testing.assert_close(host(batch).logits, expected)


def test_more_speakers_than_the_host_was_built_for(host):
    batch = dialogues([6], DIMS)
    batch.speakers[0] = torch.tensor([0, 1, 2, 3, 1, 7])
    merged = copy.copy(batch)
    merged.speakers = batch.speakers.clamp(max=1)
    close(host(batch).logits, host(merged).logits)


def test_input_dropout_acts_in_training_only(host):
    name = next(
        k for k, v in BUILDS.items() if v[0] == ("bc-lstm" if "BcLSTM" in type(host).__name__ else "dialogue-gcn")
    )
    noisy = build(name, input_dropout=0.5)
    batch = dialogues([6], DIMS)
    torch.testing.assert_close(noisy(batch).logits, noisy(batch).logits, atol=0, rtol=0)
    noisy.train()
    assert not torch.allclose(noisy(batch).logits, noisy(batch).logits)


@pytest.mark.parametrize("name", ["bc-lstm late", "dialogue-gcn early"])
@pytest.mark.parametrize("fusion", ["concat", "gated", ("gated", {"missing": "learned"}), "sum"])
def test_takes_any_fusion(name, fusion):
    assert build(name, fusion=fusion)(dialogues([4, 2], DIMS)).logits.shape == (2, 4, 3)


@pytest.mark.parametrize("name", ["bc-lstm late", "dialogue-gcn early", "dialogue-gcn late"])
def test_takes_a_fusion_instance_with_its_own_names(name):
    widths = [8, 8, 8] if name.endswith("late") else list(DIMS.values())
    fusion = fusionzoo.get("gated")(widths, out_dim=7)
    host = build(name, fusion=fusion)
    assert host.fusion is fusion
    batch = dialogues([4, 2], DIMS)
    batch.present = {"audio": torch.arange(4).expand(2, 4) > 0}
    assert host(batch).logits.shape == (2, 4, 3)


@pytest.mark.parametrize("name", BUILDS)
def test_one_modality_needs_no_fusion(name):
    host = build(name, dims={"text": 6})
    assert host.fusion is None
    assert host(dialogues([4, 2], {"text": 6})).logits.shape == (2, 4, 3)


@pytest.mark.parametrize("name", ["bc-lstm attention", "dialogue-gcn early", "dialogue-gcn no graph"])
def test_official_variant_loads_only_what_it_knows(name):
    host = build(name, dims={"text": 6}, variant="official")
    official = {
        f"{prefix}{key}": torch.randn_like(value) if value.is_floating_point() else value
        for prefix, module in _official_parts(host).items()
        for key, value in module.state_dict().items()
    }
    host.load_reference(official)
    for prefix, module in _official_parts(host).items():
        for key, value in module.state_dict().items():
            torch.testing.assert_close(value, official[prefix + key], atol=0, rtol=0)
    before = copy.deepcopy(host.state_dict())
    with pytest.raises(ReferenceWeightsError, match=r"other\.weight"):
        host.load_reference({**official, "other.weight": torch.zeros(2)})
    short = dict(list(official.items())[:-1])
    with pytest.raises(ReferenceWeightsError, match="missing"):
        host.load_reference({k: v + 1 for k, v in short.items()})
    assert all(torch.equal(v, before[k]) for k, v in host.state_dict().items())
    with pytest.raises(ReferenceWeightsError, match="official"):
        build(name, dims={"text": 6}).load_reference(official)
    with pytest.raises(ReferenceWeightsError, match="early"):
        build(name, placement="late", variant="official").load_reference(official)


def _official_parts(host) -> dict[str, nn.Module]:
    return {prefix: host.get_submodule(path) for prefix, path in host.reference_names().items()}


def test_official_variant_has_no_speaker_embedding_and_reads_padding():
    host = build("bc-lstm late", variant="official")
    assert host.speaker_embedding is None
    batch = dialogues([2], DIMS, steps=4)
    assert not torch.allclose(host(batch).logits[:, :2], host(only(batch, 0)).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bc-lstm late", {"hiden": 3}, "hidden"),
        ("bc-lstm late", {"placement": "middle"}, "placement"),
        ("bc-lstm late", {"variant": "paper"}, "variant"),
        ("bc-lstm late", {"dropout": 1.5}, "dropout"),
        ("bc-lstm late", {"speaker_embedding": -2}, "speaker_embedding"),
        ("dialogue-gcn early", {"base": "rnn"}, "base"),
        ("dialogue-gcn early", {"window_past": -2}, "window_past"),
        ("dialogue-gcn early", {"bases": 0}, "bases"),
        ("dialogue-gcn early", {"edge_norm": False}, "edge_norm"),
        ("dialogue-gcn early", {"neighbours": "max"}, "neighbours"),
        ("dialogue-gcn dialogue-rnn", {"context_attention": "generl"}, "general"),
        ("dialogue-gcn dialogue-rnn", {"context_attention": "dot"}, "equal widths"),
    ],
)
def test_impossible_options_are_named(name, options, message):
    with pytest.raises(OptionError, match=message):
        build(name, **options)


def test_official_slots_are_limited_and_say_so():
    host = build("dialogue-gcn early", variant="official", max_seq_len=4)
    with pytest.raises(ShapeError, match="max_seq_len=5"):
        host(dialogues([5], DIMS))
    assert build("dialogue-gcn early")(dialogues([150], DIMS)).logits.shape == (1, 150, 3)


def test_the_forward_pass_waits_for_no_device():
    # On the meta device there are no values: whatever asks for one (item, nonzero, a boolean index) raises.
    for name in ("bc-lstm late", "dialogue-gcn early", "dialogue-gcn late", "dialogue-gcn dialogue-rnn"):
        host = build(name).to("meta")
        batch = dialogues([5, 3, 1], DIMS).to("meta")
        assert host(batch).logits.shape == (3, 5, 3)
