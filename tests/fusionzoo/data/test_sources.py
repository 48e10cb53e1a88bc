from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusionzoo
from fusionzoo.data import load, save_npz
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.splits import draw_dev, read_split
from fusionzoo.errors import DataError, OptionError, UnknownNameError

Write = Callable[..., Path]
FULL = {"train": ["d0", "d5"], "dev": ["d1", "d2"], "test": ["d3", "d4"]}


def json_file(folder: Path, content: Any) -> Path:
    path = folder / "split.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("dev", ["dev", "val", "valid", "validation"])
def test_split_from_json(corpus: Corpus, tmp_path: Path, dev: str):
    split = json_file(tmp_path, {dev if k == "dev" else k: v for k, v in FULL.items()})
    got = load(save_npz(corpus, tmp_path / "x.npz"), split=split)
    assert {s: [d.id for d in got.dialogues(s)] for s in FULL} == FULL
    assert got.info["split"] == "from split.json"


def test_split_from_another_npz(corpus: Corpus, tmp_path: Path):
    path = save_npz(corpus, tmp_path / "x.npz")
    other = corpus.with_split({d: s for s, ids in FULL.items() for d in ids})
    got = load(path, split=save_npz(other, tmp_path / "other.npz"))
    assert {s: [d.id for d in got.dialogues(s)] for s in FULL} == FULL


def test_an_npz_without_split_takes_one_from_elsewhere(corpus: Corpus, tmp_path: Path):
    path = save_npz(corpus, tmp_path / "x.npz")
    with np.load(path) as archive:
        np.savez(tmp_path / "bare.npz", **{c: archive[c] for c in archive.files if c != "split"})
    with pytest.raises(DataError, match=r"lacks the column 'split'.*split=\.\.\."):
        load(tmp_path / "bare.npz")
    assert [d.id for d in load(tmp_path / "bare.npz", split=path).dialogues("test")] == ["d4", "d5"]


BAD_SPLITS: dict[str, tuple[Any, str]] = {
    "unknown id": (FULL | {"dev": ["d1", "d2", "d99"]}, r"split.json names dialogue 'd99', not in"),
    "missing id": (FULL | {"dev": ["d1"]}, r"split.json says nothing about dialogue 'd2'"),
    "id in two splits": (FULL | {"dev": ["d0", "d1", "d2"]}, r"dialogue 'd0' in more than one split"),
    "unknown key": (FULL | {"tset": []}, r"the key 'tset'; did you mean 'test'"),
    "not a list": (FULL | {"dev": "d1"}, r"dev: expected a list, got 'd1'\. Expected"),
    "list of lists": (FULL | {"dev": [["d1"]]}, r"dev\.0: expected a text or a whole number"),
    "no mapping": ([1], r"expected a mapping of keys to values, got \[1\]"),
    "no json": ("{", r"is not valid JSON"),
}


@pytest.mark.parametrize("case", BAD_SPLITS)
def test_bad_splits_are_refused(corpus: Corpus, tmp_path: Path, case: str):
    content, words = BAD_SPLITS[case]
    path = save_npz(corpus, tmp_path / "x.npz")
    with pytest.raises(DataError, match=words):
        load(path, split=json_file(tmp_path, content))


def test_bad_split_files_are_refused(corpus: Corpus, tmp_path: Path):
    path = save_npz(corpus, tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"none.json: there is no such file"):
        load(path, split=tmp_path / "none.json")
    np.savez(tmp_path / "few.npz", dialogue_id=corpus.dialogue_id)
    with pytest.raises(DataError, match=r"few.npz: lacks the column 'split'"):
        load(path, split=tmp_path / "few.npz")
    np.savez(tmp_path / "odd.npz", dialogue_id=corpus.dialogue_id, split=corpus.split[:-1])
    with pytest.raises(DataError, match="differ in length"):
        load(path, split=tmp_path / "odd.npz")
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"cut.npz: damaged"):
        load(path, split=tmp_path / "cut.npz")


def test_numbers_as_ids_in_json_are_read_as_text(tmp_path: Path):
    assert read_split(json_file(tmp_path, {"train": [1, 2], "test": ["3"]})) == {
        "1": "train",
        "2": "train",
        "3": "test",
    }


def test_draw_dev_depends_on_ids_and_seed_only():
    ids = [f"d{i}" for i in range(120)]
    drawn = draw_dev(ids, 0.1, 0)
    assert len(drawn) == 12
    assert draw_dev(reversed(ids), 0.1, 0) == drawn != draw_dev(ids, 0.1, 1)
    assert len(draw_dev(ids[:2], 0.01, 0)) == 1
    assert draw_dev(ids[:1], 0.5, 0) == set() == draw_dev(ids, 0, 0)
    with pytest.raises(DataError, match="dev_fraction=1"):
        draw_dev(ids, 1, 0)


def test_a_dev_split_in_the_file_is_never_redrawn(corpus: Corpus, tmp_path: Path):
    got = load(save_npz(corpus, tmp_path / "x.npz"), split_seed=5, dev_fraction=0.5)
    np.testing.assert_array_equal(got.split, corpus.split)


def test_modalities_are_chosen_before_the_rest_is_checked(corpus: Corpus, tmp_path: Path):
    columns = {c: getattr(corpus, c) for c in ("dialogue_id", "utterance_index", "speaker", "label", "split")}
    broken = corpus.features | {"audio": np.full((21, 3), np.nan)}
    np.savez(tmp_path / "x.npz", **columns, label_names=np.array(corpus.label_names), **broken)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="audio"):
        load(tmp_path / "x.npz")
    assert load(tmp_path / "x.npz", modalities=["visual", "text"]).modalities == ("visual", "text")
    with pytest.raises(DataError, match="did you mean 'text'"):
        load(tmp_path / "x.npz", modalities=["txt"])


def test_class_names_can_be_overridden(corpus: Corpus, tmp_path: Path):
    path = save_npz(corpus, tmp_path / "x.npz")
    assert load(path, label_names=[*"abcdef"], name="mine").label_names == (*"abcdef",)
    with pytest.raises(DataError, match="expected 0 to 2"):
        load(path, label_names=[*"abc"])
    with pytest.raises(OptionError, match="no option 'labelnames'; did you mean 'label_names'"):
        load(path, labelnames=[*"abc"])


OTHER_FILES: dict[str, tuple[str, bytes, str]] = {
    "lfs": ("a.pkl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    "web page": ("a.npz", b"\n<!DOCTYPE html><html>", "web page"),
    "array": ("a.npy", b"\x93NUMPY\x01\x00", "single .npy array"),
    "gzip": ("a.pkl", b"\x1f\x8b\x08", "gzip"),
    "empty": ("a.npz", b"", "is empty"),
    "csv": ("a.csv", b"Sr No.,Utterance", "no feature matrices"),
    "not a zip": ("a.npz", b"nonsense", "no zip signature"),
    "nothing known": ("a.bin", b"nonsense", "neither a zip archive nor a pickle"),
}


@pytest.mark.parametrize("case", OTHER_FILES)
def test_other_files_are_named_for_what_they_are(tmp_path: Path, case: str):
    name, content, words = OTHER_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        load(tmp_path / name)


def test_folders_and_checkpoints_are_named(tmp_path: Path):
    import zipfile

    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path)
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"")
    with pytest.raises(DataError, match="torch checkpoint"):
        load(tmp_path / "model.pt")


def test_content_counts_and_not_the_name(corpus: Corpus, classic: list[Any], write_pickle: Write, tmp_path: Path):
    assert len(load(save_npz(corpus, tmp_path / "x.npz").rename(tmp_path / "x.pkl"))) == 21
    assert len(load(write_pickle(tuple(classic), name="y.npz"))) == 21
    assert len(load(write_pickle(tuple(classic), name="z.pkl", protocol=0))) == 21


def test_a_bare_name_is_a_dataset(corpus: Corpus, monkeypatch, tmp_path: Path):
    asked: list[Any] = []

    def get(name: str, kind: str) -> Any:
        asked.append((name, kind))
        return lambda **options: asked.append(options) or corpus

    monkeypatch.setattr(fusionzoo, "names", lambda kind: ["demo"])
    monkeypatch.setattr(fusionzoo, "get", get)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # a folder of that name changes nothing
    got = load("demo", modalities=["text"], dialogues=7)
    assert asked == [("demo", "dataset"), {"dialogues": 7}]
    assert got.modalities == ("text",)
    split = json_file(tmp_path, FULL)
    assert [d.id for d in load("Demo", split=split).dialogues("dev")] == ["d1", "d2"]


def test_an_unknown_bare_name_gets_the_registry_s_answer():
    with pytest.raises(UnknownNameError, match="dmeo"):
        load("dmeo")


def test_reading_data_imports_no_torch(corpus: Corpus, classic: list[Any], write_pickle: Write, tmp_path: Path):
    path = save_npz(corpus, tmp_path / "x.npz")
    other = write_pickle(tuple(classic))
    code = (
        "import sys, fusionzoo.data as d\n"
        "from fusionzoo.data.conversion import convert\n"
        f"d.load({str(path)!r}); d.inspect({str(other)!r}); convert({str(other)!r}, {str(tmp_path / 'y.npz')!r})\n"
        "assert 'load' in dir(d) and 'ResidentSplit' in dir(d)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "d.Batch\n"
        "assert 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_resolves():
    import fusionzoo.data as data

    for name in data.__all__:
        assert getattr(data, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = data.nothing  # type: ignore[attr-defined]
