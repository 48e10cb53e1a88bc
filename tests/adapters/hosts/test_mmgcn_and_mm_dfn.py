"""MMGCN and MM-DFN: what their blocks, their speakers' recurrence and their placements compute."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from fusionzoo import kernels
from fusionzoo.batch import Batch
from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.graphs import GCNII, GCNIIConv, angular_graph
from fusionzoo.kernels.dropout import dropout
from fusionzoo.kernels.graph_blocks import ModalBuckets, propagate
from fusionzoo.kernels.packing import Packing
from fusionzoo.testing.batches import dialogues
from fusionzoo.testing.comparisons import reached
from fusionzoo_adapters.hosts.mm_dfn import MMDFN
from fusionzoo_adapters.hosts.mmgcn import MMGCN
from fusionzoo_adapters.parts.speaker_recurrence import PartyContext

DIMS = {"text": 6, "audio": 5, "visual": 4}
SMALL = {"hidden": 4, "graph_width": 5, "depth": 2, "dropout": 0.0}
LENGTHS = [5, 1, 3, 9, 8]
HOSTS = [MMGCN, MMDFN]


def build(cls, dims=DIMS, **options):
    torch.manual_seed(0)
    return cls(dims, 3, 2, **{**SMALL, **options}).eval()


def layout_of(lengths: list[int], steps: int | None = None) -> tuple[Packing, Tensor]:
    steps = steps or max(lengths)
    return Packing(lengths, steps, torch.device("cpu")), torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


# -- blocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
def test_blocks_equal_one_dense_matrix_a_dialogue(dynamic):
    torch.manual_seed(0)
    gcn = GCNII(6, 4, 3, dynamic=dynamic).eval()
    layout, mask = layout_of(LENGTHS, 11)
    xs = [torch.randn(len(LENGTHS), 11, 6) for _ in range(3)]
    present = [mask, mask & (torch.arange(11) % 2 == 0), mask]
    out = propagate(gcn, xs, present, layout, across=0.7)
    maps: dict[str, Tensor] = {}
    for y, whole in zip(out, propagate(gcn, xs, present, layout, 0.7, maps), strict=True):
        close(y, whole)
    assert maps["edges"].shape == (5, 3, 11, 11)
    for b, n in enumerate(LENGTHS):
        nodes = torch.stack([x[b, :n] for x in xs])[None]
        there = torch.stack([p[b, :n] for p in present], -1)[None]
        dense = angular_graph(nodes, there, 0.7).dense()[0]
        expected = gcn(nodes[0].flatten(0, 1), dense).view(3, n, -1)
        for m in range(3):
            close(out[m][b, :n], torch.where(there[0, :, m, None], expected[m], 0.0))
            assert (out[m][b, n:] == 0).all()


@pytest.mark.parametrize("variant", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_a_layer_of_gcnii_is_the_papers_equation(variant, residual):
    torch.manual_seed(0)
    conv = GCNIIConv(5, 3, lam=0.7, alpha=0.3, variant=variant, residual=residual).double()
    x, initial = torch.randn(2, 7, 5, dtype=torch.float64)
    graph, theta = torch.rand(7, 7, dtype=torch.float64), math.log(0.7 / 3 + 1)
    mixed = 0.7 * (graph @ x) + 0.3 * initial
    support = torch.cat([graph @ x, initial], -1) if variant else mixed
    expected = theta * support @ conv.weight + (1 - theta) * mixed + residual * x
    torch.testing.assert_close(conv(x, graph, initial), expected)


def test_buckets_round_trip_and_bound_the_squares():
    lengths = [20, 110, 33, 64, 100, 21, 77, 1]
    layout, mask = layout_of(lengths)
    buckets = ModalBuckets(layout, 2)
    xs = [torch.randn(len(lengths), 110, 3) * mask.unsqueeze(-1) for _ in range(2)]
    for x, back in zip(xs, buckets.unpack(buckets.pack(xs)), strict=True):
        torch.testing.assert_close(back, x, atol=0, rtol=0)
    entries = sum(b * t * t for b, t in buckets.shapes)
    assert entries <= sum(n * n for n in lengths) / 0.75**2
    assert sorted(buckets.order) == list(range(len(lengths)))


# -- speakers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads_padding", [False, True])
@pytest.mark.parametrize("parties", [2, 4])
def test_each_speaker_is_read_alone(reads_padding, parties):
    torch.manual_seed(0)
    layer = PartyContext(3, 2, 2, reads_padding=reads_padding).eval()
    lengths, steps = [6, 1, 4], 8
    _, mask = layout_of(lengths, steps)
    speakers = torch.randint(parties, (3, steps))
    xs = [torch.randn(3, steps, 3) for _ in range(2)]
    out = layer(xs, mask, speakers, parties)
    for x, y in zip(xs, out, strict=True):
        assert (y[~mask] == 0).all()
        for b, n in enumerate(lengths):
            for p in range(parties):
                own = [t for t in range(n) if speakers[b, t] == p]
                if own:
                    # Officially zeros follow, up to the padded length.
                    sequence = x[b, own]
                    if reads_padding:
                        sequence = torch.cat([sequence, torch.zeros(steps - len(own), 3)])
                    close(y[b, own], layer.rnn(sequence[None])[0][0, : len(own)])


def test_a_speaker_weight_of_zero_leaves_the_recurrence_out():
    batch = dialogues([4, 2], DIMS)
    host = build(MMDFN, speaker_weights=(0, 0, 0))
    assert host.parties is None
    one = build(MMDFN, speaker_weights=(0, 0, 1))
    assert one.parties is not None
    assert not torch.allclose(one(batch).logits, host(batch).logits)
    assert build(MMDFN, placement="early").party_weights == [1.0]


# -- dropout -----------------------------------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_drops_the_share():
    torch.manual_seed(0)
    x = torch.ones(501, 799, requires_grad=True)
    y = dropout(x, 0.4, True)
    assert abs(float((y == 0).float().mean()) - 0.4) < 0.01
    assert abs(float(y.detach().mean()) - 1) < 0.01
    kept = y.detach() > 0
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / 0.6), atol=1e-4, rtol=0)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    # Neighbours share a draw and must not share its outcome.
    for lag in (1, 2, 3, 4):
        together = (kept.flatten()[lag:] & kept.flatten()[:-lag]).float().mean()
        assert abs(float(together) - 0.36) < 0.01
    assert dropout(x, 0.4, False) is x
    assert (dropout(x, 1.0, True) == 0).all()
    torch.testing.assert_close(dropout(x, 0.0, True), x)


# -- hosts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", HOSTS)
def test_the_default_depends_on_no_padding_and_no_batch(cls):
    host = build(cls, layers=2, context="all", modal_embedding=True)
    batch = dialogues(LENGTHS, DIMS)
    logits = host(batch).logits
    for row, n in enumerate(LENGTHS):
        alone = {m: x[row : row + 1, :n] for m, x in batch.features.items()}
        cut = (t[row : row + 1, :n] for t in (batch.mask, batch.speakers, batch.labels))
        mask, speakers, labels = cut
        close(host(Batch(alone, mask, speakers, labels, ["x"], None, [n])).logits[0], logits[row, :n])


@pytest.mark.parametrize("cls", HOSTS)
@pytest.mark.parametrize("placement", ["late", "pre-graph", "early"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_modalities(cls, placement, count):
    dims = {f"m{i}": 3 + i for i in range(count)}
    host = build(cls, dims, placement=placement, fusion="gated")
    out = host(dialogues([4, 2], dims))
    assert out.logits.shape == (2, 4, 3)
    assert out.attention == {}
    several = count > 1 and placement != "early"
    assert (set(dims) <= set(out.streams)) == (several or count == 1)
    host.keep_attention = True
    edges = host(dialogues([4, 2], dims)).attention["edges"]
    nodes = 1 if not several else count + (placement == "pre-graph")
    assert edges.shape == (2, nodes, 4, 4)


@pytest.mark.parametrize("cls", HOSTS)
@pytest.mark.parametrize("graph", ["modal", "deep", "relation", "none"])
@pytest.mark.parametrize("variant", ["default", "official"])
def test_every_graph_at_every_placement(cls, graph, variant):
    for placement in cls.placements:
        # So wide that not every unit of a ReLU is dead.
        host = build(cls, graph=graph, placement=placement, variant=variant, graph_width=32).train()
        batch = dialogues([4, 2], DIMS)
        for x in batch.features.values():
            x.requires_grad_()
        nn.functional.cross_entropy(host(batch).logits.flatten(0, 1), torch.arange(8) % 3).backward()
        for m, felt in reached({m: x.grad for m, x in batch.features.items()}).items():
            assert felt[batch.mask].any(), m


@pytest.mark.parametrize("cls", HOSTS)
def test_an_absent_modality_has_no_node(cls):
    host = build(cls)
    batch = dialogues([5, 3], DIMS)
    absent = copy.copy(batch)
    absent.features = {m: x for m, x in batch.features.items() if m != "audio"}
    masked = copy.copy(batch)
    masked.features = {**batch.features, "audio": torch.full_like(batch.features["audio"], torch.nan)}
    masked.present = {"audio": torch.zeros_like(batch.mask)}
    close(host(masked).logits, host(absent).logits)
    host.keep_attention = True
    edges = host(masked).attention
    assert (edges["edges"][:, 1] == 0).all()
    assert (edges["edges.across"][:, 1] == 0).all()
    assert (edges["edges"][:, 0].diagonal(dim1=1, dim2=2)[batch.mask] > 0).all()


@pytest.mark.parametrize("cls", HOSTS)
def test_the_forward_pass_waits_for_no_device(cls):
    # On the meta device there are no values: whatever asks for one raises.
    for options in ({}, {"placement": "pre-graph"}, {"graph": "deep"}, {"graph": "relation"}):
        host = build(cls, **options).to("meta")
        batch = dialogues([5, 3, 1], DIMS).to("meta")
        with kernels.use("fast"):  # torch's packed sequences do wait
            assert host(batch).logits.shape == (3, 5, 3)


def _official_state(host) -> dict[str, Tensor]:
    """Random official weights for a host, with the entries that take no part."""
    parts = {prefix: host.get_submodule(path) for prefix, path in host.reference_names().items()}
    torch.manual_seed(3)
    made = {f"{p}{k}": torch.randn_like(v) for p, m in parts.items() for k, v in m.state_dict().items()}
    return {**made, "att_model.scalar.weight": torch.zeros(1), "gatedatt.transform_a.bias": torch.zeros(1)}


@pytest.mark.parametrize("cls", HOSTS)
def test_official_weights_fit_concatenations_in_any_order(cls):
    official = ("audio", "visual", "text")
    weights = {"speaker_weights": 0.5} if cls is MMDFN else {}
    host = build(cls, {m: DIMS[m] for m in official}, anchor="text", variant="official", **weights)
    state = _official_state(host)
    host.load_reference(state)
    ours = build(cls, variant="official", **weights)
    ours.load_reference(state)
    batch = dialogues([4, 2], DIMS)
    close(ours(batch).logits, host(batch).logits)
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises(ReferenceWeightsError, match=r"other\.weight"):
        ours.load_reference({**state, "other.weight": torch.zeros(2)})
    with pytest.raises(ReferenceWeightsError, match="missing"):
        ours.load_reference({k: v + 1 for k, v in state.items() if k != "smax_fc.bias"})
    assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
    with pytest.raises(ReferenceWeightsError, match="official"):
        build(cls).load_reference(state)
    with pytest.raises(ReferenceWeightsError, match="pre-graph"):
        build(cls, variant="official", placement="pre-graph").load_reference(state)
    other = build(cls, {"text": 6, "thermal": 4}, variant="official")
    with pytest.raises(ReferenceWeightsError, match="thermal"):
        other.load_reference(state)
    single = build(cls, {"text": 6}, variant="official")
    with pytest.raises(ReferenceWeightsError, match="two modalities"):
        single.load_reference(state)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (MMGCN, {"graph": "mmgcn"}, "modal"),
        (MMGCN, {"anchor": "words"}, "anchor"),
        (MMGCN, {"context": "some"}, "context"),
        (MMGCN, {"depth": 0}, "depth"),
        (MMGCN, {"graph_width": -1}, "graph_width"),
        (MMGCN, {"input_width": 5}, "single stream"),
        (MMGCN, {"placement": "early", "context": "none", "input_width": 5}, "twice hidden"),
        (MMGCN, {"placement": "middle"}, "placement"),
        (MMGCN, {"dropout": 2.0}, "dropout"),
        (MMDFN, {"speaker_weights": "3-0-1"}, r"\(3, 0, 1\)"),
        (MMDFN, {"speaker_weights": (1, 2)}, "text, audio, visual"),
        (MMDFN, {"across": -1.0}, "across"),
        (MMDFN, {"depht": 3}, "depth"),
    ],
)
def test_impossible_options_are_named(cls, options, message):
    with pytest.raises(OptionError, match=message):
        build(cls, **options)
