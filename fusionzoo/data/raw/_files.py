"""What all readers need: folders listed once, text in odd encodings, and a record of everything that is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from fusionzoo.data.raw.corpus import Problem

AUDIO = frozenset({".wav", ".flac", ".mp3", ".ogg", ".m4a"})
VIDEO = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv"})

# cp1252 text that was decoded as latin-1 somewhere on its way has its quotes and dashes in this range, where no
# printable character is: they are put right.
_C1 = re.compile("[\x80-\x9f]")


class Log:
    """The problems of a corpus as they are met."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def file(self, file: object, what: str, reason: str, utterance: str | None = None) -> None:
        """A file (or an annotation) is not used; the utterance, if there is one, stays."""
        self.problems.append(Problem(str(file), what, reason, utterance, dropped=False))

    def drop(self, file: object, what: str, reason: str, utterance: str | None = None) -> None:
        """A whole utterance is left out."""
        self.problems.append(Problem(str(file), what, reason, utterance))


def entries(folder: Path, log: Log | None = None) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name, without hidden files (and macOS's `._` shadows); empty if there is none."""
    try:
        with os.scandir(folder) as scan:
            return sorted((e for e in scan if not e.name.startswith(".")), key=lambda e: e.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        if log is not None:
            log.file(folder, f"cannot be listed ({error.strerror or error})", "unreadable folder")
        return []


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted."""
    return [Path(e.path) for e in entries(folder) if e.is_dir()]


def files(folder: Path, suffixes: Collection[str], log: Log) -> dict[str, Path]:
    """Lower-case stem -> file, of the files with one of these suffixes that are not empty; empty ones are reported.

    Where two files differ only in suffix, the first in alphabetical order is taken.
    """
    found: dict[str, Path] = {}
    for entry in entries(folder, log):
        stem, suffix = os.path.splitext(entry.name)
        if suffix.lower() not in suffixes:
            continue
        wrong = why_unusable(Path(entry.path))
        if wrong:
            log.file(entry.path, wrong, "unusable file")
        else:
            found.setdefault(stem.lower(), Path(entry.path))
    return found


def why_unusable(path: Path) -> str | None:
    """Why a file cannot hold a recording, seen without decoding it; None where it may."""
    try:
        if not path.is_file():
            return "there is no such file"
        size = path.stat().st_size
        if size == 0:
            return "is empty"
        if size < 400:
            with open(path, "rb") as stream:
                if stream.read(40).startswith(b"version https://git-lfs"):
                    return "is a Git LFS pointer, not the recording; run `git lfs pull` where it comes from"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None


def read_text(path: Path, log: Log) -> str | None:
    """A text file in UTF-8 (with or without its mark), UTF-16 (with it) or cp1252; None and a problem if unreadable.

    Never fails on a byte: what no encoding explains becomes U+FFFD.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        log.file(path, f"cannot be read ({error.strerror or error})", "unreadable text file")
        return None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    # NUL bytes are what an interrupted download leaves; the csv module refuses them.
    return _C1.sub(lambda m: m[0].encode("latin-1").decode("cp1252", "replace"), text).replace("\0", "")


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sort key by which `utt2` comes before `utt10`."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name) if part]
