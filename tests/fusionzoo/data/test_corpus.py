from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fusionzoo.data.corpus import Corpus
from fusionzoo.errors import DataError


def change(column: str, row: int, value: object) -> Callable[[Corpus], None]:
    def apply(corpus: Corpus) -> None:
        array = getattr(corpus, column).copy()
        if array.dtype.kind == "U":
            array = array.astype("U30")
        array[row] = value
        setattr(corpus, column, array)

    return apply


def put_feature(value: float) -> Callable[[Corpus], None]:
    def apply(corpus: Corpus) -> None:
        corpus.features["audio"][7, 1] = value

    return apply


BAD: dict[str, tuple[Callable[[Corpus], None], list[str]]] = {
    "nan": (put_feature(np.nan), ["small.npz", "'audio'", "row 7", "'d1'", "feature 1", "finite", "audio_mask"]),
    "infinity": (put_feature(np.inf), ["'audio'", "inf", "row 7"]),
    "label too large": (change("label", 4, 6), ["small.npz", "'label'", "6", "row 4", "'d1'", "0 to 5"]),
    "label negative": (change("label", 4, -1), ["'label'", "-1", "row 4", "-100"]),
    "empty id": (change("dialogue_id", 8, ""), ["small.npz", "'dialogue_id'", "empty at row 8"]),
    "dialogue comes back": (change("dialogue_id", 20, "d0"), ["'dialogue_id'", "'d0'", "row 20", "contiguous"]),
    "same utterance twice": (change("utterance_index", 5, 1), ["'utterance_index'", "row 5", "after 1", "grow"]),
    "empty speaker": (change("speaker", 2, " "), ["'speaker'", "row 2", "unknown"]),
    "unknown split": (change("split", 8, "tset"), ["'split'", "'tset'", "row 8", "did you mean 'test'"]),
    "dialogue in two splits": (change("split", 7, "test"), ["'split'", "row 7", "one split per dialogue"]),
}


@pytest.mark.parametrize("case", BAD)
def test_validate_names_file_column_row_and_what_to_do(corpus: Corpus, case: str):
    spoil, words = BAD[case]
    corpus.validate()
    spoil(corpus)
    with pytest.raises(DataError) as caught:
        corpus.validate()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("column", ["utterance_index", "speaker", "label", "split", "utterance_id"])
def test_columns_of_other_length_are_refused(corpus: Corpus, column: str):
    setattr(corpus, column, getattr(corpus, column)[:-1])
    with pytest.raises(DataError, match=rf"'{column}' has shape \(20,\), expected \(21,\)"):
        corpus.validate()


def test_features_of_other_length_or_without_width_are_refused(corpus: Corpus):
    corpus.features["text"] = corpus.features["text"][:-2]
    corpus.features["audio"] = corpus.features["audio"][:, :0]
    problems = corpus.problems()
    assert "'text' has shape (19, 4), expected (21, width)" in problems[0]
    assert "'audio' has shape (21, 0)" in problems[1]


def test_labels_that_are_no_whole_numbers_are_refused_and_not_rounded(corpus: Corpus):
    soft = corpus.label.astype(np.float64)
    soft[4] = 1.5
    with pytest.raises(DataError, match=r"'label' has dtype float64, with 1.5 at row 4 .*int64"):
        replace(corpus, label=soft).validate()


def test_all_problems_are_counted(corpus: Corpus):
    put_feature(np.nan)(corpus)
    change("label", 4, 9)(corpus)
    with pytest.raises(DataError, match="1 more"):
        corpus.validate()


def test_nothing_at_all_is_refused():
    empty = Corpus("none", {}, np.array([]), np.array([], int), np.array([]), np.array([], int), (), np.array([]))
    assert any("no utterances" in p for p in empty.problems())
    assert any("no modality" in p for p in empty.problems())
    assert len(empty) == 0
    assert len(empty.speaker_index()) == 0


def test_missing_rows_may_hold_anything(corpus: Corpus):
    corpus.features["audio"][7] = np.nan
    corpus.present = {"audio": np.arange(len(corpus)) != 7}
    corpus.validate()
    assert corpus.summary()["missing"] == {"audio": 1}


def test_masks_must_be_bool_and_of_a_modality(corpus: Corpus):
    corpus.present = {"audio": np.full(len(corpus), 0.5), "smell": np.ones(len(corpus), bool)}
    problems = corpus.problems()
    assert "'audio_mask' has dtype float64, expected bool" in problems[0]
    assert "'smell', which is no modality" in problems[1]


def test_unlabelled_rows_are_sound(corpus: Corpus):
    change("label", 4, -100)(corpus)
    assert corpus.validate().summary()["unlabelled"] == 1


def test_half_and_double_precision_become_single(corpus: Corpus):
    other = replace(corpus, features={"a": corpus.features["text"].astype(np.float16), "b": np.ones((21, 2))})
    assert {x.dtype for x in other.features.values()} == {np.dtype(np.float32)}
    with pytest.raises(DataError, match="inf"):
        replace(corpus, features={"a": np.full((21, 1), 1e300)}).validate()


def test_speaker_index_counts_by_first_appearance_in_each_dialogue(corpus: Corpus):
    corpus.speaker = np.array([*"ZAZ", *"BACAB", "A", *"AAAB", *"BA", *"CCBCAB"])
    expected = [0, 1, 0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 2, 1]
    assert corpus.speaker_index().tolist() == expected
    assert corpus.num_speakers == 3


def test_speaker_index_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 9, size=60)
    rows = int(lengths.sum())
    names = rng.permutation(60).astype(str)
    big = Corpus(
        "big",
        {"x": np.ones((rows, 1))},
        np.repeat(names, lengths),
        np.concatenate([np.arange(n) for n in lengths]),
        rng.integers(0, 5, rows).astype(str),
        np.zeros(rows, int),
        ("a",),
        np.full(rows, "train"),
    )
    expected = []
    for d in sorted(big.dialogues(), key=lambda d: d.start):
        seen: dict[str, int] = {}
        expected += [seen.setdefault(s, len(seen)) for s in big.speaker[d.start : d.stop]]
    assert big.speaker_index().tolist() == expected


def test_dialogues_are_sorted_by_id_whatever_the_order_of_the_file(corpus: Corpus):
    names = {"d0": "z", "d1": "b", "d2": "y", "d3": "c", "d4": "x", "d5": "a"}
    corpus.dialogue_id = np.array([names[d] for d in corpus.dialogue_id])
    assert [d.id for d in corpus.dialogues()] == ["a", "b", "c", "x", "y", "z"]
    assert [(d.id, d.start, d.stop, len(d)) for d in corpus.dialogues("train")] == [
        ("b", 3, 8, 5),
        ("y", 8, 9, 1),
        ("z", 0, 3, 3),
    ]
    with pytest.raises(DataError, match="did you mean 'train'"):
        corpus.dialogues("trian")


def test_subset_keeps_the_asked_order_and_refuses_unknown_names(corpus: Corpus):
    corpus.present = {"text": np.ones(21, bool), "audio": np.ones(21, bool)}
    some = corpus.subset(["audio", "visual"])
    assert some.dims == {"audio": 3, "visual": 2}
    assert list(some.present) == ["audio"]
    with pytest.raises(DataError, match=r"no modality 'vissual'; did you mean 'visual'.*text \(4\)"):
        corpus.subset(["vissual"])
    for wrong in ([], ["text", "text"]):
        with pytest.raises(DataError, match="each once"):
            corpus.subset(wrong)


def test_with_split_must_name_exactly_the_dialogues(corpus: Corpus):
    mapping = {d.id: "test" if d.id == "d0" else "train" for d in corpus.dialogues()}
    changed = corpus.with_split(mapping)
    assert [d.id for d in changed.dialogues("test")] == ["d0"]
    assert [d.id for d in corpus.dialogues("test")] == ["d4", "d5"]
    with pytest.raises(DataError, match=r"dialogue 'nobody', not in small.npz"):
        corpus.with_split(mapping | {"nobody": "dev"})
    with pytest.raises(DataError, match=r"says nothing about dialogue 'd3'"):
        corpus.with_split({d: s for d, s in mapping.items() if d != "d3"})
    with pytest.raises(DataError, match=r"'d1' in 'holdout'"):
        corpus.with_split(mapping | {"d1": "holdout"})


def test_summary_and_repr(corpus: Corpus):
    facts = corpus.summary()
    assert facts["splits"]["train"] == {"dialogues": 3, "utterances": 9}
    assert sum(facts["labels"].values()) == facts["utterances"] == 21
    assert facts["speakers"] == {"distinct": 2, "largest_dialogue": 2}
    assert repr(corpus) == "Corpus('small': 21 utterances, text 4, audio 3, visual 2, 6 classes)"


def test_bytes_and_numbers_are_read_as_text(corpus: Corpus):
    other = replace(corpus, speaker=np.arange(21), dialogue_id=corpus.dialogue_id.astype("S"), utterance_id=None)
    assert other.validate().speaker[3] == "3"
    assert other.dialogue_id[0] == "d0"
    assert other.utterance_id is not None
    assert other.utterance_id[4] == "d1_1"


def test_some_utterances_alone_keep_all_that_is_theirs(corpus: Corpus):
    corpus.present = {"audio": np.arange(21) % 2 == 0}
    rows = corpus.split == "test"
    some = corpus.at(rows)
    assert len(some) == rows.sum() > 0
    assert some.utterance_id is not None
    assert corpus.utterance_id is not None
    assert some.utterance_id.tolist() == corpus.utterance_id[rows].tolist()
    np.testing.assert_array_equal(some.features["text"], corpus.features["text"][rows])
    np.testing.assert_array_equal(some.present["audio"], corpus.present["audio"][rows])
    assert set(some.split) == {"test"}
    assert some.label_names == corpus.label_names
