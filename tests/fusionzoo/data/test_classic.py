from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusionzoo.data import ResidentSplit, feature_statistics, load, save_npz
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.entries import MELD_CLASSES
from fusionzoo.errors import DataError

Write = Callable[..., Path]


def same_batches(first: Corpus, second: Corpus, names: dict[str, str]) -> None:
    """Every batch of every split equal bit for bit, shuffled and not, up to the modality names."""
    for split in ("train", "dev", "test"):
        for shuffle in (True, False):
            options: dict[str, Any] = {"shuffle": shuffle, "seed": 3, "epoch": 2}
            pairs = zip(
                ResidentSplit(first, split).batches(2, **options),
                ResidentSplit(second, split).batches(2, **options),
                strict=True,
            )
            for a, b in pairs:
                assert a.ids == b.ids
                assert a.lengths == b.lengths
                for x, y in ((a.mask, b.mask), (a.labels, b.labels), (a.speakers, b.speakers)):
                    assert torch.equal(x, y)
                for m, n in names.items():
                    assert torch.equal(a.features[m], b.features[n])


@pytest.mark.parametrize("protocol", [2, 5])
def test_gives_the_same_batches_as_the_npz(
    corpus: Corpus, classic: list[Any], write_pickle: Write, tmp_path: Path, protocol: int
):
    names = {"F": "Ses01F", "M": "Ses01M"}
    corpus.speaker = np.array([names[s] for s in corpus.speaker])
    corpus.features["nonverbal"] = corpus.features.pop("visual")
    npz = save_npz(corpus, tmp_path / "small.npz")
    got = load(write_pickle(tuple(classic), protocol=protocol), split=npz)
    assert got.label_names == corpus.label_names
    assert got.info["layout"] == "classic-pickle"
    same_batches(load(npz), got, {"text": "text", "audio": "audio", "nonverbal": "visual"})


def test_real_iemocap_pickle_gives_the_same_batches_as_the_npz(shared_data: Path):
    npz = load(shared_data / "iemocap.npz")
    assert npz.dims == {"text": 384, "audio": 58, "nonverbal": 8}
    pkl = load(shared_data / "iemocap_classic9.pkl", split=shared_data / "iemocap.npz")
    assert pkl.summary()["splits"] == npz.summary()["splits"]
    same_batches(npz, pkl, {"text": "text", "nonverbal": "visual"})
    # That pickle's audio is the npz's, already standardised on its train split: equal after standardising both.
    standard = []
    for corpus in (npz, pkl):
        mean, std = feature_statistics(corpus)["audio"]
        order = np.argsort(corpus.dialogue_id, kind="stable")
        standard.append((corpus.features["audio"][order] - mean.numpy()) / std.numpy())
    np.testing.assert_allclose(standard[0], standard[1], atol=1e-5)


def test_real_meld_has_missing_faces(shared_data: Path):
    meld = load(shared_data / "meld_textvisual.npz")
    assert meld.dims == {"text": 384, "visual": 105}
    assert list(meld.present) == ["visual"]
    assert 0 < (~meld.present["visual"]).sum() < 100


def test_dev_is_drawn_from_train_whole_dialogues_and_seeded(classic: list[Any], write_pickle: Write):
    path = write_pickle(tuple(classic))
    draws = {seed: {d.id for d in load(path, split_seed=seed).dialogues("dev")} for seed in range(12)}
    assert all(len(drawn) == 1 and drawn < classic[7] for drawn in draws.values())
    assert len({frozenset(d) for d in draws.values()}) > 1
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    assert {d.id for d in load(path, split_seed=4).dialogues("dev")} == draws[4]
    assert np.random.random() == expected  # the global random state is left alone
    assert load(path, dev_fraction=0.5).summary()["splits"]["dev"]["dialogues"] == 2
    assert load(path, dev_fraction=0).dialogues("dev") == []
    assert {d.id for d in load(path).dialogues("test")} == classic[8]


def test_containers_may_be_lists_arrays_or_tuples(corpus: Corpus, classic: list[Any], write_pickle: Write):
    classic[2] = {d: np.array(x) for d, x in classic[2].items()}
    classic[3] = {d: np.stack(x).astype(np.float64) for d, x in classic[3].items()}
    classic[4] = {d: [row.tolist() for row in x] for d, x in classic[4].items()}
    classic[7], classic[8] = sorted(classic[7]), np.array(sorted(classic[8]))
    got = load(write_pickle(classic))
    for m in corpus.features:
        np.testing.assert_array_equal(got.features[m], corpus.features[m])
    np.testing.assert_array_equal(got.label, corpus.label)
    assert got.info["stored_dtypes"] == {"text": "float64", "audio": "float64", "visual": "float32"}
    assert got.extras["sentence"][4] == "sentence 1"


def meld(classic: list[Any], visual: bool) -> list[Any]:
    """The MELD order: one-hot speakers, numbers as dialogue ids, sentiment at the end."""
    entries: list[Any] = [{int(d[1:]): rows for d, rows in entry.items()} for entry in classic[:7]]
    entries[0] = {d: list(range(len(rows))) for d, rows in entries[0].items()}
    entries[1] = {d: [np.eye(9)[3 if s == "M" else 7] for s in rows] for d, rows in entries[1].items()}
    entries[2] = {d: [x % 7 for x in rows] for d, rows in entries[2].items()}
    entries[2][5][5] = 6
    sentiment = {d: [x % 3 for x in rows] for d, rows in entries[2].items()}
    if not visual:
        del entries[5]
    return [*entries, *[{int(d[1:]) for d in ids} for ids in classic[7:9]], sentiment]


@pytest.mark.parametrize("visual", [False, True])
def test_meld_orders_are_recognised(corpus: Corpus, classic: list[Any], write_pickle: Write, visual: bool):
    got = load(write_pickle(tuple(meld(classic, visual))))
    assert got.info["layout"] == ("meld-visual-pickle" if visual else "meld-pickle")
    assert got.modalities == (("text", "audio", "visual") if visual else ("text", "audio"))
    assert got.label_names == MELD_CLASSES
    assert {str(s) for s in got.speaker} == {"S3", "S7"}
    np.testing.assert_array_equal(got.speaker_index(), corpus.speaker_index())
    assert [d.id for d in got.dialogues()] == ["0", "1", "2", "3", "4", "5"]
    assert got.utterance_id is not None
    assert got.utterance_id[4] == "1_1"
    assert got.extras["sentiment"].tolist() == [x % 3 for x in got.label]
    np.testing.assert_array_equal(got.features["text"], corpus.features["text"])


def test_an_unknown_speaker_row_is_kept_apart_and_a_broken_one_refused(classic: list[Any], write_pickle: Write):
    entries: list[Any] = meld(classic, True)
    entries[1][1][2] = np.zeros(9)
    assert load(write_pickle(tuple(entries))).speaker[5] == "unknown"
    entries[1][1][2] = np.full(9, 0.5)
    with pytest.raises(DataError, match=r"entry 1 \(speakers\), dialogue '1', utterance 2.*one-hot"):
        load(write_pickle(tuple(entries)))


def test_class_names_follow_the_number_of_classes_or_the_caller(classic: list[Any], write_pickle: Write):
    six = load(write_pickle(tuple(classic)))
    assert six.label_names == ("happy", "sad", "neutral", "angry", "excited", "frustrated")
    named = load(write_pickle(tuple(classic)), label_names=[*"abcdefgh"])
    assert named.label_names == (*"abcdefgh",)
    classic[2] = {d: [x % 4 for x in rows] for d, rows in classic[2].items()}
    assert load(write_pickle(tuple(classic))).label_names == ("class0", "class1", "class2", "class3")


def test_one_hot_labels_are_read(corpus: Corpus, classic: list[Any], write_pickle: Write):
    classic[2] = {d: np.eye(6)[rows] for d, rows in classic[2].items()}
    np.testing.assert_array_equal(load(write_pickle(tuple(classic))).label, corpus.label)


# ---------------------------------------------------------------------- bad input


def set_at(entry: int, dialogue: str, row: int | None, value: Any) -> Callable[[list[Any]], None]:
    def apply(classic: list[Any]) -> None:
        if row is None:
            classic[entry][dialogue] = value
        else:
            classic[entry][dialogue][row] = value

    return apply


def drop(entry: int, dialogue: str) -> Callable[[list[Any]], None]:
    return lambda classic: classic[entry].pop(dialogue)


def everything_empty(classic: list[Any]) -> None:
    for entry in classic[:7]:
        entry["d2"] = []


def no_label(classic: list[Any]) -> None:
    classic[2]["d1"] = classic[2]["d1"][:-1]


BAD: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "empty dialogue": (everything_empty, r"entry 0 \(ids\), dialogue 'd2' has no utterance.*Remove"),
    "label missing": (no_label, r"entry 2 \(labels\), dialogue 'd1' has 4 rows, expected 5"),
    "label fractional": (set_at(2, "d1", 2, 1.5), r"entry 2 \(labels\), dialogue 'd1' holds 3, 4, 1.5.*whole numbers"),
    "label text": (set_at(2, "d1", 2, "sad"), r"entry 2 \(labels\), dialogue 'd1'.*whole numbers"),
    "label far outside": (set_at(2, "d1", 2, 40), r"labels\) goes up to 40, but .* never occur.*label_names"),
    "label negative": (
        set_at(2, "d1", 2, -3),
        r"'label' is -3 at row 5 \(dialogue 'd1', utterance 2\).*expected 0 to 5",
    ),
    "width": (set_at(4, "d3", 1, np.zeros(7)), r"entry 4 \(audio\), dialogue 'd3', utterance 1 .*\(7,\).*vector of 3"),
    "first width of a dialogue": (
        set_at(4, "d3", None, np.zeros((4, 7))),
        r"entry 4 \(audio\), dialogue 'd3', utterance 0 .*\(7,\).*vector of 3",
    ),
    "no vectors": (set_at(3, "d0", None, [1.0, 2.0, 3.0]), r"entry 3 \(text\), dialogue 'd0', utterance 0"),
    "text for numbers": (set_at(3, "d1", 0, ["a"] * 4), r"entry 3 \(text\), dialogue 'd1', utterance 0 is a <U1"),
    "nan": (
        set_at(5, "d4", 1, np.array([0.0, np.nan])),
        r"'visual' holds nan at row 14 \(dialogue 'd4', utterance 1\)",
    ),
    "dialogue missing": (drop(5, "d3"), r"entry 5 \(visual\) lacks dialogue 'd3'"),
    "no rows": (set_at(3, "d3", None, 5), r"entry 3 \(text\), dialogue 'd3' is a int"),
    "ids are no collection": (lambda c: c.__setitem__(7, "train"), r"entry 7 \(train\) is a str"),
    "unknown train id": (lambda c: c[7].add("d9"), r"entry 7 \(train\) names dialogue 'd9'.*no utterances"),
    "train and test": (lambda c: c[8].add("d0"), r"entry 8 \(test\) names dialogue 'd0' that are train too"),
    "ids of two types": (lambda c: c[0].update({5: ["u"], "5": ["u"]}), r"differ only in type"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_file_entry_and_dialogue(classic: list[Any], write_pickle: Write, case: str):
    spoil, words = BAD[case]
    spoil(classic)
    with pytest.raises(DataError, match=words) as caught:
        load(write_pickle(tuple(classic)))
    assert "features.pkl" in str(caught.value)


def test_dialogues_in_neither_split_are_left_out_and_said(classic: list[Any], write_pickle: Write, tmp_path: Path):
    classic[7].discard("d1")
    path = write_pickle(tuple(classic))
    got = load(path)
    assert "d1" not in [d.id for d in got.dialogues()]
    assert got.info["skipped"] == ["dialogue 'd1': in neither train nor test"]
    everything = tmp_path / "split.json"
    everything.write_text('{"train": ["d0", "d1", "d2"], "dev": ["d3"], "test": ["d4", "d5"]}')
    assert "d1" in [d.id for d in load(path, split=everything).dialogues("train")]


def test_broken_sentences_cost_only_the_sentences(classic: list[Any], write_pickle: Write):
    classic[6] = {"d0": ["only one"]}
    got = load(write_pickle(tuple(classic)))
    assert "sentence" not in got.extras
    assert "sentences" in got.info["skipped"][0]


@pytest.mark.parametrize("content", [[1, 2], {"train": []}, "text", tuple({} for _ in range(9)), ({},) * 12])
def test_unknown_layouts_say_what_was_found_and_expected(write_pickle: Write, content: Any):
    with pytest.raises(DataError, match=r"features.pkl: holds a (list|dict|str|tuple).*ids, speakers, labels, text"):
        load(write_pickle(content))


def test_a_pickle_without_dialogues_is_refused(write_pickle: Write):
    with pytest.raises(DataError, match="no dialogue"):
        load(write_pickle((*({} for _ in range(7)), set(), set())))


def test_the_reader_never_uses_plain_pickle(classic: list[Any], write_pickle: Write, monkeypatch):
    path = write_pickle(tuple(classic))
    monkeypatch.setattr(pickle, "load", None)
    monkeypatch.setattr(pickle, "loads", None)
    assert len(load(path)) == 21
