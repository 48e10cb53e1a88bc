"""The systems have as many parameters as the authors' own."""

from __future__ import annotations

import pytest
import torch

import fusionzoo


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


AUTHORS = {
    "LMAM's matching attention at d=512": (("fusion", "lmam", [512] * 3, {"variant": "official"}), 262_656),
    "MultiEMO's MultiAttn, IEMOCAP": (("fusion", "multi-attn", [256] * 3, {"layers": 6, "out_dim": 768}), 18_961_920),
    "MultiEMO's MultiAttn, MELD": (("fusion", "multi-attn", [256] * 3, {"layers": 2, "out_dim": 768}), 6_320_640),
    "Foal-Net's stacks": (("fusion", "foal-net", {"audio": 1024, "visual": 768}, {"out_dim": 1792}), 12_866_560),
    "MemoCMT's attentions": (("fusion", "memo-cmt", [768] * 2, {}), 2 * 2_954_496),
    "CFN-SR": (("host", "cfn-sr", {"visual": 3, "audio": 13}, {"variant": "official"}), 26_301_417),
}


@pytest.mark.parametrize("what", AUTHORS)
def test_the_published_numbers(what):
    (kind, name, dims, options), expected = AUTHORS[what]
    cls = fusionzoo.get(name, kind=kind)
    with torch.device("meta"):
        built = cls(dims, **options) if kind == "fusion" else cls(dims, 8, 1, **options)
    assert count(built) == expected
    if kind == "fusion":
        assert cls.parameter_count(dims, **options) == expected


def test_inside_their_hosts_no_map_is_added():
    with torch.device("meta"):
        foal = fusionzoo.get("foal-net", kind="host")({"audio": 1024, "visual": 768}, 4, 1)
        memo = fusionzoo.get("memo-cmt", kind="host")({"text": 768, "audio": 768}, 4, 1)
    assert count(foal.fusion) == 12_866_560
    assert count(foal.head) == 4 * 1792 + 4
    assert count(memo.fusion) == 2 * 2_954_496
    assert count(memo.head) == 98_948
