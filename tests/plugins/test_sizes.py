"""The number of parameters of every fusion, worked out from the formula of its docstring and written down."""

from __future__ import annotations

import pytest

import fusionzoo

#: A common setting of this field: RoBERTa, openSMILE and DenseNet features, to 512.
DIMS = {"text": 1024, "audio": 1582, "visual": 342}
SIZES = {
    "aff": 4_083_712,
    "bottleneck": 78_084_608,
    "cfn-sr": 2_207_104,
    "co-attention": 12_988_928,
    "concat": 1_509_888,
    "concat-fc": 853_888,
    "cross-attention": 16_146_944,
    "dynamic-graph": 2_846_912,
    "embracenet": 1_510_912,
    "film": 4_469_248,
    "foal-net": 52_525_888,
    "gated": 6_040_576,
    "gated-xattn": 15_097_346,
    "gmu": 6_037_504,
    "graph": 1_565_312,
    "graph-mfn": 1_176_299,
    "hypergraph": 7_754_247,
    "late-average": 1_510_912,
    "late-product": 1_510_912,
    "lmam": 2_760_192,
    "lmf": 6_044_164,
    "mag": 6_568_448,
    "mcb": 2_097_664,
    "memo-cmt": 33_997_312,
    "mfb": 3_908_864,
    "mfn": 1_081_152,
    "misa": 1_184_768,
    "mixture-of-experts": 6_390_940,
    "mlb": 887_040,
    "mmtm": 10_205_014,
    "msaf": 1_536_952,
    "mult": 1_765_312,
    "multi-attn": 7_469_824,
    "multiplicative": 1_510_912,
    "multiplicative-interactions": 2_562_672,
    "mutan": 691_456,
    "nl-gate": 1_380_096,
    "pairwise-gated": 6_703_619,
    "perceiver": 52_905_472,
    "product-of-experts": 821_504,
    "sdt-gate": 6_689_280,
    "self-attention": 6_700_544,
    "sum": 1_510_912,
    "tfn": 1_162_757,
}


def test_every_built_in_fusion_has_its_size_written_down():
    own = {name for name in fusionzoo.names() if fusionzoo.card(name).distribution == "fusionzoo"}
    assert set(SIZES) == own


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_the_formulas(name):
    assert fusionzoo.get(name).parameter_count(DIMS, 512) == SIZES[name]
