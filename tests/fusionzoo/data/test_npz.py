from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionzoo.data import load, save_npz
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.npz import REQUIRED, read_npz
from fusionzoo.errors import DataError


def columns_of(corpus: Corpus) -> dict[str, Any]:
    """The documented layout, written without fusionzoo's writer."""
    plain = {c: getattr(corpus, c) for c in ("dialogue_id", "utterance_index", "speaker", "label", "split")}
    return {**plain, "label_names": np.array(corpus.label_names), **corpus.features}


def write(path: Path, columns: dict[str, Any]) -> Path:
    np.savez(path, **columns)
    return path


def test_reads_the_documented_layout(corpus: Corpus, tmp_path: Path):
    columns = columns_of(corpus) | {
        "text": corpus.features["text"].astype(np.float16),
        "vad": np.ones((21, 3), np.float32),
        "vad_names": np.array(["valence", "activation", "dominance"]),
        "visual_mask": np.arange(21) != 5,
        "sentiment": np.zeros(21, int),
        "target_soft": np.ones((21, 6)),
    }
    columns["visual"] = columns["visual"].copy()
    columns["visual"][5] = np.nan
    got = load(write(tmp_path / "x.npz", columns))
    assert got.dims == {"text": 4, "audio": 3, "visual": 2}
    assert got.features["text"].dtype == np.float32
    np.testing.assert_array_equal(got.features["text"], columns["text"].astype(np.float32))
    assert got.present["visual"].sum() == 20
    assert sorted(got.extras) == ["sentiment", "target_soft", "vad", "vad_names"]
    assert got.info["stored_dtypes"]["text"] == "float16"
    assert len(got.info["sha256"]) == 64


def test_an_array_of_names_decides_which_matrices_are_modalities(corpus: Corpus, tmp_path: Path):
    columns = columns_of(corpus) | {"vad": np.ones((21, 3)), "modalities": np.array(["vad", "text"])}
    got = load(write(tmp_path / "x.npz", columns))
    assert got.modalities == ("vad", "text")
    assert sorted(got.extras) == ["audio", "visual"]
    columns["modalities"] = np.array(["text", "speaker"])
    with pytest.raises(DataError, match=r"'modalities' names 'speaker'"):
        load(write(tmp_path / "x.npz", columns))


def test_masks_of_zeros_and_ones_are_masks(corpus: Corpus, tmp_path: Path):
    got = load(write(tmp_path / "x.npz", columns_of(corpus) | {"audio_mask": np.ones(21, np.uint8)}))
    assert got.present["audio"].dtype == bool
    with pytest.raises(DataError, match=r"audio_mask.*expected bool"):
        load(write(tmp_path / "x.npz", columns_of(corpus) | {"audio_mask": np.full(21, 2)}))


@pytest.mark.parametrize("column", REQUIRED)
def test_a_missing_column_is_named(corpus: Corpus, tmp_path: Path, column: str):
    columns = columns_of(corpus)
    del columns[column]
    path = write(tmp_path / "x.npz", columns)
    with pytest.raises(DataError, match=f"x.npz: lacks the column '{column}'.*it has .*text"):
        load(path)


def test_no_modality_is_named(corpus: Corpus, tmp_path: Path):
    columns = {c: x for c, x in columns_of(corpus).items() if c not in corpus.features}
    with pytest.raises(DataError, match=r"no modality, expected .*\(21, width\)"):
        load(write(tmp_path / "x.npz", columns))


def test_object_arrays_are_refused_before_anything_is_read(corpus: Corpus, tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "boom"),))

    columns = columns_of(corpus) | {"speaker": np.array([Bomb()] * 21, dtype=object)}
    with pytest.raises(DataError, match=r"x.npz: column 'speaker' holds Python objects.*dtype=str"):
        load(write(tmp_path / "x.npz", columns))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(corpus: Corpus, tmp_path: Path, share: float):
    path = save_npz(corpus, tmp_path / "x.npz")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"x.npz: .*(damaged|empty).*fetch it again"):
        load(path)


def test_flipped_bytes_are_refused(corpus: Corpus, tmp_path: Path):
    path = save_npz(corpus, tmp_path / "x.npz")
    good = path.read_bytes()
    reference = load(path)
    random = np.random.default_rng(0)
    refused = 0
    for at in random.integers(0, len(good), 60):
        bad = bytearray(good)
        bad[at] ^= 0x40
        path.write_bytes(bad)
        try:
            got = load(path)
        except DataError:
            refused += 1
        else:  # bytes that carry no data (a date, an attribute)
            np.testing.assert_array_equal(got.features["text"], reference.features["text"])
    assert refused > 30


def test_a_header_that_promises_more_than_the_file_holds_is_refused(corpus: Corpus, tmp_path: Path):
    import io
    import zipfile

    path = save_npz(corpus, tmp_path / "x.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 8)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("smell.npy", header.getvalue())
    with pytest.raises(DataError, match=r"'smell' should hold \(1000000000000, 8\) float32"):
        load(path)


def test_foreign_files_in_the_archive_are_refused(corpus: Corpus, tmp_path: Path):
    import zipfile

    path = save_npz(corpus, tmp_path / "x.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("payload.py", "1")
    with pytest.raises(DataError, match=r"payload.py"):
        load(path)


def test_features_of_other_length_are_refused(corpus: Corpus, tmp_path: Path):
    columns = columns_of(corpus) | {"audio": corpus.features["audio"][:-1]}
    with pytest.raises(DataError, match=r"column 'audio' has shape \(20, 3\), expected \(21, width\)"):
        load(write(tmp_path / "x.npz", columns))


def test_float_labels_are_refused(corpus: Corpus, tmp_path: Path):
    with pytest.raises(DataError, match=r"x.npz: column 'label' has dtype float64.*int64"):
        load(write(tmp_path / "x.npz", columns_of(corpus) | {"label": corpus.label + 0.5}))
    with pytest.raises(DataError, match="'label' has dtype <U21"):
        load(write(tmp_path / "x.npz", columns_of(corpus) | {"label": corpus.label.astype(str)}))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"nowhere.npz: there is no such file"):
        load(tmp_path / "nowhere.npz")
    with pytest.raises(DataError, match=r"nowhere.npz: there is no such file"):
        read_npz(tmp_path / "nowhere.npz")


def test_round_trip_keeps_everything(corpus: Corpus, tmp_path: Path):
    corpus.present = {"audio": np.arange(21) % 2 == 0}
    corpus.extras = {"vad": np.ones((21, 3), np.float32), "vad_names": np.array(["v", "a", "d"])}
    corpus.info |= {"ceiling": {"all": 0.9}, "source": "/home/somebody/secret/small.npz", "sha256": "abc"}
    path = save_npz(corpus, tmp_path / "x.npz")
    with np.load(path, allow_pickle=False) as archive:  # any numpy can read every array without pickle
        assert all(not archive[c].dtype.hasobject for c in archive.files)
    got = load(path)
    assert got.modalities == corpus.modalities
    for m in corpus.features:
        np.testing.assert_array_equal(got.features[m], corpus.features[m])
    for c in ("dialogue_id", "utterance_index", "speaker", "label", "split", "utterance_id"):
        np.testing.assert_array_equal(getattr(got, c), getattr(corpus, c))
    np.testing.assert_array_equal(got.present["audio"], corpus.present["audio"])
    assert sorted(got.extras) == ["vad", "vad_names"]
    assert got.label_names == corpus.label_names
    assert got.info["ceiling"] == {"all": 0.9}
    assert got.info["made_from"] == {"source": "small.npz", "sha256": "abc"}
    assert b"secret" not in path.read_bytes()
    assert got.info["source"] == str(path)


def test_equal_corpora_give_equal_bytes(corpus: Corpus, tmp_path: Path):
    first, second = save_npz(corpus, tmp_path / "a.npz"), save_npz(corpus, tmp_path / "b.npz")
    assert first.read_bytes() == second.read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_rest(corpus: Corpus, tmp_path: Path, monkeypatch):
    path = save_npz(corpus, tmp_path / "x.npz")
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(DataError, match=r"No space left on device.*nothing was changed"):
        save_npz(corpus, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_only_sound_corpora_with_free_names_are_written(corpus: Corpus, tmp_path: Path):
    corpus.features = {"label": corpus.features["text"]}
    with pytest.raises(DataError, match="cannot be called 'label'"):
        save_npz(corpus, tmp_path / "x.npz")
    corpus.features = {"text": np.full((21, 2), np.nan, np.float32)}
    with pytest.raises(DataError, match="nan"):
        save_npz(corpus, tmp_path / "x.npz")
    corpus.features = {"text": np.ones((21, 2), np.float32)}
    corpus.extras = {"notes": np.array([None] * 21)}
    with pytest.raises(DataError, match="'notes' holds Python objects"):
        save_npz(corpus, tmp_path / "x.npz")
    corpus.extras = {}
    with pytest.raises(DataError, match="cannot be written"):
        save_npz(corpus, tmp_path / "no" / "folder" / "x.npz")
    assert list(tmp_path.iterdir()) == []


def test_provenance_must_be_json(corpus: Corpus, tmp_path: Path):
    with pytest.raises(DataError, match="'provenance' is not valid JSON"):
        load(write(tmp_path / "x.npz", columns_of(corpus) | {"provenance": np.array("{")}))
