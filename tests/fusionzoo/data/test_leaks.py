"""A planted leak is found and counted; words said again are none."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionzoo.data import inspect, load, save_npz
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.leaks import find_leaks, shared_speakers, warn_of_leaks
from fusionzoo.errors import DataError, DataWarning


def make(dialogues: int = 40, length: int = 5, seed: int = 0, **modalities: int) -> Corpus:
    """Random conversations; three quarters train, then dev and test."""
    random = np.random.default_rng(seed)
    rows = dialogues * length
    parts = ["train" if i < 0.75 * dialogues else "dev" if i < 0.85 * dialogues else "test" for i in range(dialogues)]
    return Corpus(
        name="made",
        features={m: random.normal(size=(rows, d)).astype(np.float32) for m, d in (modalities or {"text": 8, "audio": 3}).items()},
        dialogue_id=np.repeat([f"d{i:03}" for i in range(dialogues)], length),
        utterance_index=np.tile(np.arange(length), dialogues),
        speaker=np.repeat([f"s{i}" for i in range(dialogues)], length),
        label=random.integers(0, 3, rows),
        label_names=("a", "b", "c"),
        split=np.repeat(parts, length),
    )  # fmt: skip


def copy_rows(corpus: Corpus, source: Any, target: Any, *modalities: str) -> Corpus:
    features = {m: x.copy() for m, x in corpus.features.items()}
    for m in modalities or corpus.modalities:
        features[m][target] = features[m][source]
    return replace(corpus, features=features)


def test_random_data_have_no_leak():
    assert find_leaks(make()) == []


@pytest.mark.parametrize("count", [1, 4, 20])
def test_whole_rows_in_two_splits_are_counted(count: int):
    corpus = copy_rows(make(), slice(0, count), slice(170, 170 + count))
    (leak,) = find_leaks(corpus)
    assert f"{count} of 30 test utterances have exactly the whole set of features of a train utterance" in leak
    assert ("whole dialogue" in leak) == (count >= 5)


def test_rows_of_one_modality_are_counted_by_its_name():
    corpus = copy_rows(make(), slice(3, 9), slice(172, 178), "audio")
    assert [leak[:60] for leak in find_leaks(corpus)] == [
        "6 of 30 test utterances have exactly the audio features of a"
    ]
    assert find_leaks(copy_rows(make(), 3, 172, "audio")) == []  # one row may meet another


def test_a_leak_into_dev_and_between_dev_and_test_is_found():
    leaks = find_leaks(copy_rows(copy_rows(make(), slice(0, 4), slice(152, 156)), slice(157, 159), slice(180, 182)))
    assert [leak.partition(" utterance")[0] for leak in leaks] == ["4 of 20 dev", "2 of 30 test"]


def test_words_said_again_are_no_leak_but_a_copied_dialogue_is():
    corpus = make(dialogues=200, text=8)
    random = np.random.default_rng(1)
    again = np.flatnonzero(random.random(len(corpus)) < 0.2)
    corpus.features["text"][again] = corpus.features["text"][random.integers(0, 12, len(again))]
    assert find_leaks(corpus) == []
    (leak,) = find_leaks(copy_rows(corpus, slice(50, 55), slice(900, 905)))
    assert "1 whole dialogue(s)" in leak


def test_silent_rows_are_not_counted():
    corpus = make()
    for m in corpus.features:
        corpus.features[m][:100] = 0
        corpus.features[m][150:] = 0
    corpus.features["audio"][120:180] = 0.25
    assert find_leaks(corpus) == []
    corpus = make()
    corpus.features["text"][[0, 1, 2, 3, 170, 171, 172, 173]] = 7 * np.arange(8)
    corpus.present = {"text": ~np.isin(np.arange(len(corpus)), [0, 1, 2, 3, 170, 171, 172, 173])}
    assert find_leaks(corpus) == []


def test_loading_warns_and_the_report_says_it(tmp_path: Path):
    corpus = copy_rows(make(), slice(0, 4), slice(170, 174))
    path = save_npz(corpus, tmp_path / "leaky.npz")
    with pytest.warns(DataWarning, match=r"leaky.npz: 4 of 30 test utterances .* too high"):
        loaded = load(path)
    assert len(loaded.info["leaks"]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_leaks(loaded)  # said once
        moved = loaded.with_split({d.id: "train" if i < 30 else "dev" for i, d in enumerate(loaded.dialogues())})
    assert "leaks" not in moved.info
    report = inspect(path)
    assert report.ok
    assert str(report).endswith("usable, with 1 warning(s)")
    assert (
        "leaks" not in load(save_npz(make(), tmp_path / "sound.npz")).info
        or not load(tmp_path / "sound.npz").info["leaks"]
    )


def test_speakers_in_two_splits_are_told_and_roles_are_no_speakers():
    corpus = make()
    assert shared_speakers(corpus) is None
    corpus.speaker[170:180] = "s1"
    assert "1 of 5 test speakers speak in train too, e.g. 's1'" in str(shared_speakers(corpus))
    corpus.speaker = np.where(np.arange(len(corpus)) % 2, "M", "F")
    assert shared_speakers(corpus) is None


def test_a_speaker_in_two_sessions_is_refused_where_sessions_are_left_out(tmp_path: Path):
    from fusionzoo.data.folds import FoldPlan, check_speakers

    corpus = make()
    corpus.extras["session"] = np.repeat([f"Ses{i}" for i in range(5)], 40)
    session = FoldPlan("session")
    check_speakers(corpus, session)
    corpus.speaker[10:15] = "s39"
    with pytest.raises(DataError, match=r"1 of 39 speakers are in several sessions, e.g. 's39' in Ses0, Ses4"):
        check_speakers(corpus, session)
    check_speakers(corpus, FoldPlan("speaker"))
    corpus.speaker = np.where(np.arange(len(corpus)) % 2, "M", "F")
    check_speakers(corpus, session)
