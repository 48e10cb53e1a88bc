"""Results and batches fit a screen and show no tensor's contents."""

from __future__ import annotations

import re

import torch

import fusionzoo
from fusionzoo.batch import Clip
from fusionzoo.encoders.outputs import Encoded
from fusionzoo.fusion import Fused
from fusionzoo.testing.subjects import HostSubject


def fits(text):
    assert len(text.splitlines()) <= 20
    assert len(text) < 2000
    assert "tensor(" not in text
    return text


def test_fused_shows_shapes_names_and_losses():
    fusion = fusionzoo.get("self-attention")({"text": 8, "audio": 6}, 4)
    text = fits(repr(fusion.fuse({"text": torch.randn(2, 90, 8), "audio": torch.randn(2, 90, 6)})))
    assert "fused: (2, 90, 4) float32 cpu" in text
    assert re.search(r"attention: self \(2, \d+, 180, 180\) float32 cpu", text)
    assert "losses" not in text
    many = {f"map{i}": torch.zeros(2, 3) for i in range(50)}
    text = fits(repr(Fused(torch.zeros(2, 4), attention=many, losses={"kl": torch.tensor(0.25)})))
    assert "losses: kl 0.25" in text
    assert "and 42 more" in text
    assert "kl () float32 meta" in repr(Fused(torch.zeros(2), losses={"kl": torch.zeros((), device="meta")}))


def test_hosts_and_batches():
    subject = HostSubject("bc-lstm")
    batch = subject.batch([3] * 40)
    text = fits(repr(batch))
    assert "mask: (40, 3) bool cpu" in text
    assert "'d0'" in text
    assert "and 32 more" in text
    assert "logits: (40, 3, 3) float32 cpu" in fits(repr(subject.make()(batch)))
    assert repr(Clip(torch.zeros(2, 5), None)) == "Clip(\n  values: (2, 5) float32 cpu\n)"
    assert fits(repr(Encoded(torch.zeros(2, 5, 3), torch.ones(2, 5).bool()))).startswith("Encoded(states: (2, 5, 3)")
