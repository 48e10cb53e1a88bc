"""The pickles of LMAM, SDT, M3NET (COSMIC), MultiEMO, COGMEN and CORECT."""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionzoo.data import inspect, load
from fusionzoo.data.conversion import convert
from fusionzoo.data.corpus import Corpus
from fusionzoo.errors import DataError, UnsafePickleError

Write = Callable[..., Path]


def views(corpus: Corpus) -> list[dict[str, Any]]:
    """Four text views of a corpus: its text times 1, 2, 3 and 4."""
    rows = {d.id: corpus.features["text"][d.start : d.stop] for d in corpus.dialogues()}
    return [{d: list(x * n) for d, x in rows.items()} for n in (1, 2, 3, 4)]


def four(corpus: Corpus) -> np.ndarray:
    order = np.concatenate([np.arange(d.start, d.stop) for d in corpus.dialogues()])
    text = corpus.features["text"][order]
    return np.concatenate([text * n for n in (1, 2, 3, 4)], axis=1)


def dump(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 2))
    return path


# ---------------------------------------------------------------------- four text views


def test_the_twelve_tuple_and_its_relatives(corpus: Corpus, classic: list[Any], write_pickle: Write):
    ids, speakers, labels, _, audio, visual, sentences, train, test = classic
    dev = {"d3"}
    sentiment = {d: [0] * len(rows) for d, rows in labels.items()}
    four_views = views(corpus)
    contents: dict[str, list[Any]] = {
        "roberta-pickle": [ids, speakers, labels, *four_views, audio, visual, sentences, train, test],
        "roberta-meld-pickle": [ids, speakers, labels, *four_views, audio, visual, sentences, train, test, sentiment],
        "cosmic-iemocap-pickle": [speakers, labels, *four_views, sentences, train - dev, test, dev],
        "cosmic-meld-pickle": [speakers, labels, sentiment, *four_views, sentences, train - dev, test, dev],
    }
    for layout, content in contents.items():
        path = write_pickle(tuple(content), name=f"{layout}.pkl")
        got = load(path)
        assert got.info["layout"] == layout
        assert got.info["text_views"] == 4
        assert got.dims["text"] == 16
        np.testing.assert_array_equal(got.features["text"], four(corpus))
        np.testing.assert_array_equal(np.sort(got.label), np.sort(corpus.label))
        if layout.startswith("cosmic"):
            assert set(got.dialogue_id[got.split == "dev"]) == dev
            assert got.modalities == ("text",)
            assert got.utterance_id is not None
            assert got.utterance_id[0] == "d0_0"
        else:
            assert got.dims["audio"] == 3
        report = inspect(path)
        assert report.ok
        assert report.kind == layout
        assert "text_views=4" in str(report)


def test_views_that_disagree(corpus: Corpus, classic: list[Any], write_pickle: Write):
    ids, speakers, labels, _, audio, visual, sentences, train, test = classic
    four_views = views(corpus)
    four_views[2]["d1"] = four_views[2]["d1"][:-1]
    with pytest.raises(DataError, match=r"entry 5 \(roberta3\), dialogue 'd1' has 4 rows, expected 5"):
        load(write_pickle((ids, speakers, labels, *four_views, audio, visual, sentences, train, test)))
    del four_views[2]["d1"]
    with pytest.raises(DataError, match=r"roberta3\) lacks dialogue 'd1'"):
        load(write_pickle((ids, speakers, labels, *four_views, audio, visual, sentences, train, test)))
    with pytest.raises(DataError, match=r"names dialogue 'd3' that are train too"):
        load(write_pickle((speakers, labels, *views(corpus), sentences, train, test, {"d3"})))


# ---------------------------------------------------------------------- folders


@pytest.fixture
def m3net(corpus: Corpus, classic: list[Any], tmp_path: Path) -> Path:
    folder = tmp_path / "IEMOCAP_features"
    _, speakers, labels, _, _, _, sentences, train, test = classic
    dump(folder / "IEMOCAP_features.pkl", tuple(classic))
    content = (speakers, labels, *views(corpus), sentences, sorted(train - {"d3"}), sorted(test), ["d3"])
    dump(folder / "iemocap_features_roberta.pkl", content)
    dump(folder / "iemocap_features_comet.pkl", ({},) * 9)
    return folder


def test_m3net(corpus: Corpus, m3net: Path, tmp_path: Path):
    got = load(m3net)
    assert got.dims == {"text": 16, "audio": 3, "visual": 2}
    np.testing.assert_array_equal(got.features["text"], four(corpus))
    assert set(got.dialogue_id[got.split == "dev"]) == {"d3"}
    assert got.info["text_views"] == 4
    report = inspect(m3net)
    assert report.ok
    assert report.kind == "m3net-folder"
    assert report.splits["dev"] == {"dialogues": 1, "utterances": 4}
    assert "replaced by the four views" in str(report)
    assert convert(m3net, tmp_path / "out.npz").written.ok
    assert load(tmp_path / "out.npz").dims == got.dims


def test_m3net_that_is_broken(m3net: Path, classic: list[Any]):
    dump(m3net / "IEMOCAP_features.pkl", classic[:8])
    assert "expected the classic tuple" in inspect(m3net).problems[0]
    dump(m3net / "IEMOCAP_more.pkl", 1)
    with pytest.raises(DataError, match="a folder of their own"):
        load(m3net)


@pytest.fixture
def multiemo(corpus: Corpus, classic: list[Any], tmp_path: Path) -> Path:
    folder = tmp_path / "Data" / "IEMOCAP"
    # As in the release: only speakers, labels and splits are read of the tuple.
    dump(folder / "Speakers.pkl", (*classic[:3], None, None, None, None, *classic[7:]))
    for name, entry in zip(("Text", "Audio", "Visual"), classic[3:6], strict=True):
        dump(folder / f"{name}Features.pkl", {d: np.array(rows) for d, rows in entry.items()})
    return folder


def test_multiemo(corpus: Corpus, multiemo: Path):
    got = load(str(multiemo))
    assert got.dims == corpus.dims
    order = np.concatenate([np.arange(d.start, d.stop) for d in corpus.dialogues()])
    for m in corpus.features:
        np.testing.assert_array_equal(got.features[m], corpus.features[m][order])
    report = inspect(multiemo)
    assert report.ok
    assert report.kind == "multiemo-folder"
    assert len(report.sha256) == 64
    (multiemo / "VisualFeatures.pkl").unlink()
    assert load(multiemo).modalities == ("text", "audio")
    assert "there is no visualfeatures.pkl" in str(inspect(multiemo))


def test_multiemo_that_is_broken(multiemo: Path, classic: list[Any]):
    dump(multiemo / "AudioFeatures.pkl", [1, 2])
    with pytest.raises(DataError, match=r"AudioFeatures.pkl: holds a list of 2.*expected a dict of dialogues"):
        load(multiemo)
    dump(multiemo / "AudioFeatures.pkl", {"d0": classic[4]["d0"]})
    with pytest.raises(DataError, match="audio lacks dialogue 'd1', which ids has"):
        load(multiemo)
    dump(multiemo / "Speakers.pkl", {"a": 1})
    assert "expected the classic tuple of 9" in inspect(multiemo).problems[0]
    dump(multiemo / "Speakers.pkl", os.system)
    with pytest.raises(UnsafePickleError):
        load(multiemo)


# ---------------------------------------------------------------------- COGMEN and CORECT


def samples(corpus: Corpus, make: Callable[..., Any]) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = {}
    for split in ("train", "dev", "test"):
        out[split] = []
        for d in corpus.dialogues(split):
            rows = slice(d.start, d.stop)
            out[split].append(
                make(
                    vid=d.id,
                    speaker=corpus.speaker[rows].tolist(),
                    label=corpus.label[rows].tolist(),
                    text=[[0.0]] * len(d),
                    audio=list(corpus.features["audio"][rows]),
                    visual=list(corpus.features["visual"][rows]),
                    sentence=["words"] * len(d),
                    sbert_sentence_embeddings=corpus.features["text"][rows],
                )
            )
    return out


@pytest.fixture
def cogmen(monkeypatch: pytest.MonkeyPatch) -> type:
    """COGMEN's class, importable only while a file is written."""
    module = types.ModuleType("cogmen.Sample")

    class Sample:
        def __init__(self, **attributes: Any):
            self.__dict__.update(attributes)

        def __setstate__(self, state: Any):
            raise AssertionError("the class's own code must never run")

    Sample.__module__, Sample.__qualname__ = "cogmen.Sample", "Sample"
    module.Sample = Sample  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cogmen", types.ModuleType("cogmen"))
    monkeypatch.setitem(sys.modules, "cogmen.Sample", module)
    return Sample


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cogmen_objects_are_read_as_their_attributes(
    corpus: Corpus, cogmen: type, write_pickle: Write, monkeypatch: pytest.MonkeyPatch, protocol: int
):
    path = write_pickle(samples(corpus, cogmen), protocol=protocol)
    monkeypatch.delitem(sys.modules, "cogmen.Sample")
    got = load(path)
    assert got.info["layout"] == "split-pickle"
    assert got.dims == corpus.dims
    assert got.label_names[-1] == "frustrated"
    np.testing.assert_array_equal(got.split, corpus.split)
    for m in corpus.features:
        np.testing.assert_array_equal(got.features[m], corpus.features[m])
    assert inspect(path).ok
    assert "cogmen.Sample.Sample" in inspect(path).names


def test_corect_dicts(corpus: Corpus, write_pickle: Write):
    def make(**sample: Any) -> dict[str, Any]:
        text = sample.pop("sbert_sentence_embeddings")
        return {**sample, "text": text, "speakers": sample.pop("speaker"), "labels": sample.pop("label")}

    content = samples(corpus, make)
    got = load(write_pickle(content))
    np.testing.assert_array_equal(got.features["text"], corpus.features["text"])
    content["val"] = content.pop("dev")
    content["train"].append(content["train"][0])
    got = load(write_pickle(content))
    np.testing.assert_array_equal(got.split, corpus.split)
    assert any("comes again" in s for s in got.info["skipped"])
    del content["test"][0]["labels"]
    content["test"][0].pop("label", None)
    with pytest.raises(DataError, match="lacks its speakers or labels"):
        load(write_pickle(content))


def test_records_admit_nothing_else(cogmen: Any, write_pickle: Write):
    class Other(cogmen):
        pass

    Other.__module__, Other.__qualname__ = "cogmen.Sample", "Other"
    sys.modules["cogmen.Sample"].Other = Other  # type: ignore[attr-defined]
    with pytest.raises(UnsafePickleError, match=r"cogmen\.Sample\.Other"):
        load(write_pickle({"train": [Other(vid="a")]}))
    with pytest.raises(UnsafePickleError, match=r"posix\.system|nt\.system"):
        load(write_pickle({"train": [cogmen(vid="a", f=os.system)]}))
    # The class itself as a value; a record made with arguments; a class that a pickle tries to change.
    with pytest.raises(UnsafePickleError):
        load(write_pickle({"train": [cogmen]}))
    with pytest.raises(UnsafePickleError, match="made with arguments"):
        load(write_pickle(b"\x80\x02ccogmen.Sample\nSample\nK\x01\x85R."))
    for state in (b"}", b"K\x01", b"]"):
        with pytest.raises(DataError):
            load(write_pickle(b"\x80\x02ccogmen.Sample\nSample\n" + state + b"b."))
    with pytest.raises(UnsafePickleError, match="attributes are no dict"):
        load(write_pickle(b"\x80\x02ccogmen.Sample\nSample\n)\x81K\x01b."))


def test_cogmen_four_classes_have_names(write_pickle: Write):
    rng = np.random.default_rng(0)
    ids = {f"Ses0{s}F_impro01": 4 for s in (1, 2, 5)}
    entries = [{d: [f"{d}_{i}" for i in range(n)] for d, n in ids.items()}, {d: ["M"] * n for d, n in ids.items()}]
    entries += [{d: list(range(n)) for d, n in ids.items()}]
    entries += [{d: list(rng.normal(size=(n, 3))) for d, n in ids.items()} for _ in range(3)]
    entries += [{d: ["x"] * n for d, n in ids.items()}]
    path = write_pickle((*entries, list(ids)[:2], list(ids)[2:]), name="IEMOCAP_features_4.pkl")
    assert load(path).label_names == ("happy", "sad", "neutral", "angry")
