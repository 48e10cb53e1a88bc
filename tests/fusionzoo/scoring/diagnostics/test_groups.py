from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fusionzoo.data import Corpus
from fusionzoo.scoring.diagnostics.groups import SHIFT, STAY, emotions_before, groups_of
from fusionzoo.scoring.diagnostics.predicted import Predicted


def test_emotions_before_are_the_same_speakers_in_the_same_dialogue():
    dialogue = np.array(["a"] * 5 + ["b"] * 2)
    speaker = np.array(["x", "y", "x", "x", "y", "x", "y"])
    label = np.array([0, 1, -100, 2, 1, 3, 0])
    # An utterance without a label is passed over; nothing comes over from dialogue a to b.
    assert emotions_before(dialogue, speaker, label).tolist() == [-1, -1, 0, 0, 1, -1, -1]


def predicted_of(corpus: Corpus, guess: np.ndarray) -> Predicted:
    return Predicted(corpus, "test", np.arange(len(corpus)), np.eye(corpus.num_classes)[guess])


@pytest.fixture(scope="module")
def talk():
    """Forty dialogues of two speakers, whose emotions are drawn anew half of the time."""
    rng = np.random.default_rng(0)
    dialogues, n = 40, 12
    label = rng.integers(0, 4, dialogues * n)
    for i in range(dialogues * n):
        if i % n > 1 and rng.random() < 0.5:
            label[i] = label[i - 2]
    return Corpus(
        name="talk",
        features={"text": np.zeros((dialogues * n, 2))},
        dialogue_id=np.repeat([f"d{i:02d}" for i in range(dialogues)], n),
        utterance_index=np.tile(np.arange(n), dialogues),
        speaker=np.tile(["ann", "bob"], dialogues * n // 2),
        label=label,
        label_names=("a", "b", "c", "d"),
        split=np.full(dialogues * n, "test"),
    )


def test_a_model_that_repeats_the_past_is_named(talk):
    before = emotions_before(talk.dialogue_id, talk.speaker, talk.label)
    found = groups_of(predicted_of(talk, np.where(before < 0, talk.label, before)))
    scores = {g.name: g.scores["wa"] for g in found.shifts}
    assert scores[SHIFT] == 0.0
    assert scores[STAY] == 1.0
    assert found.stuck == 1.0
    words = [f.words for f in found.findings()]
    assert "repeats the past: of the utterances where the emotion shifts, 100 % get the one before" in words
    assert any(w.startswith("is right less often where the speaker's emotion shifts") for w in words)


def test_a_class_that_is_missed_is_named_with_what_it_is_taken_for(talk):
    found = groups_of(predicted_of(talk, np.where(talk.label == 2, 3, talk.label)))
    missed = found.classes[2]
    assert (missed.f1, missed.taken_for, missed.share) == (0.0, "d", 1.0)
    words = [f.words for f in found.findings() if f.grave]
    assert words == [f"misses c: F1 .000 of {missed.support} utterances; 100 % of it is taken for d"]
    assert found.classes[0].taken_for is None


def test_a_speaker_who_is_not_understood_is_named_and_chance_is_not(talk):
    wrong = (talk.label + 1) % 4
    rng = np.random.default_rng(1)
    half = rng.random(len(talk)) < 0.5
    bad = groups_of(predicted_of(talk, np.where((talk.speaker == "bob") & half, wrong, talk.label)))
    assert [g.name for g in bad.speakers] == ["bob", "ann"]
    assert any("with speaker bob" in f.words for f in bad.findings())
    even = groups_of(predicted_of(talk, np.where(half, wrong, talk.label)))
    assert not any("speaker bob" in f.words for f in even.findings())


def test_lengths_are_thirds_and_alike_ones_one_group(talk):
    assert [g.name for g in groups_of(predicted_of(talk, talk.label)).lengths] == ["12 utterances"]
    keep = np.ones(len(talk), bool)
    for i in range(20):
        keep[i * 12 + 4 : (i + 1) * 12] = False
    columns = {
        c: getattr(talk, c)[keep]
        for c in ("dialogue_id", "utterance_index", "utterance_id", "speaker", "label", "split")
    }
    mixed = replace(talk, features={"text": talk.features["text"][keep]}, **columns)
    found = groups_of(predicted_of(mixed, mixed.label))
    assert [(g.name, g.dialogues, g.count) for g in found.lengths] == [
        ("4 utterances", 20, 80),
        ("12 utterances", 20, 240),
    ]
