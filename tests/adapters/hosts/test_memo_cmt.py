"""MemoCMT: what it pools, and the official weights that it takes."""

from __future__ import annotations

import pytest
import torch
from clip_hosts import ClipHostTests, build, sequences

from fusionzoo.errors import ReferenceWeightsError


class TestMemoCMT(ClipHostTests):
    HOST = "memo-cmt"


def test_memo_cmt_pools_as_it_is_told_and_its_official_variant_reads_padding():
    logits = [build("memo-cmt", pool=pool)(sequences()).logits for pool in ("cls", "mean", "max", "min")]
    assert all(not torch.allclose(a, b, atol=1e-4) for i, a in enumerate(logits) for b in logits[:i])
    assert build("memo-cmt", pool="max").fusion.pool == "max"
    assert build("memo-cmt", fusion=("memo-cmt", {"pool": "mean"})).fusion.pool == "mean"
    official = build("memo-cmt", variant="official")
    alone, together = official(sequences(rows=(2,))).logits[0], official(sequences()).logits[2]
    assert not torch.allclose(alone, together, atol=1e-5)
    assert torch.allclose(alone, build("memo-cmt")(sequences(rows=(2,))).logits[0], atol=1e-5)  # batches of one: equal


def test_official_weights_of_memo_cmt_whole_or_not_at_all():
    host = build("memo-cmt", dims={"text": 8, "audio": 8})
    state = {"linear_0.weight": torch.zeros(16, 8), "linear_0.bias": torch.zeros(16), "classifer.bias": torch.zeros(3)}
    before = {k: v.clone() for k, v in host.state_dict().items()}
    with pytest.raises(ReferenceWeightsError, match=r"classifer"):
        host.load_reference(state)
    with pytest.raises(ReferenceWeightsError, match="text_attention"):
        host.load_reference({**state, "classifer.weight": torch.ones(3, 16)})
    assert all(torch.equal(v, before[k]) for k, v in host.state_dict().items())
