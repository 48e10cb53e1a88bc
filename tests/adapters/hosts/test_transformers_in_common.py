"""SDT and MultiEMO: what the official variant cannot keep, one modality, missing ones, and what they refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from transformer_hosts import ATTENTION, DIMS, SMALL, build, close, make_batch

import fusionzoo
from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.testing import check_host
from fusionzoo_adapters.hosts.multiemo import MultiEMO
from fusionzoo_adapters.hosts.sdt import SDT

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


@pytest.mark.parametrize("cls", OFFICIAL)
def test_what_the_official_variant_cannot_keep(cls):
    options, failures = OFFICIAL[cls]
    results = check_host(cls, options=options, expected_failures=failures)
    results.raise_if_failed()
    assert {r.check for r in results.expected} == set(failures)


@pytest.mark.parametrize("cls", OFFICIAL)
def test_one_modality_has_no_fusion(cls):
    batch = make_batch([3, 1], {"text": 6})
    host = build(cls, dims={"text": 6}, fusion="lmam")
    assert host.fusion is None
    assert host(batch).logits.shape == (2, 3, 3)
    assert "fused" in host(batch).streams


@pytest.mark.parametrize("cls", OFFICIAL)
def test_a_missing_modality_is_one_that_is_masked(cls):
    host, batch = build(cls, fusion="gated"), make_batch([4, 2])
    absent = copy.copy(batch)
    absent.features = {m: x for m, x in batch.features.items() if m != "audio"}
    masked = copy.copy(batch)
    masked.features = {**batch.features, "audio": torch.full_like(batch.features["audio"], torch.nan)}
    masked.present = {"audio": torch.zeros_like(batch.mask)}
    close(host(masked).logits, host(absent).logits)
    assert "audio" not in host(absent).streams or not host(absent).streams["audio"].any()


@pytest.mark.parametrize("cls", OFFICIAL)
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


@pytest.mark.parametrize("cls", OFFICIAL)
def test_official_weights_are_refused_where_they_do_not_fit(cls):
    with pytest.raises(ReferenceWeightsError, match="official"):
        build(cls).load_reference({})
    official = build(cls, variant="official", fusion="concat")
    with pytest.raises(ReferenceWeightsError, match="missing"):
        official.load_reference({})
    with pytest.raises(ReferenceWeightsError, match="nonsense"):
        official.load_reference({"nonsense.weight": torch.zeros(1)})
