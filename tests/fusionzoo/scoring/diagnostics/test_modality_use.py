"""What is said of hosts whose use of each modality is known, because they were written that way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionzoo.data import Corpus
from fusionzoo.errors import DataError
from fusionzoo.host import Host, HostOutput
from fusionzoo.scoring.diagnostics.modality_use import ANY, modality_use, steps_of
from fusionzoo.scoring.diagnostics.predicted import predict_split


class Known(Host):
    """Logits are a weighted sum of the modalities, which hold one column per class."""

    def __init__(
        self, dims, num_classes, num_speakers, fusion="concat", placement=None, *, weights=(3.0, 1.0, 0.0), strict=False
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        self.fusion = self.make_fusion(self.dims)
        self.weights, self.strict = weights, strict

    def encode(self, features, mask, batch):
        if self.strict and batch.present and not all(bool((p | ~batch.mask).all()) for p in batch.present.values()):
            raise DataError("takes no missing modality")
        logits = sum(w * features[m] for w, m in zip(self.weights, self.names, strict=True))
        return HostOutput(logits)


@pytest.fixture(scope="module")
def talk():
    """`text` knows every class, `audio` half of the utterances, `visual` nothing."""
    rng = np.random.default_rng(0)
    n = 480
    label = rng.integers(0, 4, n)
    features = {m: rng.normal(0, 0.1, (n, 4)) for m in ("text", "audio", "visual")}
    features["text"][np.arange(n), label] += 1
    half = rng.random(n) < 0.5
    features["audio"][half, label[half]] += 1
    return Corpus(
        name="talk",
        features=features,
        dialogue_id=np.repeat([f"d{i:02d}" for i in range(48)], 10),
        utterance_index=np.tile(np.arange(10), 48),
        speaker=np.tile(["ann", "bob"], n // 2),
        label=label,
        label_names=("a", "b", "c", "d"),
        split=np.repeat(["train", "test"], n // 2),
    )


def host_of(talk, **options):
    torch.manual_seed(0)
    return Known(talk.dims, 4, 2, **options).eval()


def words(use):
    return [f.words for f in use.findings()]


def test_a_modality_that_is_not_read_is_named(talk):
    host = host_of(talk)
    steps = []
    use = modality_use(host, talk.at(talk.split == "test"), repeats=3, rates=(0.5, 1.0), step=lambda: steps.append(1))
    assert len(steps) == steps_of(3, repeats=3, rates=(0.5, 1.0))
    ignored = next(p for p in use.permuted if p.modality == "visual")
    assert (ignored.drop, ignored.moved, ignored.flipped) == (0.0, 0.0, 0.0)
    assert words(use)[2] == "ignores visual: permuting it changes nothing, no output moves"
    assert words(use)[0].startswith("reads text: permuting it costs W-F1 .")
    assert use.without["visual"] == use.scores["weighted_f1"] == 1.0
    assert use.alone["text"] == 1.0
    assert use.alone["visual"] == pytest.approx(use.majority, abs=0.05)  # all logits are zero: the first class
    assert use.missing["text"][0.0] == 1.0
    assert use.missing["text"][0.0] > use.missing["text"][0.5] > use.missing["text"][1.0] == use.without["text"]
    assert list(use.missing[ANY]) == [0.0, 0.5]


def test_one_that_is_read_and_changes_no_score_is_named_too(talk):
    use = modality_use(host_of(talk, weights=(3.0, 0.0, 0.02)), talk.at(talk.split == "test"), repeats=2, rates=())
    assert use.permuted[2].moved > 0
    assert words(use)[2].startswith(
        "ignores visual: permuting it costs W-F1 .000 [.000, .000] of 1.000, which is less than"
    )


def test_one_that_misleads_is_named(talk):
    """The labels of the split are turned against what `audio` shows."""
    from dataclasses import replace

    features = talk.features | {"audio": np.roll(talk.features["text"], 1, axis=1)}
    host = host_of(talk, weights=(1.0, 1.1, 0.0))
    use = modality_use(host, replace(talk, features=features).at(talk.split == "test"), repeats=3, rates=())
    assert words(use)[1].startswith("is misled by audio: permuting it raises W-F1 by .")


def test_a_model_that_takes_no_missing_modality_is_still_permuted(talk):
    use = modality_use(host_of(talk, strict=True), talk.at(talk.split == "test"), repeats=1)
    assert use.refused == "takes no missing modality"
    assert use.missing == {}
    assert use.without == dict.fromkeys(talk.modalities)
    assert use.permuted[0].drop > 0.3


def test_nothing_of_the_corpus_is_changed_and_the_same_seed_gives_the_same(talk):
    part = talk.at(talk.split == "test")
    before = {m: x.copy() for m, x in part.features.items()}
    host = host_of(talk)
    first, again = (modality_use(host, part, repeats=1, rates=(0.5,), seed=3) for _ in range(2))
    assert first == again
    assert part.present == {}
    for m, x in before.items():
        np.testing.assert_array_equal(part.features[m], x)


def test_a_split_without_labels_says_where_labels_are(talk):
    with pytest.raises(DataError, match="no labelled utterance in its dev split; labels are in: test, train"):
        predict_split(host_of(talk), talk, "dev")
