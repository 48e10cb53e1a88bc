"""Words in any encoding: read rightly where it can be proven, else left out and said so; never other words."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import pytest

from fusionzoo.data.raw import read_raw
from fusionzoo.data.raw._encodings import decode
from fusionzoo.errors import DataError, OptionError

CHINESE = "0003_000351\t他把窗户关上了。\t生气\n0003_000352\t今天的天气真不错，我们去公园吧！\t高兴\n"
TRADITIONAL = "0003_000351\t他把窗戶關上了。\t生氣\n0003_000352\t今天的天氣真不錯，我們去公園吧！\t高興\n"
WESTERN = "“It’s odd” — she said… déjà vu, naïve café, Ängste, £5, ¿Qué?\nplain line\n"
RUSSIAN = "Привет, как дела?\nХорошо\n"
JAPANESE = "窓を閉めてください。\nこんにちは、元気ですか。\n"
KOREAN = "창문을 닫아 주세요.\n안녕하세요\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", [CHINESE, WESTERN, RUSSIAN, JAPANESE, "only ascii\n"])
def test_unicode_is_read(encoding: str, text: str):
    assert decode(text.encode(encoding)) == (text, "")


def test_western_words_are_read_as_such():
    assert decode(WESTERN.encode("cp1252")) == (WESTERN, "")
    mixed = "It’s UTF-8 é\n".encode() + "It’s not: é\n".encode("cp1252")
    assert decode(mixed) == ("It’s UTF-8 é\nIt’s not: é\n", "")


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "gb2312"])
def test_chinese_that_is_declared_is_read(encoding: str):
    assert decode(CHINESE.encode(encoding), chinese=True) == (CHINESE, "")
    assert decode("他把窗户关上了".encode(encoding), chinese=True)[0] == "他把窗户关上了"


def test_big5_that_is_declared_chinese_is_read():
    assert decode(TRADITIONAL.encode("big5"), chinese=True) == (TRADITIONAL, "")


UNPROVEN = [
    *((CHINESE, e) for e in ("gb18030", "gbk", "hz", "iso2022_jp_2")),
    (TRADITIONAL, "big5"),
    *((RUSSIAN, e) for e in ("cp1251", "koi8-r", "iso8859-5")),
    *((JAPANESE, e) for e in ("shift_jis", "euc-jp", "iso2022_jp")),
    *((KOREAN, e) for e in ("euc-kr", "johab", "iso2022_kr")),
    ("Καλημέρα κόσμε", "cp1253"),
    ("שלום עולם", "cp1255"),
    ("مرحبا بالعالم", "cp1256"),
    ("สวัสดี", "tis-620"),
    ("Zażółć gęślą jaźń", "cp1250"),
    ("窓を閉めて", "utf-16-le"),
]


#: With and without a declaration that the text is Chinese. Thai's bytes are Chinese characters too: where its text is declared
#: to be Chinese, that is believed.
DECLARED = [(t, e, c) for c in (False, True) for t, e in UNPROVEN if not (c and e == "tis-620")]


@pytest.mark.parametrize(
    ("text", "encoding", "chinese"), DECLARED, ids=[f"{c}-{e}-{i}" for i, (_, e, c) in enumerate(DECLARED)]
)
def test_what_cannot_be_proven_is_never_other_words(text: str, encoding: str, chinese: bool):
    found, note = decode(text.encode(encoding), chinese=chinese)
    assert found in (text, None)
    assert found is not None or "encod" in note


def test_damage_is_said():
    data = bytearray((CHINESE * 3).encode())
    data[20] = 0xFF
    text, note = decode(bytes(data))
    assert text is not None
    assert "\ufffd" in text
    assert "not UTF-8" in note
    assert decode("It’s cut".encode() + b"\0\0\0") == ("It’s cut", "")
    assert decode("窗户".encode("utf-16")[:-1])[0] is None


# ---------------------------------------------------------------------- in releases


@pytest.fixture
def transcript(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        (tmp_path / "0003" / "Angry").mkdir(parents=True, exist_ok=True)
        with wave.open(str(tmp_path / "0003" / "Angry" / "0003_000351.wav"), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(16000)
            sound.writeframes(b"\0\1" * 800)
        (tmp_path / "0003" / "0003.txt").write_bytes(data)
        return tmp_path

    return write


def test_mandarin_transcripts_of_esd(transcript: Callable[[bytes], Path]):
    line = "0003_000351\t他把窗户关上了\tAngry\n"
    for encoding in ("utf-8", "gb18030", "utf-16", "utf-16-le"):
        corpus = read_raw(transcript(line.encode(encoding)), language="mandarin")
        assert corpus.utterances[0].text == "他把窗户关上了"
    unknown = "0003_000351\tПривет, как дела\tAngry\n".encode("koi8-r")
    corpus = read_raw(transcript(unknown), language="mandarin")
    assert corpus.utterances[0].text is None
    assert corpus.skipped()["unknown encoding"] == 1
    assert "encoding='gb18030'" in next(p.what for p in corpus.problems if p.reason == "unknown encoding")
    corpus = read_raw(transcript(unknown), language="mandarin", encoding="koi8-r")
    assert corpus.utterances[0].text == "Привет, как дела"
    corpus = read_raw(transcript(unknown), language="mandarin", encoding="ascii")
    assert "is not in the encoding ascii" in next(p.what for p in corpus.problems)
    for name in ("no-such", "zip", "a\0b"):
        with pytest.raises(OptionError, match="no such encoding"):
            read_raw(transcript(unknown), language="mandarin", encoding=name)


HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
ROW = '1,"Well, words",Ross,joy,positive,0,{n},1,1,"{start}","{end}"'


@pytest.fixture
def tables(tmp_path: Path) -> Callable[..., Path]:
    """A folder of MELD's three tables with these contents."""

    def write(*lines: str, encoding: str = "utf-8") -> Path:
        for split in ("train", "dev", "test"):
            (tmp_path / f"{split}_sent_emo.csv").write_bytes("\r\n".join(lines).encode(encoding))
        return tmp_path

    return write


def row(n: int = 0, start: str = "00:00:01,000", end: str = "00:00:02,500") -> str:
    return ROW.format(n=n, start=start, end=end)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_tables_in_other_encodings(tables: Callable[..., Path], encoding: str):
    corpus = read_raw(tables(HEADER, row().replace("words", "wörds"), encoding=encoding))
    assert [u.text for u in corpus.utterances] == ["Well, wörds"] * 3


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_tables_that_another_program_wrote_again(tables: Callable[..., Path], separator: str):
    cells = ["1", "Well; words, said", "Tess", "joy", "positive", "0", "0"]
    quoted = separator.join(f'"{c}"' for c in cells)
    corpus = read_raw(tables(separator.join(HEADER.split(",")[:7]), quoted))
    assert [u.text for u in corpus.utterances] == ["Well; words, said"] * 3
    assert corpus.skipped() == {"another separator": 3}


def test_a_column_that_is_not_needed_may_be_missing(tables: Callable[..., Path]):
    folder = tables("Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID", "Words,Tess,joy,0.0,1.0")
    corpus = read_raw(folder)
    assert len(corpus) == 3
    assert "sentiment" not in corpus.utterances[0].extras
    with pytest.raises(DataError, match=r"lacks the column\(s\) Sentiment; it has Utterance, Speaker"):
        read_raw(folder, classes="sentiment")
    with pytest.raises(DataError, match=r"lacks the column\(s\) Speaker, Dialogue_ID"):
        read_raw(tables("Utterance,Emotion,Utterance_ID", "Words,joy,0"))
    with pytest.raises(DataError, match="has the column Speaker 2 times"):
        read_raw(tables("Utterance,Speaker,Speaker,Emotion,Dialogue_ID,Utterance_ID", "Words,A,B,joy,0,0"))


@pytest.mark.parametrize(
    "bad",
    [
        '1,"' + "x" * 300_000 + '",Ross,joy,neutral,0,0,1,1,a,b',
        '1,"' + "x" * 60_000 + '",Ross,joy,neutral,0,0,1,1,a,b',
        "1,words," + "R" * 1000 + ",joy,neutral,0,0,1,1,a,b",
        "1,words,Ross,joy,neutral,-1,0,1,1,a,b",
        "1,words,Ross,joy,neutral," + "9" * 5000 + ",0,1,1,a,b",
        "1,words,Ross,joy,neutral,1e3,0,1,1,a,b",
        "1,words,Ross,joy,neutral,٣,0,1,1,a,b",
        '1,"never closed,Ross,joy,neutral,0,0,1,1,a,b',
    ],
)
def test_an_absurd_row_costs_itself_alone(tables: Callable[..., Path], bad: str):
    corpus = read_raw(tables(HEADER, row(1), bad, row(2)))
    assert [u.index for u in corpus.utterances if u.split == "train"] == [1, 2]
    assert corpus.skipped() == {"malformed row": 3}
    assert all(len(str(p)) < 400 for p in corpus.problems)


@pytest.mark.parametrize(
    ("start", "end", "seconds"),
    [
        ("00:00:01,000", "00:00:02,500", 1.5),
        ("9" * 400 + ":00:01,000", "00:00:02,000", None),
        ("00:00:01," + "9" * 400, "00:00:02,000", None),
        ("-00:00:01,000", "00:00:02,000", None),
        ("00:00:02,000", "00:00:01,000", None),
        ("00:99:01,000", "00:99:02,000", None),
        ("", "00:00:01,000", None),
    ],
)
def test_absurd_times_are_no_times(tables: Callable[..., Path], start: str, end: str, seconds: float | None):
    corpus = read_raw(tables(HEADER, row(0, start, end)))
    assert [u.extras.get("seconds") for u in corpus.utterances] == [seconds] * 3


def test_line_separators_within_a_sentence_do_not_end_a_row(tables: Callable[..., Path]):
    corpus = read_raw(tables(HEADER, row().replace("words", "wo\u2028r\x85ds\0")))
    assert len(corpus) == 3
