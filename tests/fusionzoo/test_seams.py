"""Where the fusion sits in a host: seams, on a host of a few lines."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo.batch import Batch
from fusionzoo.errors import OptionError
from fusionzoo.host import Host
from fusionzoo.seams import joined

DIMS = {"text": 6, "audio": 5, "visual": 4}
WIDTH = 3


class Tiny(Host):
    """One linear map per stream between two seams. Source: these tests."""

    placements = ("late", "early", "early-residual", "late-residual", "pre-graph", "parallel")

    def __init__(self, dims, num_classes, num_speakers, fusion="concat", placement=None, *, fusion_width=None):
        super().__init__(dims, num_classes, num_speakers, fusion, placement, fusion_width=fusion_width)
        widths = self.seam("early", self.dims)
        widths = self.seam("parallel", widths, 7, kind="around")
        self.maps = nn.ModuleList(nn.Linear(w, WIDTH) for w in widths.values())
        widths = self.rejoin(dict.fromkeys(widths, WIDTH))
        widths = self.seam("pre-graph", widths, WIDTH, kind="beside")
        self.widths = widths = self.seam("late", widths, "sum")
        self.head = nn.Linear(sum(widths.values()), self.num_classes)

    def run(self, streams, dialogues):
        streams = self.fuse_at("early", streams, dialogues)
        streams = self.fuse_at("parallel", streams, dialogues)
        mapped = zip(self.maps, streams.items(), strict=True)
        streams = {m: None if x is None else f(x) for f, (m, x) in mapped}
        streams = self.rejoined(streams, dialogues)
        streams = self.fuse_at("pre-graph", streams, dialogues)
        streams = self.fuse_at("late", streams, dialogues)
        dialogues.show(streams)
        dialogues.show_attention(own=dialogues.mask.float())
        return self.head(joined(list(streams.values()), self.widths.values()))


def build(placement=None, fusion="sum", dims=DIMS, **options) -> Tiny:
    torch.manual_seed(0)
    return Tiny(dims, 3, 2, fusion, placement, **options).eval()


def make_batch(dims=DIMS) -> Batch:
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(4) < torch.tensor([4, 2]).unsqueeze(1)
    features = {m: torch.randn(2, 4, d, generator=generator) for m, d in dims.items()}
    speakers = torch.tensor([[0, 5, 1, 1], [1, 0, 9, 9]])
    return Batch(features, mask, speakers, torch.zeros(2, 4).long(), ["a", "b"], None, [4, 2])


@pytest.mark.parametrize(
    ("placement", "fusion_width", "dims", "out"),
    [
        ("late", None, [3, 3, 3], 9),  # the summed width, so that concatenation is concatenation
        ("late", 5, [3, 3, 3], 5),
        ("early", None, [6, 5, 4], 6),  # the anchor's
        ("early", 5, [6, 5, 4], 5),
        ("pre-graph", None, [3, 3, 3], 3),
        ("parallel", None, [7, 7, 7], 7),
        ("parallel", 5, [7, 7, 7], 5),
    ],
)
def test_the_fusion_has_the_widths_of_its_place(placement, fusion_width, dims, out):
    host = build(placement, fusion_width=fusion_width)
    assert list(host.fusion.dims.values()) == dims
    assert host.fusion.out_dim == out
    assert host(make_batch()).streams["fused"].shape == (2, 4, out)


def test_an_instance_brings_its_own_width_and_one_that_does_not_fit_is_named():
    fusion = fusionzoo.get("gated")({"a": 3, "b": 3, "c": 3}, out_dim=4)
    host = build("late", fusion)
    assert host.fusion is fusion
    batch = make_batch()
    batch.present = {"audio": torch.tensor([[True, False, True, True]] * 2)}
    assert host(batch).streams["fused"].shape == (2, 4, 4)
    with pytest.raises(OptionError, match="will receive"):
        build("early", fusion)
    with pytest.raises(OptionError, match="out_dim=5"):
        build("late", fusion, fusion_width=5)


@pytest.mark.parametrize("placement", Tiny.placements)
@pytest.mark.parametrize("fusion", ["sum", fusionzoo.get("gated")([3, 3, 3])])
def test_one_modality_has_no_fusion_anywhere(placement, fusion):
    host = build(placement, fusion, {"text": 6})
    assert host.built_fusion is None
    assert not any(name.startswith(("fusion", "skip", "mix")) for name, _ in host.named_parameters())
    out = host(make_batch({"text": 6}))
    assert list(out.streams) == ["text"]


def test_where_the_fusion_sits_is_what_is_computed():
    batch = make_batch()
    x = batch.features
    real = batch.mask.unsqueeze(-1)

    late = build("late")
    fused = late.fusion([f(v * real) for f, v in zip(late.maps, x.values(), strict=True)], batch.mask)
    torch.testing.assert_close(late(batch).logits, late.head(fused) * real)

    early = build("early")
    fused = early.fusion(x, batch.mask)
    torch.testing.assert_close(early(batch).logits, early.head(early.maps[0](fused)) * real)

    residual = build("early-residual")
    fused = residual.fusion(x, batch.mask) + residual.skip(torch.cat(list(x.values()), -1) * real)
    torch.testing.assert_close(residual(batch).logits, residual.head(residual.maps[0](fused)) * real)

    beside = build("pre-graph")
    mapped = [f(v * real) for f, v in zip(beside.maps, x.values(), strict=True)]
    fused = beside.fusion(mapped, batch.mask)
    torch.testing.assert_close(beside(batch).logits, beside.head(torch.cat([*mapped, fused], -1)) * real)

    around = build("parallel")
    fused = around.fusion([p(v * real) for p, v in zip(around.projections, x.values(), strict=True)], batch.mask)
    whole = around.mix(around.maps[0](torch.cat(list(x.values()), -1) * real))
    torch.testing.assert_close(around(batch).logits, around.head(whole + fused) * real)


@pytest.mark.parametrize("placement", Tiny.placements)
def test_a_missing_modality_is_missing_for_the_fusion(placement):
    host, batch = build(placement, "gated"), make_batch()
    absent, masked = copy.copy(batch), copy.copy(batch)
    absent.features = {m: x for m, x in batch.features.items() if m != "audio"}
    seen = []
    call = host.call_fusion
    host.call_fusion = lambda f, streams, d: (seen.append([x is None for x in streams]), call(f, streams, d))[1]
    if placement != "pre-graph":  # there the streams go on too, and this host does not stand in for one
        out = host(absent).logits
        assert seen == [[False, True, False]]
        masked.present = {"audio": torch.zeros_like(batch.mask)}
        torch.testing.assert_close(host(masked).logits, out)
    batch.present = {"audio": torch.arange(4).expand(2, 4) % 2 == 0}
    assert host(batch).logits.isfinite().all()


def test_speakers_are_below_the_number_that_the_host_was_built_for():
    seen = {}

    class Says(Tiny):
        """Source: these tests."""

        def run(self, streams, dialogues):
            seen["speakers"], seen["complete"] = dialogues.speakers, dialogues.complete(self.names)
            return super().run(streams, dialogues)

    Says(DIMS, 3, 2)(make_batch())
    assert int(seen["speakers"].max()) == 1
    assert seen["complete"]
    batch = make_batch()
    batch.present = {"audio": batch.mask.clone()}
    Says(DIMS, 3, 2)(batch)
    assert not seen["complete"]


def test_maps_and_streams_are_reported():
    host, batch = build("late", "cross-attention"), make_batch()
    assert host(batch).attention == {}
    host.keep_attention = True
    out = host(batch)
    assert "own" in out.attention
    assert len(out.attention) > 1
    assert {"fused", *DIMS} & set(out.streams) >= {"fused"}


def test_a_host_that_runs_nothing_says_what_it_lacks():
    class Empty(Host):
        """Source: these tests."""

    with pytest.raises(OptionError, match=r"must name the place.*seam\('late'"):
        Empty(DIMS, 3, 2)(make_batch())
    with pytest.raises(NotImplementedError, match=r"Empty must implement run\(streams, dialogues\)"):
        Empty({"text": 6}, 3, 2)(make_batch({"text": 6}))
    with pytest.raises(OptionError, match="fusion_width"):
        build(fusion_width=-1)


class TwoForms(Tiny):
    """A host with another form. Source: these tests."""

    variants = {"official": "test_seams:Theirs"}  # noqa: RUF012

    def __init__(self, dims, num_classes, num_speakers, fusion="concat", placement=None, *, layers=1, noise=0.2):
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        self.layers, self.noise = layers, noise


class Theirs(TwoForms):
    """The other form. Source: these tests."""

    variant = "official"
    preset = {"layers": 2}  # noqa: RUF012
    fixed = {"noise": 0.0}  # noqa: RUF012


def test_a_form_has_its_own_defaults_and_overrules_what_it_does_not_have():
    assert inspect.signature(Theirs).parameters["layers"].default == 2
    assert (Theirs(DIMS, 3, 2).layers, Theirs(DIMS, 3, 2, layers=None).layers, Theirs(DIMS, 3, 2, layers=5).layers) == (
        2,
        2,
        5,
    )
    # Files of version 0.1 hold the default form's value of an option that this one does not have.
    assert Theirs(DIMS, 3, 2, noise=0.2).noise == 0.0
    assert "layers" not in repr(Theirs(DIMS, 3, 2)).splitlines()[0]
