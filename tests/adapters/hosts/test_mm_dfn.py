"""MM-DFN: what it shares with MMGCN, and the recurrence over the utterances of each speaker."""

from __future__ import annotations

from typing import ClassVar

import torch
from dialogue_hosts import DIMS
from modal_graph_hosts import ModalGraphHostTests

from fusionzoo.testing.batches import dialogues
from fusionzoo_adapters.hosts.mm_dfn import MMDFN


class TestMMDFN(ModalGraphHostTests):
    CLASS = MMDFN
    OFFICIAL: ClassVar = {"speaker_weights": 0.5}
    REFUSALS: ClassVar = [
        *ModalGraphHostTests.REFUSALS,
        ({"speaker_weights": "3-0-1"}, r"\(3, 0, 1\)"),
        ({"speaker_weights": (1, 2)}, "text, audio, visual"),
        ({"across": -1.0}, "across"),
    ]

    def test_a_speaker_weight_of_zero_leaves_the_recurrence_out(self):
        batch = dialogues([4, 2], DIMS)
        host = self.make(speaker_weights=(0, 0, 0))
        assert host.parties is None
        one = self.make(speaker_weights=(0, 0, 1))
        assert one.parties is not None
        assert not torch.allclose(one(batch).logits, host(batch).logits)
        assert self.make(placement="early").party_weights == [1.0]
