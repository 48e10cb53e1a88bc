"""DialogueGCN: every base, with and without its graph, and the slots of its official variant."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from context_encoder_hosts import SMALL, ContextEncoderHostTests
from dialogue_hosts import DIMS

from fusionzoo.errors import ShapeError
from fusionzoo.testing.batches import dialogues

GCN = {**SMALL, "graph_width": 5, "bases": 3, "window_past": 2, "window_future": 1}
RNN = {"base": "dialogue-rnn", "global_width": 4, "party_width": 3}


class TestDialogueGCN(ContextEncoderHostTests):
    HOST = "dialogue-gcn"
    BUILDS: ClassVar = {
        **{p: {**GCN, "placement": p} for p in ("early", "early-residual", "late-skip", "late")},
        **{b: {**GCN, "base": b} for b in ("gru", "none")},
        "dialogue-rnn": {**GCN, **RNN},
        "listeners": {**GCN, **RNN, "listener_state": True, "context_attention": "concat"},
        "unlimited": {**GCN, "window_past": None, "window_future": None, "bases": None},
        "no graph": {**GCN, "graph": False},
        "plain": {**GCN, "nodal_attention": False, "neighbours": "add"},
    }
    PLACES: ClassVar = ["early", "late", "dialogue-rnn"]
    OFFICIALS: ClassVar = ["early", "no graph"]
    REFUSALS: ClassVar = [
        ("early", {"base": "rnn"}, "base"),
        ("early", {"window_past": -2}, "window_past"),
        ("early", {"bases": 0}, "bases"),
        ("early", {"edge_norm": False}, "edge_norm"),
        ("early", {"neighbours": "max"}, "neighbours"),
        ("dialogue-rnn", {"context_attention": "generl"}, "general"),
        ("dialogue-rnn", {"context_attention": "dot"}, "equal widths"),
    ]

    def test_without_graph_and_embedding_nobody_knows_the_speakers(self):
        host = self.make("no graph", speaker_embedding=False)
        batch = dialogues([6], DIMS)
        expected = host(batch).logits
        batch.speakers = 1 - batch.speakers
        torch.testing.assert_close(host(batch).logits, expected)

    def test_official_slots_are_limited_and_say_so(self):
        host = self.make("early", variant="official", max_seq_len=4)
        with pytest.raises(ShapeError, match="max_seq_len=5"):
            host(dialogues([5], DIMS))
        assert self.make("early")(dialogues([150], DIMS)).logits.shape == (1, 150, 3)
