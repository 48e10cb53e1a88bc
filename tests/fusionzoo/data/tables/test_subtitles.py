"""Subtitles: times, and speakers only where that is sure."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusionzoo.data import read_table
from fusionzoo.data.tables.cells import seconds
from fusionzoo.data.tables.subtitles import read_subtitles

SRT = """1
00:00:01,000 --> 00:00:02,500
Ann: Look: <i>it</i> rains.

2
00:00:02,500 --> 00:00:04,000
and it pours.

3
00:01:00,000 --> 00:01:02,000
- BOB: Does it?
- Ann: Yes &amp; no.
"""

VTT = """WEBVTT - a title

NOTE nothing

intro
00:01.000 --> 00:02.000 align:start
<v.loud Ann Lee>Hello there</v>

00:02.000 --> 00:03.000
[Bob] Note: this.
"""


def test_srt_with_prefixes(tmp_path: Path) -> None:
    path = tmp_path / "talk.srt"
    path.write_text(SRT.replace("\n", "\r\n"))
    table = read_table(path, audio=path)
    assert [(u.speaker, u.text, u.start, u.end) for u in table.utterances] == [
        ("Ann", "Look: it rains.", 1.0, 2.5),
        ("Ann", "and it pours.", 2.5, 4.0),
        ("BOB", "Does it?", 60.0, 62.0),
        ("Ann", "Yes & no.", 60.0, 62.0),
    ]
    assert {u.audio for u in table.utterances} == {path}
    assert {u.dialogue_id for u in table.utterances} == {"talk"}
    assert "1 cues name nobody: the speaker of the cue before goes on" in table.notes


def test_vtt_with_voices() -> None:
    rows, problems, _ = read_subtitles(VTT)
    assert [(cells["speaker"], cells["text"], cells["start"]) for _, cells in rows] == [
        ("Ann Lee", "Hello there", 1.0),
        ("Bob", "Note: this.", 2.0),
    ]
    assert not problems


def test_words_before_a_colon_are_no_speaker_where_that_is_not_sure() -> None:
    once = "00:01 --> 00:02\nRemember: nothing.\n\n00:02 --> 00:03\nBob said so.\n"
    rows, _, notes = read_subtitles(once)
    assert [(cells["speaker"], cells["text"]) for _, cells in rows] == [
        (None, "Remember: nothing."),
        (None, "Bob said so."),
    ]
    assert notes == ["taken for words and not for speakers: 'Remember'"]
    everywhere = once.replace("Bob said so", "Bob: said so")
    assert [cells["speaker"] for _, cells in read_subtitles(everywhere)[0]] == ["Remember", "Bob"]


def test_what_is_no_cue_is_told_by_line() -> None:
    rows, problems, _ = read_subtitles("1\n00:01 --> soon\nhi\n\n2\nno times\n\n00:03 --> 00:04\nok\n")
    assert len(rows) == 1
    assert [p.split(":")[0] for p in problems] == ["line 2", "line 5"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12.5", 12.5),
        ("12,5", 12.5),
        ("1:02.5", 62.5),
        ("00:01:02,500", 62.5),
        ("x", None),
        ("-1", None),
        ("", None),
        ("nan", None),
    ],
)
def test_times(text: str, value: float | None) -> None:
    assert seconds(text) == value
