"""An archive is looked at before it is unpacked; what looks like features is used, refused or named."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionzoo.data import inspect, load
from fusionzoo.data._npz_columns import open_npy
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.npz import read_columns, read_npz
from fusionzoo.data.splits import read_split
from fusionzoo.errors import DataError, DataWarning


def columns_of(corpus: Corpus) -> dict[str, np.ndarray]:
    names = ("dialogue_id", "utterance_index", "speaker", "label", "split")
    return {n: getattr(corpus, n) for n in names} | {"label_names": np.array(corpus.label_names)} | corpus.features


def packed(array: np.ndarray, header: bytes | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


def zeros(shape: tuple[int, ...], dtype: str = "<f8") -> tuple[bytes, int]:
    """The header of an array of zeros and how many bytes of zeros follow, so that nothing large is made in memory."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue(), int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize


@pytest.fixture
def write(corpus: Corpus, tmp_path: Path):
    """Write the small corpus with columns replaced or added; a tuple is (header, bytes of zeros)."""

    def make(**more: Any) -> Path:
        path = tmp_path / "data.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, value in (columns_of(corpus) | more).items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    if isinstance(value, tuple):
                        member.write(value[0])
                        for at in range(0, value[1], 1 << 24):
                            member.write(bytes(min(1 << 24, value[1] - at)))
                    else:
                        member.write(value if isinstance(value, bytes) else packed(value))
        return path

    return make


ROWS = 21


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"extra": zeros((2**26,))}, "its length fits nothing"),
        ({"extra": zeros((ROWS, 2**21), "<i8")}, "which no model needs"),
        ({"text": zeros((ROWS, 2**21), "<f8")}, "as a zip bomb does"),
        ({"text_mask": zeros((2**26,), "|b1")}, "column 'text_mask' has shape"),
        ({"speaker": zeros((2**26,), "<U1")}, "column 'speaker' has shape"),
        ({"speaker": zeros((ROWS, ), "<U2000000")}, "names of 2,000,000 characters"),
        ({"label_names": zeros((2**25,), "<U1")}, "a short list of names"),
        ({"label": zeros((2**26,), "<i8")}, "column 'label' has shape"),
    ],
)  # fmt: skip
def test_a_bomb_is_not_unpacked(write: Any, more: dict[str, Any], words: str):
    path = write(**more)
    import tracemalloc

    tracemalloc.start()
    report = inspect(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert words in str(report)
    assert peak < 64 << 20


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_small_columns_of_another_length_are_carried_along(write: Any, dimensions: int):
    extra = np.zeros((3,) * dimensions, np.int32)
    np.testing.assert_array_equal(load(write(weights=extra)).extras["weights"], extra)


def test_a_header_is_no_longer_than_headers_are(write: Any):
    long = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{" + b" " * 2**20
    with pytest.raises(DataError, match=r"the header of 'extra' says that it is 2,147,483,648 bytes long"):
        read_npz(write(extra=long))
    with pytest.raises(DataError, match=r"version \(3, 0\)"):
        read_npz(write(extra=b"\x93NUMPY\x03\x00" + struct.pack("<I", 2) + b"{}"))
    header, _ = zeros((2**40, 2**40))
    with pytest.raises(DataError, match="its size differs"):
        read_npz(write(extra=header))


def test_a_name_that_comes_twice_is_refused(write: Any):
    path = write()
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("label.npy", packed(np.zeros(ROWS, np.int64)))
    with pytest.raises(DataError, match="the column 'label' twice"):
        load(path)


def test_very_many_columns_are_refused(tmp_path: Path):
    path = tmp_path / "many.npz"
    one = packed(np.zeros(1))
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(5000):
            archive.writestr(f"c{i}.npy", one)
    with pytest.raises(DataError, match=r"holds 5,000 arrays"):
        read_columns(path)


@pytest.mark.parametrize(
    ("method", "words"), [(zipfile.ZIP_BZIP2, "compressed in a way"), (zipfile.ZIP_LZMA, "compressed")]
)
def test_other_compressions_are_refused(tmp_path: Path, method: int, words: str):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
        archive.writestr("a.npy", packed(np.zeros(1000)))
    with pytest.raises(DataError, match=words):
        read_columns(tmp_path / "x.npz")


def test_an_encrypted_column_is_said_to_be(write: Any):
    path = write()
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")  # the first entry of the directory: its flags
    data[at + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="'dialogue_id' is encrypted"):
        load(path)


def test_the_split_of_another_file_is_read_with_the_same_care(write: Any):
    with pytest.raises(DataError, match=r"as a zip bomb does|expected one name an utterance"):
        read_split(write(split=zeros((ROWS, 2**22), "<U1")))


def test_one_array_alone_is_read_with_the_same_care(tmp_path: Path):
    np.save(tmp_path / "sound.npy", np.ones((3, 2)))
    assert open_npy(tmp_path / "sound.npy").shape == (3, 2)
    np.save(tmp_path / "text.npy", np.array(["a"]))
    (tmp_path / "lies.npy").write_bytes(zeros((2**40, 8))[0])
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("text", "lies", "objects", "none"):
        with pytest.raises(DataError, match=f"{name}.npy"):
            open_npy(tmp_path / f"{name}.npy")


# ---------------------------------------------------------------------- what looks like features


def test_frames_of_utterances_are_refused_with_the_way_to_pool_them(write: Any):
    path = write(audio=np.zeros((ROWS, 4, 8), np.float32))
    report = inspect(path)
    assert not report.ok
    assert "column 'audio' has shape (21, 4, 8)" in report.problems[0]
    assert "audio.mean(axis=1)" in report.problems[0]
    with pytest.raises(DataError, match="frames or tokens"):
        load(path)


def test_frames_that_the_file_says_are_no_modality_are_carried_along(write: Any):
    path = write(frames=np.zeros((ROWS, 4, 8), np.float32), modalities=np.array(["text"]))
    assert load(path).extras["frames"].shape == (ROWS, 4, 8)
    assert "column 'frames': not a modality" in str(inspect(path))
    with pytest.raises(DataError, match="column 'frames' has shape"):
        load(write(frames=np.zeros((ROWS, 4, 8), np.float32), modalities=np.array(["text", "frames"])))


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (np.zeros((ROWS, 5), np.int64), "astype('float32')"),
        (np.zeros((ROWS, 5), np.uint8), "astype('float32')"),
        (np.zeros((ROWS, 5), bool), "astype('float32')"),
        (np.zeros((ROWS, 5, 2), np.int16), "astype('float32')"),
        (np.zeros((ROWS, 5), np.complex64), "more.real"),
        (np.zeros(ROWS, np.float32), "more[:, None]"),
    ],
)
def test_a_column_like_features_that_is_not_used_is_said(write: Any, array: np.ndarray, advice: str):
    path = write(more=array)
    with pytest.warns(DataWarning, match="column 'more' .* looks like features and is not used") as caught:
        load(path)
    assert advice in str(caught[0].message)
    report = str(inspect(path))
    assert "looks like features and is not used" in report
    named = write(more=array, modalities=np.array(["text", "audio", "visual"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(named)


def test_annotations_and_names_are_not_taken_for_features(write: Any):
    path = write(
        vad=np.zeros((ROWS, 3)), label_soft=np.zeros((ROWS, 6)), target_x=np.zeros(ROWS), start=np.zeros(ROWS),
        sentiment=np.zeros(ROWS, np.int64), sentence=np.array(["a"] * ROWS), names=np.array(["a", "b"]),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(path).extras) == 7
