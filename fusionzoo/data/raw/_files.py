"""What all readers need: folders listed once, text in odd encodings, and a record of everything that is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from fusionzoo.data.raw._encodings import decode
from fusionzoo.data.raw.corpus import Problem
from fusionzoo.errors import OptionError

AUDIO = frozenset({".wav", ".flac", ".mp3", ".ogg", ".m4a"})
VIDEO = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv"})


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


def read_text(path: Path, log: Log, *, encoding: str | None = None, chinese: bool = False) -> str | None:
    """A text file, decoded where it can be proven how (see `_encodings`); None and a problem where it cannot be read.

    encoding : what the user says that it is.
    chinese : whether it is known to be Chinese.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        log.file(path, f"cannot be read ({error.strerror or error})", "unreadable text file")
        return None
    text, note = decode(data, encoding=encoding, chinese=chinese)
    if text is None:
        say = "" if encoding else "; if you know it, say so (encoding='gb18030', or --reader encoding=gb18030)"
        log.file(path, f"{note}: none of its words is read{say}", "unknown encoding")
    elif note:
        log.file(path, note, "damaged text")
    return text


def read_lines(path: Path, log: Log, *, encoding: str | None = None, chinese: bool = False) -> list[str]:
    """The lines of a text file, without their ends; none where it cannot be read, which becomes a problem."""
    text = read_text(path, log, encoding=encoding, chinese=chinese)
    # Not `splitlines`, which also ends a line at characters that may stand in a sentence.
    return re.split(r"\r\n|\r|\n", text) if text else []


def check_encoding(encoding: str | None) -> None:
    """Raise `OptionError` for a name of an encoding that Python does not know."""
    if encoding is None:
        return
    try:
        "a".encode(encoding)
    except (LookupError, TypeError, ValueError):
        raise OptionError(
            f"encoding={encoding!r}: there is no such encoding; expected a name such as utf-8, utf-16-le, gb18030, big5 or "
            f"cp1252"
        ) from None


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sort key by which `utt2` comes before `utt10`."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name) if part]
