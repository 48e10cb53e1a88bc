"""Kinds of joins: each says how it is told, what its streams are, and where the fused stream goes back."""

from __future__ import annotations

import meeting_hosts
import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo.errors import ModalityError
from fusionzoo.patching.fuse import joins
from fusionzoo.patching.fuse.layer import Plan

T, A = torch.randn(3, 4, 6), torch.randn(3, 4, 6)
#: Kind -> operands, what the host computes from them, axis, and the width of what goes back.
CASES = {
    "cat": ([T, A], lambda xs: torch.cat(xs, -1), 2, 12),
    "rows": ([T, A], lambda xs: torch.cat(xs, 1), 1, 6),
    "slots": ([T[:, :1], A[:, :1]], lambda xs: torch.cat(xs, 1), 1, 6),
    "stack": ([T, A], lambda xs: torch.stack(xs, 1), 1, 6),
    "sum": ([T, A], lambda xs: xs[0] + xs[1], None, 6),
    "product": ([T, A], lambda xs: xs[0] * xs[1], None, 6),
    "outer": ([T[:, 0], A[:, 0]], lambda xs: torch.einsum("bi,bj->bij", *xs), None, 36),
    "cross-attention": ([T, A], lambda xs: xs[0], None, 6),
}


def plan(kind, operands, axis, width):
    groups = {m: (i,) for i, m in enumerate(("text", "audio"))}
    return Plan(
        kind,
        "residual",
        groups,
        {"text": 6, "audio": 6},
        len(operands),
        axis,
        -1,
        "(B, T, d)",
        width,
        False,
        "",
        False,
        "",
    )


@pytest.mark.parametrize("name", CASES)
def test_streams_and_the_way_back(name):
    operands, compute, axis, width = CASES[name]
    target = compute(operands)
    place = plan("rows" if name == "slots" else name, operands, axis, width)
    join = place.join.as_given(place, operands, (torch.cat, [operands], {}))
    groups = join.places(place, len(operands))
    parts = {m: [operands[i] for i in where] for m, where in groups.items()}
    streams = join.streams(place, parts, target)
    assert [x.shape[-1] for x in streams] == [6, 6]
    assert all(torch.equal(x.flatten(), o.flatten()) for x, o in zip(streams, operands, strict=True))
    lead = target.shape[:1] if name == "outer" else streams[0].shape[:-1]
    names = ("text", "audio") if join.separate else ("joined",)
    fused = {m: torch.full((*lead, width), 1.0 + i) for i, m in enumerate(names)}
    back = join.put_back(place, target, operands, groups, fused)
    assert back.shape == target.shape
    if join.separate:  # each modality's own rows hold what was fused for it
        assert torch.equal(back, compute([torch.full_like(o, 1.0 + i) for i, o in enumerate(operands)]))
    else:
        assert torch.equal(back, torch.ones_like(target))


def test_every_operation_is_of_one_kind():
    names = [name for join in joins.KINDS for name in join.operations]
    assert len(names) == len(set(names))
    assert all(joins.JOINS[join.kind] is join for join in joins.KINDS)


class Length(joins.SideBySide):
    """A kind that the package does not have: the length of the vector of two values."""

    kind, weight, direct = "length", 20, False
    operations = ("hypot",)


class Host(nn.Module):
    def __init__(self):
        super().__init__()
        self.t, self.a, self.head = nn.Linear(6, 8), nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, text, audio):
        return self.head(torch.hypot(self.t(text), self.a(audio)))


def test_a_new_kind_is_a_class_and_nothing_else(monkeypatch, shake, tmp_path):
    model, batch = Host(), (torch.randn(4, 6), torch.randn(4, 5))
    with pytest.raises(fusionzoo.NoSiteError):
        fusionzoo.find_sites(model, *batch)
    monkeypatch.setitem(joins.JOINS, "length", Length())
    monkeypatch.setitem(joins.OPERATIONS, "hypot", joins.JOINS["length"])
    expected = model(*batch)
    patch = fusionzoo.patch(model, "lmam", inputs=batch)
    assert (patch.site.kind, patch.site.widths) == ("length", {"text": 8, "audio": 8})
    assert torch.equal(model(*batch), expected)
    shake(patch)
    changed = model(*batch)
    assert not torch.equal(changed, expected)
    patch.save(tmp_path / "p.safetensors")
    patch.remove()
    fusionzoo.load_patch(model, tmp_path / "p.safetensors")
    assert torch.equal(model(*batch), changed)


@pytest.mark.parametrize("host", meeting_hosts.HOSTS, ids=lambda c: c.__name__)
@pytest.mark.filterwarnings("ignore:.*looks across steps")
def test_where_streams_meet(host, build, shake, tmp_path):
    torch.manual_seed(0)
    model, batch = host(), host.calls()
    model.eval()
    expected, state = model(*batch), torch.get_rng_state()
    patch = fusionzoo.patch(model, "lmam", inputs=batch, modalities=getattr(host, "names", None))
    assert (patch.site.kind, patch.site.layout, patch.site.widths) == (host.kind, host.layout, host.widths)
    assert not patch.proof.broken()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model(*batch).view(torch.int32), expected.view(torch.int32))

    shake(patch)
    model.train()
    model(*batch).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in patch.layer.out.parameters())
    assert any(p.grad is not None and p.grad.any() for n, p in model.named_parameters() if "fusionzoo" not in n)
    model.eval()
    changed = model(*batch)
    assert not torch.equal(changed, expected)
    other = [x.clone() for x in batch]
    for x in other:
        if x.is_floating_point():
            x[:, 0] += host is meeting_hosts.StackedInFront
            x[0] += host is not meeting_hosts.StackedInFront
    assert torch.allclose(model(*other)[1:], changed[1:], atol=1e-5)

    saved = patch.save(tmp_path / "patch.safetensors")
    patch.remove()
    assert torch.equal(model(*batch), expected)
    fusionzoo.load_patch(model, saved)
    assert torch.equal(model(*batch), changed)


def awake(host, fusion, **how):
    """A patched model whose fusion is felt."""
    torch.manual_seed(0)
    model, batch = host().eval(), host.calls()
    patch = fusionzoo.patch(model, fusion, inputs=batch, **how)
    for p in patch.layer.out.parameters():
        nn.init.normal_(p)
    return model, batch


@pytest.mark.filterwarnings("ignore:.*looks across steps")
def test_rows_that_were_written_see_nothing_of_later_ones():
    model, (ids, pictures) = awake(meeting_hosts.Writer, "gated")
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % meeting_hosts.IMAGE
    assert ids[0, -1] != meeting_hosts.IMAGE
    moved = (model(ids, pictures) - model(other, pictures)).abs().amax(-1) > 0
    assert moved[0, -1]
    assert not moved[0, :-1].any()


@pytest.mark.filterwarnings("ignore:.*looks across steps")
@pytest.mark.parametrize("mode", ["residual", "replace"])
def test_samples_into_which_nothing_was_written_stay_as_they_are(mode):
    host = meeting_hosts.Scattered
    model, (ids, pictures) = awake(host, "lmam", mode=mode)
    ids[0] = 1
    torch.manual_seed(0)
    bare = host().eval()
    moved = (model(ids, pictures[1:]) - bare(ids, pictures[1:])).abs().amax((1, 2))
    assert moved[0] == 0
    assert (moved[1:] > 0).all()


class Noted(nn.Module):
    def __init__(self):
        super().__init__()
        self.order = []

    def note(self, name, value):
        self.order.append(name)
        return value

    def forward(self, text, audio):
        both = torch.cat([text, text], 1)
        self.note("target", both)[:, self.note("index", text.shape[1]) :] = self.note("value", audio)
        return both


@pytest.mark.filterwarnings("ignore:.*looks across steps")
def test_an_item_is_assigned_in_pythons_order():
    model, batch = Noted(), (torch.randn(3, 4, 6), torch.randn(3, 4, 6))
    patch = fusionzoo.patch(model, "lmam", inputs=batch)
    assert (patch.site.kind, patch.site.how) == ("written", "rewrite")
    model.order.clear()
    model(*batch)
    assert model.order == ["value", "target", "index"]


class PairFirst(nn.Module):
    def forward(self, text, audio, visual):
        return torch.cat([text + audio, visual], -1)


def test_a_site_says_how_many_modalities_it_leaves_out():
    sites = fusionzoo.find_sites(PairFirst(), *(torch.randn(4, 6) for _ in range(3)))
    assert [site.kind for site in sites] == ["cat", "sum"]
    assert "of the model's" not in str(sites[0])
    assert str(sites[1]).endswith("; 2 of the model's 3 modalities")


@pytest.mark.parametrize(
    ("shape", "said"), [((4, 3, 7), "none of its axes has 2"), ((2, 2, 7), "2 of its axes have 2")]
)
def test_names_of_a_stack_need_one_axis_of_as_many_places(shape, said):
    with pytest.raises(ModalityError, match=said):
        fusionzoo.find_sites(meeting_hosts.Stacked(), torch.randn(shape), modalities={"x": ["text", "audio"]})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*looks across steps")
@pytest.mark.parametrize("host", [meeting_hosts.Scattered, meeting_hosts.AssignedByMask, meeting_hosts.OuterOfAll])
def test_what_was_written_is_compiled(host):
    model, batch = awake(host, "gated")
    expected = model(*batch)
    assert torch.allclose(torch.compile(model, backend="eager")(*batch), expected, atol=1e-5)


class Glimpses(nn.Module):
    def __init__(self):
        super().__init__()
        self.scores, self.see = nn.Linear(6, 2), nn.Linear(12, 6)

    def forward(self, text, visual):
        weights = self.scores(torch.relu(text.unsqueeze(1) * visual)).softmax(1)
        seen = torch.cat([(w.unsqueeze(2) * visual).sum(1) for w in weights.unbind(2)], 1)
        return text * self.see(seen)


def test_two_glimpses_of_one_mixture_go_behind_what_they_meet():
    sites = fusionzoo.find_sites(Glimpses(), torch.randn(3, 6), torch.randn(3, 7, 6))
    kinds = [(site.kind, site.modalities) for site in sites]
    assert kinds.index(("product", ("text", "text+visual"))) < kinds.index(("cat", ("text+visual", "text+visual2")))


class Scored(nn.Module):
    """What goes with what is scored by a sum; what is heard and what is seen meet in another one."""

    def __init__(self):
        super().__init__()
        self.a, self.v, self.h = nn.Linear(8, 6), nn.Linear(12, 6), nn.Linear(6, 1)
        self.hear, self.see, self.u, self.head = nn.Linear(8, 5), nn.Linear(12, 5), nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, audio, video):  # (B, T, d), (B, T, places, d)
        scores = self.h(torch.tanh(self.v(video) + self.a(audio).unsqueeze(2)))
        a, v = self.hear(audio), self.see((self.weights(scores) * video).sum(2))
        return self.head(0.5 * (self.u(a) + self.u(v)) + v)

    def weights(self, scores):
        return scores.softmax(2)


class Told(Scored):
    """The same, with shares as its output: a softmax that weighs nothing."""

    def forward(self, audio, video):
        return super().forward(audio, video).softmax(-1)


@pytest.mark.parametrize("host", [Scored, Told])
def test_scores_go_behind_what_they_weigh(host):
    site = fusionzoo.find_sites(host(), torch.randn(3, 10, 8), torch.randn(3, 10, 7, 12))[0]
    assert site.modalities == ("audio", "audio+visual")


def test_a_gate_by_sigmoid_weighs_nothing_away():
    host = type("Gated", (Scored,), {"weights": lambda self, scores: scores.sigmoid()})
    site = fusionzoo.find_sites(host(), torch.randn(3, 10, 8), torch.randn(3, 10, 7, 12))[0]
    assert set(site.modalities) == {"audio", "visual"}


WRITTEN = """
def written(self, x, ids, pictures):
    x = x.clone()
    x[ids == 9] = pictures.flatten(0, 1)
    return x
"""


@pytest.mark.filterwarnings("ignore:.*looks across steps")
def test_an_item_is_assigned_in_code_without_source(shake):
    code = {}
    exec(WRITTEN, code)
    host = type("WithoutSource", (meeting_hosts.AssignedByMask,), {"written": code["written"]})
    torch.manual_seed(0)
    model, batch = host().eval(), host.calls()
    expected = model(*batch)
    patch = fusionzoo.patch(model, "lmam", inputs=batch)
    assert (patch.site.kind, patch.site.how) == ("written", "intercept")
    assert torch.equal(model(*batch), expected)
    shake(patch)
    assert not torch.equal(model(*batch), expected)
    patch.remove()
    assert torch.equal(model(*batch), expected)
