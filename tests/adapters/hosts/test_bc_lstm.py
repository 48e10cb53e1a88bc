"""bc-LSTM: its placements, its attention, and what its official variant reads."""

from __future__ import annotations

from typing import ClassVar

import torch
from context_encoder_hosts import SMALL, ContextEncoderHostTests
from dialogue_hosts import DIMS, only

from fusionzoo.testing.batches import dialogues


class TestBcLSTM(ContextEncoderHostTests):
    HOST = "bc-lstm"
    BUILDS: ClassVar = {
        **{p: {**SMALL, "placement": p} for p in ("late", "early", "early-residual")},
        "attention": {**SMALL, "attention": True, "speaker_embedding": 3},
    }
    PLACES: ClassVar = ["late"]
    OFFICIALS: ClassVar = ["attention"]
    REFUSALS: ClassVar = [
        ("late", {"hiden": 3}, "hidden"),
        ("late", {"placement": "middle"}, "placement"),
        ("late", {"variant": "paper"}, "variant"),
        ("late", {"dropout": 1.5}, "dropout"),
        ("late", {"speaker_embedding": -2}, "speaker_embedding"),
    ]

    def test_official_variant_has_no_speaker_embedding_and_reads_padding(self):
        host = self.make("late", variant="official")
        assert host.speaker_embedding is None
        batch = dialogues([2], DIMS, steps=4)
        assert not torch.allclose(host(batch).logits[:, :2], host(only(batch, 0)).logits, atol=1e-6)
