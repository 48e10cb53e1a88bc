"""Subtitles, srt and vtt: what is said when, and who says it where a prefix tells.

Who speaks is known by `<v Ann>`, `[Ann] ...` at the beginning of a line, or `Ann: ...` where that can be no part of the
sentence: a prefix in capitals, one that comes again in another cue, or prefixes in all cues. Other words before a colon stay what
they are, words. A cue without a speaker goes on with the one before.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from fusionzoo.data.tables.cells import seconds

SUFFIXES = (".srt", ".vtt")
_TIMES = re.compile(r"^\s*(\S+)\s+-->\s+(\S+)")
_VOICE = re.compile(r"^<v(?:\.[^ >]*)?\s+([^>]+)>", re.IGNORECASE)
_BRACKET = re.compile(r"^\[([^\]:]{1,40})\]:?\s+(?=\S)")
_COLON = re.compile(r"^([^\W\d_][^\n:<>.?!,;]{0,39}):\s+(?=\S)")
_DASH = re.compile(r"^[-\u2013\u2014]\s*")
_TAG = re.compile(r"</?[a-zA-Z][^>]*>|\{\\[^}]*\}")
_SPACES = re.compile(r"\s+")


@dataclass
class _Cue:
    where: str
    start: float
    end: float
    speaker: str | None
    said: str


def read_subtitles(text: str) -> tuple[list[tuple[str, dict[str, Any]]], list[str], list[str]]:
    """Rows of start, end, speaker and text with their places; problems; notes."""
    cues: list[_Cue] = []
    problems: list[str] = []
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    block: list[str] = []
    first = 1
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            first = number if not block else first
            block.append(line)
        elif block:
            _take(block, first, cues, problems)
            block = []
    notes = _tell_speakers(cues)
    rows = [(c.where, {"start": c.start, "end": c.end, "speaker": c.speaker, "text": c.said}) for c in cues if c.said]
    return rows, problems, notes


def _take(block: list[str], first: int, cues: list[_Cue], problems: list[str]) -> None:
    """The cues of a block of lines: one for each line that begins with a dash, else one of all."""
    at = next((i for i, line in enumerate(block) if "-->" in line), None)
    if at is None:
        if not re.match(r"WEBVTT|NOTE|STYLE|REGION", block[0]):
            problems.append(f"line {first}: {block[0][:60]!r} and what follows has no line of times (00:01 --> 00:02)")
        return
    where = f"line {first + at}"
    match = _TIMES.match(block[at])
    start, end = (seconds(t) for t in match.groups()) if match else (None, None)
    if start is None or end is None:
        problems.append(
            f"{where}: {block[at].strip()[:60]!r} has no times that can be read (00:00:01,000 --> 00:00:02,000)"
        )
        return
    said = [line.strip() for line in block[at + 1 :]]
    parts = [[line] for line in said] if said and all(_DASH.match(line) for line in said) else [said]
    cues += [_cue(where, start, end, " ".join(part)) for part in parts]


def _cue(where: str, start: float, end: float, said: str) -> _Cue:
    said = _DASH.sub("", said)
    for mark in (_VOICE, _BRACKET):
        if match := mark.match(said):
            return _Cue(where, start, end, match[1].strip(), _plain(said[match.end() :]))
    return _Cue(where, start, end, None, _plain(said))


def _plain(text: str) -> str:
    return _SPACES.sub(" ", html.unescape(_TAG.sub("", text))).strip()


def _tell_speakers(cues: list[_Cue]) -> list[str]:
    """Take speakers off the words where that is sure, and let cues without one go on with the one before; notes."""
    found = [None if c.speaker else _COLON.match(c.said) for c in cues]
    names = Counter(m[1].strip() for m in found if m)
    everywhere = bool(cues) and all(m or c.speaker for m, c in zip(found, cues, strict=True))
    known = {name for name, count in names.items() if everywhere or count > 1 or name.isupper()}
    known |= names.keys() & {c.speaker for c in cues}
    last: str | None = None
    carried = 0
    for cue, match in zip(cues, found, strict=True):
        if match and match[1].strip() in known:
            cue.speaker, cue.said = match[1].strip(), cue.said[match.end() :]
        carried += cue.speaker is None and last is not None
        last = cue.speaker = cue.speaker or last
    notes = [f"{carried} cues name nobody: the speaker of the cue before goes on"] if carried else []
    if left := sorted(names.keys() - known):
        notes.append(f"taken for words and not for speakers: {', '.join(f'{n!r}' for n in left[:5])}")
    return notes
