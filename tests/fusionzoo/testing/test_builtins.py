"""Every built-in plugin passes the suite; what an official variant cannot keep is listed here, with the reason."""

from __future__ import annotations

import pytest

import fusionzoo
from fusionzoo.specs import KINDS
from fusionzoo.testing import all_checks, check_fusion, check_host, check_objective, parametrize_checks, run

#: Options under which each fusion is checked besides its defaults; every set must pass.
MULT = {"width": 8, "layers": 1, "memory_layers": 1}
DFG = {"hidden": 4, "node": 6, "pattern": 7, "memory": 5, "update": 3, "retain": 4, "write": 6}
FUSIONS = {
    "aff": [
        {},
        {"iterations": 2, "width": 8},
        {"context": "local", "reduction": 2},
        {"context": "global"},
    ],
    "bottleneck": [
        {"width": 8},
        {"width": 8, "readout": "anchor"},
        {"layers": 3, "fuse_from": 1, "bottlenecks": 2, "width": 8, "positions": False},
    ],
    "cfn-sr": [
        {"width": 8, "layers": 2},
        {"width": 8, "heads": 2, "layers": 1, "residual": False},
        {"width": 7, "layers": 2, "causal": False, "join": "anchor"},
    ],
    "co-attention": [{}, {"hidden": 5, "width": 8}, {"form": "transformer", "layers": 2}],
    "concat": [{}],
    "concat-fc": [{}, {"hidden": (), "dropout": 0.0}, {"hidden": (16,)}],
    "cross-attention": [{}, {"queries": "anchor"}, {"width": 8, "heads": 2, "dropout": 0.0}],
    "dynamic-graph": [
        {"layers": 4},
        {"width": 8, "hidden": 5, "layers": 3, "across": 0.5, "residue": False},
    ],
    "embracenet": [{}, {"width": 6, "weights": [2.0, 1, 0.5]}],
    "film": [{}, {"hidden": 6}, {"scope": "dialogue"}],
    "foal-net": [{}, {"aligned": False}, {"layers": 1, "heads": 1}, {"variant": "official"}],
    "gated": [{}, {"width": 5}],
    "gated-xattn": [{}, {"layers": 2, "width": 8, "heads": 2, "hidden": 5, "init_gate": 1.0}],
    "gmu": [{}, {"width": 5}],
    "graph": [{}, {"width": 8, "hidden": 5, "layers": 2, "lam": 1.0, "alpha": 0.3, "residue": False, "dropout": 0.0}],
    "graph-mfn": [DFG, {**DFG, "hidden": [3, 4, 5], "head": 8}, {**DFG, "variant": "official"}],
    "hypergraph": [
        {},
        {"frequency_layers": 0},
        {"width": 8, "hidden": 5, "hyper_layers": 1, "frequency_layers": 2, "residue": False},
    ],
    "late-average": [{}, {"average": "logits"}],
    "late-product": [{}],
    "lmam": [{}, {"rank": 3}, {"width": 8, "residual": False}],
    "lmf": [{}, {"rank": 2, "width": 5}, {"rank": 1, "softmax": True}, {"variant": "official"}],
    "mag": [{}, {"beta": 0.01, "dropout": 0.0}, {"variant": "official"}],
    "mcb": [{}, {"sketch": 5, "seed": 3}, {"sketch": 64}],
    "memo-cmt": [{}, {"aligned": False}, {"width": 8, "heads": 2, "fused_width": 5}],
    "mfb": [{}, {"width": 6, "factors": 2, "order": 2, "dropout": 0.0}],
    "mfn": [
        {"hidden": 6},
        {"hidden": [3, 4, 5], "memory": 6, "attention": 5, "update": 4, "retain": 3, "write": 7, "head": 8},
    ],
    "misa": [
        {"width": 8},
        {"width": 6, "heads": 3, "feedforward": 5, "match": "adversarial", "reverse": 0.5},
        {"width": 5, "difference": 0.0},
    ],
    "mixture-of-experts": [
        {},
        {"top_k": 1},
        {"top_k": None, "shared": 0, "experts": 1, "hidden": 5, "width": 6},
    ],
    "mlb": [{}, {"rank": 7, "dropout": 0.0}],
    "mmtm": [{}, {"scope": "utterance", "ratio": 2}, {"join": "anchor"}, {"variant": "official"}],
    "msaf": [
        {},
        {"block": 5, "reduction": 2, "lowest": 0.2, "dropout": 0.3, "join": "anchor"},
        {"scope": "utterance", "block": 4},
        {"segments": 2, "block": 4},
    ],
    "mult": [
        MULT,
        {**MULT, "kernel": 3, "causal": True, "aligned": False},
        {**MULT, "kernel": [1, 2, 3], "self_pairs": True, "heads": 2, "positions": False},
        {**MULT, "variant": "official"},
        {**MULT, "variant": "multibench", "self_pairs": True},
    ],
    "multi-attn": [{"width": 8}, {"layers": 1, "heads": 3, "width": 8, "hidden": 5, "dropout": 0.0}],
    "multiplicative": [{}, {"beta": 2.0}],
    "multiplicative-interactions": [
        {},
        {"form": "vector"},
        {"form": "scalar", "width": 5},
        {"project": False, "flip": True},
        {"grad_clip": (-0.1, 0.1), "clip": (-2.0, 2.0)},
    ],
    "mutan": [{}, {"width": 6, "core": 4, "rank": 2, "dropout": 0.0}],
    "nl-gate": [{}, {"tokens": 3, "channels": 4, "memory": 5}, {"variant": "official"}],
    "pairwise-gated": [{}, {"width": 8, "hidden": 5, "dropout": 0.0}, {"form": "background"}],
    "perceiver": [
        {"width": 8},
        {"latents": 3, "width": 8, "heads": 2, "hidden": 9, "layers": 1, "positions": False},
    ],
    "product-of-experts": [{}, {"width": 6, "prior": False, "sample": False, "kl": 0.0}],
    "sdt-gate": [{}, {"unimodal": "identity"}, {"unimodal": "none", "width": 8}],
    "self-attention": [
        {},
        {"score": "dot"},
        {"score": "additive", "scope": "utterance"},
        {"score": "bilinear", "width": 8, "heads": 2, "hidden": 3},
    ],
    "sum": [{}],
    "tfn": [{}, {"width": 3, "hidden": (), "dropout": 0.0}, {"project": False, "hidden": (16,), "rectify": True}],
}
SMALL = {"hidden": 4, "head_width": 32, "dropout": 0.1}
WIDE = {"width": 8, "dropout": 0.1}
GRAPH = {**SMALL, "graph_width": 5, "bases": 3, "window_past": 2, "window_future": 1}
PARTIES = {**SMALL, "global_width": 5, "party_width": 6}
HOSTS = {
    "bc-lstm": [SMALL, {**SMALL, "attention": True}],
    "dialogue-rnn": [
        PARTIES,
        {**PARTIES, "directions": 1, "listener_state": True, "context_attention": "concat", "attention_width": 3},
        {**PARTIES, "placement": "parallel", "context_attention": "simple"},
    ],
    "m3net": [
        {
            "hidden": 8,
            "graph_width": 12,
            "hyper_layers": 2,
            "frequency_layers": 2,
            "dropout": 0.0,
            "input_dropout": 0.0,
        }
    ],
    "mm-dfn": [{"hidden": 4, "graph_width": 5, "depth": 2, "dropout": 0.0}],
    "mmgcn": [{"hidden": 4, "graph_width": 5, "depth": 2, "dropout": 0.0}],
    "multiemo": [
        {**WIDE, "fusion": ("multi-attn", {"layers": 1, "heads": 2, "hidden": 8})},
        {
            **WIDE,
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
        {**WIDE, "fusion": "concat", "placement": "early", "head_width": 32, "speaker_embedding": 3},
    ],
    "sdt": [
        {**WIDE, "heads": 2},
        {**WIDE, "placement": "intra", "layers": 2, "gate": "identity"},
        {**WIDE, "placement": "early", "speaker_embedding": False, "gate": "none", "hidden": 5},
    ],
    "text-cnn": [SMALL, {**SMALL, "shared": False}],
    "memo-cmt": [{"dropout": 0.1, "sequence_dropout": 0.1, "hidden": (32,), "fusion_width": 8}],
    "foal-net": [{"sequence_dropout": 0.1}],
    "msaf": [{"channels": 8, "fusion": "concat"}],
    "cogmen": [{"hidden": 8, "dropout": 0.0, "input_dropout": 0.0, "window_past": 2, "window_future": 1}],
    "corect": [{"hidden": 8, "dropout": 0.0, "input_dropout": 0.0, "window_past": 2, "window_future": 1}],
    "dialogue-gcn": [GRAPH, {**GRAPH, "graph": False}, {**GRAPH, "bases": None, "neighbours": "mean"}],
}

OBJECTIVES = {
    "avel": [
        {},
        {"width": 8, "variant": "official"},
        {"width": 8, "dims": {"text": 6, "audio": 6}, "chunk": 4},
    ],
    "cmd": [{}, {"moments": 3}],
    "cross-entropy": [{}, {"class_weights": "balanced", "label_smoothing": 0.1}],
    "deep-cca": [{}, {"top": 2, "regularisation": 0.1}],
    "focal": [{}, {"gamma": 0.5, "class_weights": "balanced"}, {"class_weights": [1.0, 2.0, 0.5]}],
    "mem": [
        {},
        {"alignment": 10.0, "width": 8, "dropout": 0.0},
        {"alignment": 1.0, "width": 8, "variant": "official"},
    ],
    "multiplicative": [{}, {"beta": 2.0}],
    "reconstruction": [{}, {"detach": True}, {"target": "input"}],
    "self-distillation": [
        {},
        {"temperature": 2.0, "variant": "official"},
        {"dims": {"text": 6, "audio": 6}},
        {"streams": ["text", "fused"], "dims": {"text": 6, "fused": 6}},
    ],
    "soft-hgr": [{}, {"mode": "official"}, {"streams": ["text", "audio"]}],
    "supcon": [{}, {"temperature": 0.5, "chunk": 4}],
    "swfc": [
        {},
        {"focus": 0.5, "weighting": 1.2, "chunk": 4},
        {"focus": 0.0, "stream": "text"},
    ],
}

_HEADS = "the official softmax runs over heads and samples instead of keys, so that samples depend on each other"
_SUM = "the official code adds up the maps of all samples of the batch"
_BATCH_NORM = "the official batch norm needs more than one row in training"
_NO_MASK = "the official code has no masks: padded steps are read and pooled"
#: Fusion -> (options, {check that fails: why}). Exactly these fail.
OFFICIAL = {
    "self-attention": (
        {"variant": "official"},
        dict.fromkeys(
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
    ),
    "lmam": (
        {"variant": "official"},
        {
            "gradient_to_modalities": "audio and visual act through weights alone, which are constant in a dialogue of one "
            "utterance",
            "more_modalities": "the official code adds the contexts of the first three modalities",
        },
    ),
    "aff": ({"variant": "official"}, {"training_on_one": _BATCH_NORM}),
    "cfn-sr": (
        {"variant": "official", "width": 8, "layers": 2},
        dict.fromkeys(
            ("padding_length", "batch_independence", "batch_size", "batch_gradient", "missing_items_independent"), _SUM
        ),
    ),
    "gated-xattn": (
        {"init_gate": 0.0},
        dict.fromkeys(
            (
                "missing_noticed",
                "missing_learned",
                "gradient_to_parameters",
                "modalities_used",
                "gradient_to_modalities",
                "dropout_drops",
            ),
            "the paper's gates start closed: at first the anchor alone passes and nothing behind a gate has a gradient",
        ),
    ),
    "hypergraph": (
        {"variant": "official"},
        {"capabilities_kept": "its hyperedges are sums over a sum of weights, no means: there is no attention"},
    ),
    "memo-cmt": (
        {"variant": "official"},
        dict.fromkeys(("attention_skips_padding", "padding_length", "unaligned_lengths"), _NO_MASK),
    ),
    "msaf": ({"variant": "official"}, {"training_on_one": _BATCH_NORM}),
    "mult": (
        {**MULT, "variant": "official", "causal": True},
        {
            "unaligned_lengths": "the official causal mask is offset by the difference of the padded lengths",
            "zeros_are_values": "the official code gives no position to a step whose first feature is exactly zero",
        },
    ),
    "multi-attn": (
        {"variant": "official", "width": 8},
        dict.fromkeys(("attention_skips_padding", "padding_length"), _NO_MASK),
    ),
}


def first_quick_others_slow(kind, table):
    """The name of every built-in with each of its sets of options: the first in the quick tests, all of them in CI."""
    return [
        pytest.param(name, options, marks=[pytest.mark.slow] * (i > 0), id=f"{name}-{i}")
        for name in fusionzoo.names(kind)
        for i, options in enumerate(table.get(name, [{}]))
    ]


def rules_for(kind, table, name, options):
    """That every option acts, and within which range, is asked of the first set: beside others some have nothing to do."""
    first = table.get(name, [{}])[0]
    asked = [c.name for c in all_checks(kind)]
    return asked if options == first else [n for n in asked if n not in ("options_act", "impossible_options_refused")]


#: What further sets of options cannot keep, and why.
NOT_KEPT = {
    ("foal-net", 3): {"large_values_masked": "the official code fills the scores of padded steps with a finite number"},
    ("mixture-of-experts", 1): {"more_modalities": "of so few steps none goes to some experts, where each goes to one"},
    ("mult", 3): {
        "zeros_are_values": "the official code gives no position to a step whose first feature is exactly zero"
    },
    ("mult", 4): {
        "zeros_are_values": "MultiBench's code gives no position to a step whose first feature is exactly zero"
    },
}


@pytest.mark.parametrize(("name", "options"), first_quick_others_slow("fusion", FUSIONS))
def test_fusion(name, options):
    failures = NOT_KEPT.get((name, FUSIONS.get(name, [{}]).index(options)))
    asked = rules_for("fusion", FUSIONS, name, options)
    check_fusion(name, options=options, only=asked, expected_failures=failures).raise_if_failed()


@pytest.mark.parametrize(("name", "options"), first_quick_others_slow("host", HOSTS))
def test_host(name, options):
    check_host(name, options=options, only=rules_for("host", HOSTS, name, options)).raise_if_failed()


@pytest.mark.parametrize("name", OFFICIAL)
def test_what_fails_and_why(name):
    options, failures = OFFICIAL[name]
    results = check_fusion(name, options=options, expected_failures=failures)
    results.raise_if_failed()
    assert {r.check for r in results.expected} == set(failures)


@pytest.mark.parametrize(("name", "options"), first_quick_others_slow("objective", OBJECTIVES))
def test_objective(name, options):
    check_objective(name, options=options, only=rules_for("objective", OBJECTIVES, name, options)).raise_if_failed()


def test_the_published_focal_loss_has_no_gradient_through_its_factor():
    why = {"gradcheck": "no gradient passes through (1 - p)^gamma, as published"}
    results = check_objective("focal", options={"variant": "official"}, expected_failures=why)
    results.raise_if_failed()
    assert {r.check for r in results.expected} == set(why)


@parametrize_checks("cross-entropy", kind="objective")
def test_one_test_a_check(check):
    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", fusionzoo.names())
def test_compile_and_export(name):
    slow = [c.name for c in all_checks("fusion") if c.slow]
    check_fusion(name, options=FUSIONS.get(name, [{}])[:1], only=slow, slow=True).raise_if_failed()


#: Kind -> the sets of options of the tests above. Where the defaults are one of them, the checks of the command ran there.
CHECKED = {"fusion": FUSIONS, "host": HOSTS, "objective": OBJECTIVES}


def checked_as_it_is_typed(kind: str, name: str) -> bool:
    return kind in CHECKED and {} in CHECKED[kind].get(name, [{}])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [f"{kind}:{name}" for kind in KINDS for name in fusionzoo.names(kind) if not checked_as_it_is_typed(kind, name)],
)
def test_the_command_passes_as_it_is_typed(name):
    """`fusionzoo check KIND:NAME` without any option, on every built-in of every kind that no test above checks so."""
    results = run(name)
    assert results.exit_code == 0, results
