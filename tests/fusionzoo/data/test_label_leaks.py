"""Labels that were planted in features are found, whatever form they have; honest features are left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fusionzoo.data.demo import demo
from fusionzoo.data.label_leaks import by_class, read_labels


@pytest.fixture(scope="module")
def corpus():
    return demo(dialogues=(30, 2, 14), length=(4, 10))


def planted(corpus, what):
    """The corpus with the labels in the modality `audio`."""
    rng = np.random.default_rng(0)
    x, one_hot = corpus.features["audio"].copy(), np.eye(corpus.num_classes)[corpus.label]
    scale = x.std(0)
    if what == "the label":
        x[:, 7] = corpus.label
    elif what == "its number under another name":
        x[:, 7] = np.array([5.0, -1.0, 3.0, 3.5, 100.0, 0.0])[corpus.label]
    elif what == "one class of it":
        x[:, 7] = corpus.label == 2
    elif what == "with a little noise":
        x[:, 7] = corpus.label + rng.normal(0, 0.1, len(corpus))
    elif what == "mixed into many columns":
        x += 1.2 * scale * (one_hot @ rng.normal(size=(corpus.num_classes, x.shape[1])))
    elif what == "at the places of other utterances":
        x[:, 7] = rng.permutation(corpus.label)
    elif what == "constant columns":
        x[:, 7] = 1e6
    return replace(corpus, features=corpus.features | {"audio": x})


@pytest.mark.parametrize(
    "what", ["the label", "its number under another name", "one class of it", "with a little noise"]
)
def test_a_column_that_is_the_label_is_named(what, corpus):
    found = {r.modality: r for r in read_labels(planted(corpus, what))}
    assert found["audio"].columns == (7,)
    assert (found["audio"].leak or "").startswith("column 7 of audio is made from the labels")
    assert found["text"].leak is None


def test_labels_in_no_column_of_their_own_are_found_by_a_linear_reader(corpus):
    found = {r.modality: r for r in read_labels(planted(corpus, "mixed into many columns"))}
    assert found["audio"].columns == ()
    assert "audio holds the labels: a linear map of it alone is right on" in (found["audio"].leak or "")


@pytest.mark.parametrize("what", ["nothing", "at the places of other utterances", "constant columns"])
def test_honest_features_are_left_alone(what, corpus):
    found = read_labels(planted(corpus, what))
    assert [r.leak for r in found] == [None, None, None]
    assert max(r.accuracy for r in found) < 0.8


def test_a_split_with_few_labels_proves_nothing(corpus):
    assert read_labels(replace(corpus, label=np.where(corpus.split == "test", -100, corpus.label))) == []


def test_the_share_between_classes_by_hand():
    x = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0], [6.0, 1.0]])
    # Means 1 and 5 around 3: 16 of a total of 20; a column that never varies has no share.
    np.testing.assert_allclose(by_class(x, np.array([0, 0, 1, 1]), 2), [0.8, 0.0])
