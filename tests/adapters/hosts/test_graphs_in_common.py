"""COGMEN, CORECT and M3NET: devices, attention maps, streams, places, and what they refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from graph_hosts import COG, COR, DIMS, M3, close, make, make_batch

from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_adapters.hosts.cogmen import Cogmen
from fusionzoo_adapters.hosts.corect import Corect
from fusionzoo_adapters.hosts.m3net import M3Net

HOSTS = {"m3net": (M3Net, M3), "cogmen": (Cogmen, COG), "corect": (Corect, COR)}


@pytest.mark.parametrize("name", HOSTS)
def test_no_forward_pass_waits_for_a_device(name):
    # On the meta device there are no values: whatever asks for one (item, nonzero, a boolean index) raises.
    cls, options = HOSTS[name]
    for placement in cls.placements:
        for variant in ("default", "official"):
            host = cls(DIMS, 4, 2, placement=placement, variant=variant, **options).to("meta")
            batch = make_batch().to("meta")
            assert host(batch).logits.shape == (3, 6, 4)
            batch.present = {"audio": batch.mask}
            assert host(batch).logits.shape == (3, 6, 4)


@pytest.mark.parametrize("name", HOSTS)
def test_attention_maps_are_distributions(name):
    cls, options = HOSTS[name]
    host = make(cls, **options)
    host.keep_attention = True
    batch = make_batch()
    maps = host(batch).attention
    if name == "m3net":
        close(maps["context"].sum(-1), torch.ones(3, 3))
        close(maps["cross"].sum(1)[batch.mask], torch.ones(11))
        return
    sums = maps["graph"].sum(-1)
    assert maps["graph"].shape == ((3, 1, 6, 6) if name == "cogmen" else (3, 3, 2, 6, 6))
    assert (sums <= 1 + 1e-5).all()
    assert (sums.movedim(-1, 1)[~batch.mask] == 0).all()
    if name == "cogmen":
        close(sums[:, 0][batch.mask], torch.ones(11))
    apart = (torch.arange(6).unsqueeze(1) - torch.arange(6)) > 2
    assert (maps["graph"][..., apart] == 0).all()


@pytest.mark.parametrize("name", HOSTS)
def test_streams_have_the_names_of_the_modalities(name):
    cls, options = HOSTS[name]
    streams = make(cls, **options)(make_batch()).streams
    assert {"fused", "context"} <= streams.keys()
    if name != "cogmen":
        assert set(DIMS) <= make(cls, placement="pre-graph", **options)(make_batch()).streams.keys()


@pytest.mark.parametrize("name", HOSTS)
def test_official_weights_are_refused_where_they_do_not_fit(name):
    cls, options = HOSTS[name]
    with pytest.raises(ReferenceWeightsError, match="official"):
        make(cls, **options).load_reference({})
    placement = "early" if name == "cogmen" else "late"
    host = make(cls, placement=placement, variant="official", **options)
    before = copy.deepcopy(host.state_dict())
    with pytest.raises(ReferenceWeightsError, match=r"no-such|missing"):
        host.load_reference({"no-such.weight": torch.zeros(2)})
    assert all(torch.equal(v, before[k]) for k, v in host.state_dict().items())
    if name != "cogmen":
        with pytest.raises(ReferenceWeightsError, match="order"):
            make(cls, dict(reversed(DIMS.items())), variant="official", **options).load_reference({})
        with pytest.raises(ReferenceWeightsError, match="concat"):
            make(cls, placement="pre-graph", variant="official", **options).load_reference({})


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (M3Net, {"base": "rnn"}, "base"),
        (M3Net, {"hidden": 7}, "even"),
        (M3Net, {"hidden": 8, "anchor_map": False}, "anchor_map"),
        (M3Net, {"hyper_layers": -1}, "hyper_layers"),
        (M3Net, {"views_norm": "group"}, "views_norm"),
        (M3Net, {"text_views": 4}, "text_views"),
        (Cogmen, {"window_past": -2}, "window_past"),
        (Cogmen, {"base": "lstm", "hidden": 7}, "even"),
        (Cogmen, {"base": "cnn"}, "base"),
        (Corect, {"window_future": 1.5}, "window_future"),
        (Corect, {"hidden": 7}, "crossmodal_heads"),
        (Corect, {"variant": "paper"}, "variant"),
    ],
)
def test_impossible_options_are_named(cls, options, message):
    with pytest.raises(OptionError, match=message):
        cls({"text": 14, "audio": 5, "visual": 6}, 4, 2, **options)


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("fusion", ["gated", ("gated", {"missing": "learned"})])
def test_takes_a_fusion_at_every_place(name, fusion):
    cls, options = HOSTS[name]
    batch = make_batch()
    batch.present = {"audio": torch.arange(6).expand(3, 6) % 2 == 0}
    for placement in cls.placements:
        logits = make(cls, fusion=fusion, placement=placement, **options)(batch).logits
        assert torch.isfinite(logits).all()
