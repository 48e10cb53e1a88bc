"""bc-LSTM: its placements, its attention, and what its official variant reads."""

from __future__ import annotations

from typing import ClassVar

import torch
from context_encoder_hosts import SMALL, ContextEncoderHostTests
from dialogue_hosts import DIMS, close, only

from fusionzoo.testing.batches import dialogues


class TestBcLSTM(ContextEncoderHostTests):
    HOST = "bc-lstm"
    BUILDS: ClassVar = {
        **{p: {**SMALL, "placement": p} for p in ("late-skip", "late", "early", "early-residual")},
        "attention": {**SMALL, "attention": True, "speaker_embedding": 3},
    }
    PLACES: ClassVar = ["late-skip", "late"]
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

    def test_the_skip_adds_a_linear_map_of_what_each_encoder_reads_to_its_context(self):
        skip, late = self.make("late-skip"), self.make("late")
        late.load_state_dict(skip.state_dict(), strict=False)
        batch = dialogues([6, 4], DIMS)
        assert not torch.allclose(skip(batch).logits, late(batch).logits, atol=1e-4)
        speakers = skip.speaker_embedding(batch.speakers)
        read = [torch.cat([x, speakers], -1) for x in skip.standardize(batch.features).values()]
        own = [linear(x) for linear, x in zip(skip.skips, read, strict=True)]
        context = skip(batch).streams["context"] - late(batch).streams["context"]  # of concatenated contexts
        close(context, torch.cat(own, -1) * batch.mask.unsqueeze(-1))

    def test_with_one_modality_there_is_no_skip(self):
        assert len(self.make("late-skip", dims={"text": 6}).skips) == 0
