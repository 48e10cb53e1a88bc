"""Every built-in plugin passes the suite; what an official variant cannot keep is listed here, with the reason."""

from __future__ import annotations

import pytest

import fusionzoo
from fusionzoo.testing import all_checks, check_fusion, check_host, parametrize_checks

#: Options under which each fusion is checked besides its defaults; every set must pass.
FUSIONS = {
    "concat": [{}],
    "cross-attention": [{}, {"queries": "anchor"}, {"width": 8, "heads": 2, "dropout": 0.0}],
    "gated": [{}, {"width": 5}],
    "lmam": [{}, {"rank": 3}, {"width": 8, "residual": False}],
    "self-attention": [
        {},
        {"score": "dot"},
        {"score": "additive", "scope": "utterance"},
        {"score": "bilinear", "width": 8, "heads": 2, "hidden": 3},
    ],
    "sum": [{}],
}
SMALL = {"hidden": 4, "head_width": 32, "dropout": 0.1}
GRAPH = {**SMALL, "graph_width": 5, "bases": 3, "window_past": 2, "window_future": 1}
HOSTS = {
    "bc-lstm": [SMALL, {**SMALL, "attention": True}],
    "dialogue-gcn": [GRAPH, {**GRAPH, "graph": False}, {**GRAPH, "bases": None, "neighbours": "mean"}],
}

_HEADS = "the official softmax runs over heads and samples instead of keys, so that samples depend on each other"
OFFICIAL = {
    "self-attention": dict.fromkeys(
        (
            "attention_sums_to_one",
            "padding_length",
            "batch_independence",
            "batch_size",
            "batch_gradient",
            "missing_items_independent",
        ),
        _HEADS,
    ),
    "lmam": {
        "gradient_to_modalities": "audio and visual act through weights alone, which are constant in a dialogue of one utterance"
    },
}


@pytest.mark.parametrize("name", fusionzoo.names())
def test_fusion(name):
    check_fusion(name, options=FUSIONS.get(name)).raise_if_failed()


@pytest.mark.parametrize("name", fusionzoo.names("host"))
def test_host(name):
    check_host(name, options=HOSTS.get(name)).raise_if_failed()


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_variant(name):
    results = check_fusion(name, options={"variant": "official"}, expected_failures=OFFICIAL[name])
    results.raise_if_failed()
    assert {r.check for r in results.expected} == set(OFFICIAL[name])


@parametrize_checks(
    "cross-entropy", kind="objective", options=[{}, {"class_weights": "balanced", "label_smoothing": 0.1}]
)
def test_objective(check):
    check()


@pytest.mark.parametrize("name", fusionzoo.names("objective"))
def test_every_objective(name):
    from fusionzoo.testing import check_objective

    check_objective(name).raise_if_failed()


@pytest.mark.slow
@parametrize_checks(fusionzoo.names(), only=[c.name for c in all_checks("fusion") if c.slow], slow=True)
def test_slow(check):
    check()
