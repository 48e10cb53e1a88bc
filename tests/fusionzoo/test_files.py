"""One writer for everything: whole or not at all, and never in the place of what is no regular file."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fusionzoo import _files
from fusionzoo._files import write_bytes, write_text, writing
from fusionzoo.errors import FusionZooError, OutputError

needs_posix = pytest.mark.skipif(os.name == "nt", reason="devices, pipes and permission bits are POSIX's")


def test_folders_are_created_and_nothing_is_left_beside(tmp_path: Path):
    write_text(tmp_path / "a" / "b.txt", "words")
    assert (tmp_path / "a" / "b.txt").read_text() == "words"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]


def _stopped(path: Path) -> None:
    with writing(path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch):
    path = tmp_path / "kept.txt"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OutputError, match=r"kept\.txt: cannot be written \(No space left"):
        write_text(path, "new")
    with pytest.raises(KeyboardInterrupt):
        _stopped(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


@needs_posix
def test_permission_bits_stay(tmp_path: Path):
    path = tmp_path / "script"
    write_text(path, "old")
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "fresh", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o644
    path.chmod(0o750)
    write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o750


@needs_posix
def test_a_link_stays_and_its_target_is_written(tmp_path: Path):
    (tmp_path / "real").mkdir()
    target, link, second = tmp_path / "real" / "a.csv", tmp_path / "link.csv", tmp_path / "second.csv"
    target.write_text("old")
    link.symlink_to(Path("real") / "a.csv")
    second.symlink_to(link)
    write_text(second, "new")
    assert link.is_symlink()
    assert second.is_symlink()
    assert target.read_text() == "new"
    dangling = tmp_path / "dangling.csv"
    dangling.symlink_to(tmp_path / "real" / "later.csv")
    write_text(dangling, "made")
    assert dangling.is_symlink()
    assert (tmp_path / "real" / "later.csv").read_text() == "made"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OutputError, match="loop"):
        write_text(loop, "x")
    assert loop.is_symlink()


@needs_posix
def test_a_pipe_is_written_to(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_bytes(pipe, b"through")
    reader.join(10)
    assert read == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@needs_posix
def test_devices_stay_devices(tmp_path: Path):
    try:
        os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError:
        pytest.skip("only root makes devices")
    with contextlib.suppress(OutputError):  # a file system without devices
        write_text(tmp_path / "null", "x")
    assert stat.S_ISCHR(os.lstat(tmp_path / "null").st_mode)
    link = tmp_path / "link"
    link.symlink_to(os.devnull)
    write_text(link, "x")
    assert link.is_symlink()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no /dev/stdout here")
@pytest.mark.parametrize("to_file", [True, False])
def test_standard_output_is_written_to_in_order(tmp_path: Path, to_file: bool):
    program = (
        "from pathlib import Path; from fusionzoo._files import write_text\n"
        "print('before'); write_text(Path('/dev/stdout'), 'between\\n'); print('after')"
    )
    command = [sys.executable, "-u", "-c", program]
    if to_file:
        with open(tmp_path / "out", "wb") as out:
            subprocess.run(command, stdout=out, check=True)
        text = (tmp_path / "out").read_bytes()
    else:
        text = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    assert text.split() == [b"before", b"between", b"after"]


@needs_posix
def test_what_cannot_be_written_is_refused_in_words(tmp_path: Path):
    with pytest.raises(OutputError, match=r"is a folder, expected a file"):
        write_text(tmp_path, "x")
    (tmp_path / "file").write_text("old")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "file" / "below", "x")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "a\0b", "x")
    (tmp_path / "file").chmod(0o444)
    if not os.access(tmp_path / "file", os.W_OK):  # root may write everything
        with pytest.raises(OutputError, match="its permissions say so"):
            write_text(tmp_path / "file", "x")
    assert issubclass(OutputError, FusionZooError)


def test_long_names_can_be_written(tmp_path: Path):
    write_text(tmp_path / ("n" * 250), "x")
    assert [len(p.name) for p in tmp_path.iterdir()] == [250]


def test_arrays_are_written_through_a_link(tmp_path: Path):
    from fusionzoo.data import load, save_npz

    link = tmp_path / "corpus.npz"
    link.symlink_to(tmp_path / "elsewhere.npz")
    save_npz(load("demo", dialogues=12), link)
    assert link.is_symlink()
    assert "label" in np.load(tmp_path / "elsewhere.npz")


def test_nothing_is_written_past_the_one_writer():
    package = Path(_files.__file__).parent
    # Checkpoints are folders that appear whole; `new`, and the checks of readers, write into folders of their own.
    others = {
        package / file
        for file in ("_files.py", "runs/checkpoint.py", "scaffold/__init__.py", "testing/checks/reader.py")
    }
    past = re.compile(r"\.write_(bytes|text)\(|os\.replace\(|np\.save|open\([^)\n]*[\"'][wax]b?[\"']|mkstemp")
    found = [
        f"{path.name}: {line.strip()}"
        for path in package.rglob("*.py")
        if path not in others
        for line in path.read_text(encoding="utf-8").splitlines()
        if past.search(line) and "np.savez_compressed(stream" not in line
    ]
    assert found == []
