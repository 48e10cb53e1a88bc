"""MMSA's and MulT's pickles: clips by their videos, sequences pooled over the steps that are real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionzoo.data import inspect, load
from fusionzoo.data.conversion import convert
from fusionzoo.data.mmsa import MmsaPickle
from fusionzoo.errors import DataError

Write = Callable[..., Path]
STEPS = {"text": 5, "audio": 9, "vision": 7}
WIDTHS = {"text": 4, "audio": 3, "vision": 2}


def part(ids: list[Any], seed: int) -> dict[str, Any]:
    """A split of unaligned sequences, padded behind with something that is not zero, so that a mask that is not used shows."""
    random, n = np.random.default_rng(seed), len(ids)
    out: dict[str, Any] = {m: random.normal(size=(n, STEPS[m], d)).astype(np.float32) for m, d in WIDTHS.items()}
    lengths = {m: random.integers(1, STEPS[m] + 1, n) for m in WIDTHS}
    mask = np.arange(STEPS["text"]) < lengths["text"][:, None]
    out |= {"audio_lengths": lengths["audio"].tolist(), "vision_lengths": lengths["vision"]}
    out["text_bert"] = np.stack([np.arange(5) + 100 + 0 * mask, mask, 0 * mask], axis=1).astype(float)
    scores = np.linspace(-3, 3, n)
    out |= {"id": ids, "raw_text": [f"words {i}" for i in ids], "regression_labels": scores}
    out["classification_labels"] = np.sign(scores) + 1
    out["annotations"] = [("Negative", "Neutral", "Positive")[int(c)] for c in out["classification_labels"]]
    return out


def file(**more: Any) -> dict[str, Any]:
    ids = {"train": ["b$_$10", "b$_$2", "a$_$1", "c$_$x", "c$_$1"], "valid": ["v$_$0"] * 1, "test": ["t$_$1", "t$_$0"]}
    return {key: part(names, seed) | more for seed, (key, names) in enumerate(ids.items())}


def test_clips_are_utterances_of_their_video_in_order(write_pickle: Write) -> None:
    content = file()
    corpus = load(write_pickle(content, protocol=4))
    assert corpus.info["layout"] == "mmsa-pickle"
    assert corpus.dims == {"text": 4, "audio": 3, "visual": 2}
    assert corpus.utterance_id.tolist() == ["a$_$1", "b$_$2", "b$_$10", "c$_$1", "c$_$x", "t$_$0", "t$_$1", "v$_$0"]
    assert corpus.dialogue_id.tolist() == list("abbccttv") == corpus.speaker.tolist()
    assert corpus.split.tolist() == ["train"] * 5 + ["test"] * 2 + ["dev"]
    train = content["train"]
    rows = [2, 1, 0, 4, 3]  # a 1, b 2, b 10, c 1, c x
    assert np.array_equal(corpus.extras["score"][:5], train["regression_labels"][rows])
    assert np.array_equal(corpus.label[:5], train["classification_labels"][rows])
    assert corpus.label_names == ("Negative", "Neutral", "Positive")
    assert corpus.extras["sentence"].tolist()[:2] == ["words a$_$1", "words b$_$2"]


def test_the_mean_is_over_the_steps_that_masks_and_lengths_name(write_pickle: Write) -> None:
    content = file()
    corpus = load(write_pickle(content, protocol=4))
    train = content["train"]
    row, of = 2, corpus.utterance_id.tolist().index("a$_$1")
    for modality, name in (("audio", "audio"), ("visual", "vision")):
        length = int(train[f"{name}_lengths"][row])
        np.testing.assert_allclose(corpus.features[modality][of], train[name][row, :length].mean(0), rtol=1e-5)
    real = train["text_bert"][row, 1] > 0
    np.testing.assert_allclose(corpus.features["text"][of], train["text"][row, real].mean(0), rtol=1e-5)
    notes = " ".join(corpus.said("skipped"))
    assert "text: the order of up to 5 steps; kept is the mean of those that text_bert's mask marks" in notes
    assert "audio_lengths counts" in notes


def test_without_lengths_steps_of_zeros_are_padding_and_clips_of_nothing_else_were_not_recorded(
    write_pickle: Write,
) -> None:
    content = file()
    for one in content.values():
        del one["vision_lengths"]
        one["vision"][:, 3:] = 0
        one["audio"][0, 0, 1] = -np.inf  # as MOSI's COVAREP features have
        one["audio_lengths"][0] = 2
    content["train"]["vision"][2] = 0
    corpus = load(write_pickle(content, protocol=4))
    names = corpus.utterance_id.tolist()
    np.testing.assert_allclose(
        corpus.features["visual"][names.index("b$_$2")], content["train"]["vision"][1, :3].mean(0), rtol=1e-5
    )
    np.testing.assert_allclose(
        corpus.features["audio"][names.index("b$_$10")], content["train"]["audio"][0, 1], rtol=1e-5
    )
    assert [n for n, p in zip(names, corpus.present["visual"], strict=True) if not p] == ["a$_$1"]


def test_a_video_in_several_splits_is_a_dialogue_in_each(write_pickle: Write, tmp_path: Path) -> None:
    """CH-SIMS draws its splits by clip."""
    content = file()
    content["test"]["id"] = ["b$_$4", "b$_$3"]
    path = write_pickle(content, protocol=4)
    corpus = load(path)
    assert {"b (train)", "b (test)", "a", "c", "v"} == set(corpus.dialogue_id.tolist())
    assert set(corpus.speaker[corpus.dialogue_id == "b (test)"]) == {"b"}
    assert any("1 videos have clips in several splits" in note for note in inspect(path).skipped)
    done = convert(path, tmp_path / "out.npz")
    assert done.written.ok
    assert np.array_equal(load(tmp_path / "out.npz").extras["score"], corpus.extras["score"])


def test_mults_labels_and_ids_and_scores_without_classes(write_pickle: Write) -> None:
    content = {
        key: {
            "text": p["text"],
            "labels": np.array(p["regression_labels"])[:, None, None],
            "id": np.array([["w", str(10.5 - i), "9"] for i in range(len(p["text"]))] if key == "train" else [[key, "0", "1"]] * len(p["text"])),
        }
        for key, p in file().items()
    }  # fmt: skip
    content["test"]["labels"][0] = np.nan
    corpus = load(write_pickle(content, protocol=4))
    assert corpus.label_names == ("negative", "neutral", "positive")
    starts = [i.split("_")[1] for i in corpus.utterance_id[corpus.dialogue_id == "w"].tolist()]
    assert starts == ["6.5", "7.5", "8.5", "9.5", "10.5"]
    assert (corpus.label == -100).sum() == 1


def test_single_scores_of_ch_sims_and_vectors_that_are_pooled_already(write_pickle: Write) -> None:
    content = file()
    for one in content.values():
        one["text"] = one["text"][:, 0]
        one |= {f"regression_labels_{m}": one["regression_labels"] / k for k, m in enumerate("TAV", start=1)}
        del one["text_bert"], one["id"]
    corpus = load(write_pickle(content, protocol=4))
    assert np.array_equal(corpus.extras["score_visual"], corpus.extras["score"] / 3)
    assert len(set(corpus.dialogue_id.tolist())) == len(corpus)
    assert not any("text: the order" in note for note in corpus.said("skipped"))


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "too few scores": (
        {"regression_labels": np.zeros(1)},
        r"regression_labels of 'train' has \(1,\) values, expected 5",
    ),
    "words for scores": ({"regression_labels": ["x"] * 5}, "no column of numbers"),
    "half a class": ({"classification_labels": np.full(5, 0.5)}, "0.5 at clip 0, expected whole numbers"),
    "no vision": ({"vision": None}, "'train' lacks vision, which 'valid' has"),
    "other widths": ({"audio": np.ones((5, 2, 9))}, "audio has different widths .train 9, valid 3"),
    "fewer clips": ({"audio": np.ones((4, 2, 3))}, "audio of 'train' is float64 of shape"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said(write_pickle: Write, name: str) -> None:
    change, message = BROKEN[name]
    content = file()
    content["train"] |= change
    with pytest.raises(DataError, match=message):
        load(write_pickle(content, protocol=4))


def test_others_are_not_recognised() -> None:
    assert MmsaPickle.recognise(file())
    for other in (
        None,
        [],
        {},
        {"train": []},
        {"train": {}},
        {"train": {"text": np.zeros((3, 2, 2))}},
        {**file(), "more": 1},
    ):
        assert not MmsaPickle.recognise(other)
