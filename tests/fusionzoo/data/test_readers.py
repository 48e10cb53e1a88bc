"""Readers are plugins: the core asks the registry, somebody else's reader is asked like ours, and a broken one hides nobody."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import fusionzoo
from fusionzoo._registry import Registry
from fusionzoo.data import FeatureReader, PickleReader, ReleaseReader, inspect, load
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.entries import corpus_of
from fusionzoo.data.raw import RawCorpus, RawUtterance, read_raw, recognise
from fusionzoo.data.readers import known_layouts
from fusionzoo.errors import DataError, FusionZooWarning, OptionError
from fusionzoo.testing import run


class Tapes(ReleaseReader):
    """A folder of tapes, as nobody ever released them."""

    media = ("text", "audio")
    looks_like = "tapes (*.tape)"

    def recognise(self, path: Path, /) -> bool:
        return path.is_dir() and any(path.glob("*.tape"))

    def read(self, root: Path, /, *, side: str = "A") -> RawCorpus:
        tapes = sorted(root.glob("*.tape"))
        if not tapes:
            raise DataError(f"{root}: holds no tape")
        split = ("train", "dev", "test")
        rows = [RawUtterance(p.stem, p.stem, 0, side, 0, split=split[i % 3], text="hm") for i, p in enumerate(tapes)]
        return RawCorpus("tapes", root, ("calm",), tuple(rows))


class First(Tapes):
    """Tapes, before anybody else."""

    precedence = 1


class Records(PickleReader):
    """A list of records, one per utterance."""

    def recognise(self, content: object, /) -> bool:
        return isinstance(content, list) and bool(content) and all(isinstance(c, dict) and "talk" in c for c in content)

    def entries(self, content, path, /):
        fields = {"speakers": {}, "labels": {}, "text": {}, "train": [], "test": []}
        for row in content:
            for entry, key in (("speakers", "who"), ("labels", "class"), ("text", "vector")):
                fields[entry].setdefault(row["talk"], []).append(row[key])
            fields[row["part"]].append(row["talk"])
        return fields, ["the weather"]


class Numbers(FeatureReader):
    """A text file of numbers, one row per utterance."""

    looks_like = "lines of numbers (*.num)"

    def recognise(self, path: Path, /) -> bool:
        return path.suffix == ".num"

    def read(self, path: Path, /, *, label_names=None, name=None, keep_all=False, scale: float = 1.0) -> Corpus:
        rows = np.loadtxt(path, ndmin=2) * scale
        fields = {"speakers": {i: ["A"] for i in range(len(rows))}, "labels": {i: [i % 2] for i in range(len(rows))}}
        fields |= {"text": {i: [row] for i, row in enumerate(rows)}, "train": [0, 1], "test": range(2, len(rows))}
        fields["test"] = list(fields["test"])
        return corpus_of(path, "numbers", fields, label_names=label_names, name=name, keep_all=keep_all)


class Fails(ReleaseReader):
    """A reader that raises when it is asked."""

    media = ("audio",)

    def recognise(self, path: Path, /) -> bool:
        raise ZeroDivisionError("oh")


@pytest.fixture
def registry(monkeypatch):
    """A registry of its own, in which tests register readers."""
    fresh = Registry()
    for where in ("fusionzoo._registry.registry", "fusionzoo.data.readers.registry", "fusionzoo.testing.api.registry"):
        monkeypatch.setattr(where, fresh)
    monkeypatch.setattr("fusionzoo.testing.checks.reader.registry", fresh)
    return fresh


def add(reader: type, **facts: object) -> str:
    (name,) = fusionzoo.register(fusionzoo.plugin(reader, summary="one of the tests", **facts))
    return name


def test_a_release_of_somebody_elses_is_recognised_read_and_inspected(registry, tmp_path: Path):
    assert add(Tapes) == "tapes"
    assert "tapes" in fusionzoo.names("reader")
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.tape").write_text("~")
    assert recognise(tmp_path) == "tapes"
    assert {u.speaker for u in read_raw(tmp_path, side="B").utterances} == {"B"}
    with pytest.raises(OptionError, match=r"reader of tapes has no option 'sied'; did you mean 'side'\? Options: side"):
        read_raw(tmp_path, sied="B")
    report = inspect(tmp_path)
    assert (report.kind, report.missing, report.rows) == ("raw-tapes", ["audio"], 3)
    with pytest.raises(DataError, match="the release of tapes: recordings, no features"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"Known: IEMOCAP .*tapes \(\*\.tape\); .*\. Name the folder"):
        read_raw(_empty(tmp_path))


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_its_card_shows_the_options_of_read(registry):
    add(Tapes, paper="unpublished")
    card = fusionzoo.card("tapes", "reader")
    assert card.defaults == {"side": "A"}
    assert "side: 'str' = 'A'" in card.signature
    assert card.handles == {"recordings"}
    assert fusionzoo.card("iemocap", "reader").defaults["test_session"] == 5


def test_a_layout_of_pickles_of_somebody_elses_is_loaded(registry, tmp_path: Path):
    add(Records)
    path = tmp_path / "talks.pkl"
    rows = [("x", "A", 0, "train"), ("y", "B", 1, "train"), ("z", "A", 1, "test")]
    path.write_bytes(
        pickle.dumps([{"talk": t, "who": w, "class": c, "part": p, "vector": [c, 2.0]} for t, w, c, p in rows])
    )
    corpus = load(path, label_names=["no", "yes"], dev_fraction=0.5)
    assert corpus.info["layout"] == "records"
    assert (corpus.dims, corpus.label_names, len(corpus)) == ({"text": 2}, ("no", "yes"), 3)
    assert inspect(path).kind == "records"
    assert "the weather" in inspect(path).skipped


def test_a_file_of_another_kind_is_loaded(registry, tmp_path: Path):
    path = tmp_path / "few.num"
    path.write_text("1 2\n3 4\n5 6\n")
    with pytest.raises(DataError, match="is neither a zip archive nor a pickle"):
        load(path)
    add(Numbers)
    assert load(path, scale=10.0, dev_fraction=0.5).features["text"].max() == 60
    assert inspect(path).kind == "numbers"
    with pytest.raises(OptionError, match="has no option 'scael'; did you mean 'scale'"):
        load(path, scael=10.0)


def test_one_that_raises_is_said_and_hides_nobody(registry, tmp_path: Path):
    add(Fails)
    add(Tapes)
    (tmp_path / "a.tape").write_text("~")
    with pytest.warns(FusionZooWarning, match="reader 'fails' failed to look at .*ZeroDivisionError: oh"):
        assert recognise(tmp_path) == "tapes"


def test_one_that_derives_from_nothing_is_left_out(registry, tmp_path: Path):
    class_of_its_own = fusionzoo.Spec("odd", "reader", "pathlib:Path", handles=frozenset({"recordings"}))

    class Hook:
        @fusionzoo.hookimpl
        def fusionzoo_register(self, register):
            register(class_of_its_own)

    fusionzoo.register(Hook())
    with pytest.warns(FusionZooWarning, match="'odd' is no ReleaseReader.*derive it from fusionzoo.data.ReleaseReader"):
        assert recognise(tmp_path) is None


def test_readers_are_asked_in_their_order(registry, tmp_path: Path):
    add(Tapes)
    add(First, name="zzz")
    (tmp_path / "a.tape").write_text("~")
    assert recognise(tmp_path) == "zzz"


def test_a_distributions_reader_is_found(tmp_path: Path):
    """Installed like anybody's package: a line of entry points and a hook."""
    info = tmp_path / "fz_tapes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fz-tapes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fusionzoo.readers]\ntapes = fz_tapes\nbroken = fz_broken\n")
    source = '''
    import fusionzoo
    from fusionzoo.data import ReleaseReader
    from fusionzoo.data.raw import RawCorpus, RawUtterance
    class Tapes(ReleaseReader):
        """A folder of tapes."""
        media = ("text",)
        @staticmethod
        def recognise(path): return path.is_dir() and any(path.glob("*.tape"))
        @staticmethod
        def read(root):
            return RawCorpus("tapes", root, ("calm",), (RawUtterance("a", "a", 0, "A", 0, split="train", text="hm"),))
    fusionzoo_register = fusionzoo.plugin(Tapes, summary="tapes")
    '''
    (tmp_path / "fz_tapes.py").write_text(textwrap.dedent(source))
    (tmp_path / "fz_broken.py").write_text("raise RuntimeError('boom')")
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "a.tape").write_text("~")
    code = f"""
    import sys, warnings, fusionzoo
    assert {{"tapes", "broken", "iemocap"}} <= set(fusionzoo.names("reader"))
    assert not [m for m in sys.modules if m.startswith(("fz_", "numpy", "torch", "fusionzoo.data"))]
    from fusionzoo.data.raw import read_raw, recognise
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert recognise({str(tmp_path / "release")!r}) == "tapes"
    assert any("'broken' is left out" in str(w.message) and "boom" in str(w.message) for w in said), said
    assert len(read_raw({str(tmp_path / "release")!r})) == 1
    """
    env = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_readers_messages_say_so(monkeypatch):
    class Empty(Registry):
        def _entry_points(self):
            return iter(())

    monkeypatch.setattr("fusionzoo.data.readers.registry", Empty())
    assert "no reader of it is installed" in known_layouts(PickleReader)


@pytest.mark.parametrize("name", fusionzoo.names("reader"))
def test_ours_pass_the_checks(name: str):
    run(name, "reader").raise_if_failed()


class Anything(ReleaseReader):
    media = ("smell",)

    def recognise(self, path, /):
        return True

    def read(self, root, side, /):
        return RawCorpus("x", root, ("calm",), ())


class Touchy(PickleReader):
    """A layout whose first entry is looked at without asking whether there is one."""

    def recognise(self, content, /):
        return content[0] == "mine"


def test_checks_find_what_is_wrong(registry):
    add(Anything)
    add(Touchy)
    failed = {r.check: r.reason for r in run("anything", "reader") if r.status == "failed"}
    assert {"docstring_present", "passes_over_what_it_does_not_know", "refuses_another_layout"} < set(failed)
    assert "by position or without a default" in failed["options_by_name"]
    assert "smell" in failed["media_named"]
    (touchy,) = [r for r in run("touchy", "reader") if r.status == "failed"]
    assert "recognise() of None raises TypeError" in touchy.reason
