"""DialogueRNN: the states of its parties, its directions, its listeners."""

from __future__ import annotations

from typing import ClassVar

import torch
from context_encoder_hosts import SMALL, ContextEncoderHostTests
from dialogue_hosts import DIMS, close

from fusionzoo.host import Host
from fusionzoo.testing.batches import dialogues

RNN = {**SMALL, "global_width": 5, "party_width": 3, "state_dropout": 0.0}
#: Who speaks reaches the logits through the states of the parties alone, and step t through the past alone.
STATES = {"speaker_embedding": False, "directions": 1, "attention": False}


class TestDialogueRNN(ContextEncoderHostTests):
    HOST = "dialogue-rnn"
    BUILDS: ClassVar = {
        **{p: {**RNN, "placement": p} for p in ("late-skip", "late", "early", "early-residual", "parallel")},
        "listeners": {**RNN, "listener_state": True, "context_attention": "concat", "attention_width": 6},
        "one direction": {**RNN, "directions": 1, "attention": False},
    }
    PLACES: ClassVar = ["late", "early"]
    OFFICIALS: ClassVar = ["early"]
    REFUSALS: ClassVar = [
        ("late", {"directions": 3}, "directions"),
        ("late", {"party_width": 0}, "party_width"),
        ("late", {"global_width": -1}, "global_width"),
        ("late", {"state_dropout": 1.5}, "state_dropout"),
        ("late", {"context_attention": "generl"}, "general"),
        ("late", {"context_attention": "dot"}, "equal widths"),
        ("late", {"listeners": True}, "listener_state"),
        ("parallel", {"parallel_width": -3}, "parallel_width"),
    ]

    def states(self, **options) -> Host:
        return self.make("late", **{**STATES, **options})

    def logits(self, speakers: list[int]) -> torch.Tensor:
        batch = dialogues([len(speakers)], DIMS)
        batch.speakers = torch.tensor([speakers])
        return self.states()(batch).logits[0]

    def test_a_party_goes_on_from_its_own_state(self):
        """The numbers of the parties do not matter, only whose state an utterance goes on from."""
        expected = self.logits([0, 1, 0, 1])
        close(self.logits([1, 0, 1, 0]), expected)
        other = self.logits([0, 1, 1, 1])
        close(other[:2], expected[:2])
        assert not torch.allclose(other[2], expected[2], atol=1e-6)

    def test_without_listener_state_who_listens_stays_as_it_is(self):
        names = {n for n, _ in self.states().named_parameters()}
        more = {n for n, _ in self.states(listener_state=True).named_parameters()}
        assert names < more
        assert all("l_cell" in n for n in more - names)
        # When the second party speaks for the first time its state has not moved, unless it listened before.
        still, moved = (self.states(listener_state=x, placement="early") for x in (False, True))
        moved.load_state_dict(still.state_dict(), strict=False)
        batch = dialogues([3], DIMS)
        batch.speakers = torch.tensor([[0, 1, 1]])
        a, b = still(batch).logits[0], moved(batch).logits[0]
        close(b[0], a[0])
        assert not torch.allclose(b[1], a[1], atol=1e-6)

    def test_one_direction_knows_no_future_and_two_do(self):
        batch = dialogues([5], DIMS)
        changed = dialogues([5], DIMS)
        changed.features["text"][0, 3] += 1
        for directions in (1, 2):
            host = self.states(directions=directions)
            a, b = host(batch).logits[0], host(changed).logits[0]
            assert not torch.allclose(a[3:], b[3:], atol=1e-6)
            assert torch.allclose(a[:3], b[:3], atol=1e-6) == (directions == 1)

    def test_matching_attention_spans_the_dialogue_and_no_padding(self):
        host = self.make("late")
        host.keep_attention = True
        batch = dialogues([5, 2], DIMS)
        weights = host(batch).attention["matching"]
        assert weights.shape == (2, 5, 5)
        close(weights.sum(-1)[batch.mask], torch.ones(7))
        assert (weights[1, :, 2:] == 0).all()
