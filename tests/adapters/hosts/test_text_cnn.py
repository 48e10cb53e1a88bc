"""TextCNN: utterances alone."""

from __future__ import annotations

from typing import ClassVar

import torch
from dialogue_hosts import DIMS, DialogueHostTests, close

from fusionzoo.testing.batches import dialogues

SMALL = {"hidden": 8, "head_width": 16, "dropout": 0.0}


class TestTextCNN(DialogueHostTests):
    HOST = "text-cnn"
    BUILDS: ClassVar = {
        **{p: {**SMALL, "placement": p} for p in ("late", "early")},
        "own layers": {**SMALL, "shared": False},
    }
    PLACES: ClassVar = ["late", "early"]
    REFUSALS: ClassVar = [
        ("late", {"placement": "early-residual"}, "placement"),
        ("late", {"hidden": 0}, "hidden"),
        ("late", {"head_width": -1}, "head_width"),
        ("late", {"dropout": 1.5}, "dropout"),
        ("late", {"hiden": 3}, "hidden"),
        ("late", {"text_views": 4}, "text_views"),
        ("late", {"variant": "paper"}, "variant"),
    ]

    def test_a_change_of_one_utterance_moves_no_other(self, host):
        batch, changed = dialogues([5, 3], DIMS), dialogues([5, 3], DIMS)
        for x in changed.features.values():
            x[0, 2] += 1
        moved = (host(changed).logits - host(batch).logits).abs().amax(-1) > 1e-6
        assert moved.nonzero().tolist() == [[0, 2]]

    def test_who_speaks_does_not_matter(self, host):
        batch = dialogues([6], DIMS)
        expected = host(batch).logits
        batch.speakers = 1 - batch.speakers
        torch.testing.assert_close(host(batch).logits, expected, atol=0, rtol=0)

    def test_a_shared_layer_reads_every_modality_and_an_own_one_its_own(self):
        for build, expected in (("late", [3]), ("own layers", [1, 1, 1])):
            host = self.make(build)
            read = [0] * len(host.layers)

            def count(layer, *_, host=host, read=read):
                read[list(host.layers).index(layer)] += 1

            for layer in host.layers:
                layer.register_forward_hook(count)
            host(dialogues([4], DIMS))
            assert read == expected

    def test_dropout_acts_in_training_only(self, build):
        noisy = self.make(build, dropout=0.5)
        batch = dialogues([6], DIMS)
        close(noisy(batch).logits, noisy(batch).logits)
        noisy.train()
        assert not torch.allclose(noisy(batch).logits, noisy(batch).logits)
