"""Text of unknown encoding, decoded only where it can be proven what it is: words are never guessed into other words.

=====================  ====================================================================================
proven by              what
=====================  ====================================================================================
the caller             `encoding=`: that one, or nothing
a byte order mark      UTF-8, UTF-16, UTF-32
its bytes              UTF-8 (whole, or with a few damaged bytes); UTF-16 without a mark, whose ASCII characters
                       have a zero on one side
Western words          Windows-1252: single letters with accents and typographic marks among ASCII letters
Chinese, as declared   GB18030 or Big5, whichever alone makes common characters of the bytes
=====================  ====================================================================================
"""

from __future__ import annotations

import re
import unicodedata

_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
# cp1252 text that was decoded as latin-1 somewhere on its way has its quotes and dashes in this range, where no
# printable character is: they are put right.
_C1 = re.compile("[\x80-\x9f]")
_HIGH = re.compile(rb"[\x80-\xff]+")
# Windows-1252: quotes, dashes, the ellipsis, the euro, spaces and the signs that come alone; and letters with accents.
_SIGN = rb"[\x80\x82\x84\x85\x8b\x91-\x97\x99\x9b\xa0\xa1\xa3\xab\xad\xb0\xbb\xbf]"
_LETTER = rb"[\x8a\x8c\x8e\x9a\x9c\x9e\x9f\xc0-\xd6\xd8-\xf6\xf8-\xff]"
_WESTERN = re.compile(rb"%b{0,2}(?:%b|[\xe0-\xf6\xf8-\xff]{2})?%b{0,2}" % (_SIGN, _LETTER, _SIGN))
_CAPITAL_WITHIN = re.compile(rb"[a-z\xe0-\xff][\xc0-\xd6\xd8-\xde]|[\xc0-\xd6\xd8-\xde][^A-Za-z\xc0-\xff' .,-]")
_PUNCTUATION = re.compile("[\u2014\u2018-\u201d\u2026\u00b7\u3000-\u303f\uff00-\uffef]")
_COMMON = 0.9


def decode(data: bytes, *, encoding: str | None = None, chinese: bool = False) -> tuple[str | None, str]:
    """The text and a note on it: None and why it cannot be read, or the text and what is damaged in it (mostly nothing)."""
    if encoding is not None:
        found = _strict(data, encoding)
        return found, "" if found is not None else f"is not in the encoding {encoding}, which was asked for"
    for mark, name in _MARKS:
        if data.startswith(mark) and (found := _strict(data, name)) is not None:
            return _mended(found), ""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None, "begins as UTF-16 does and is damaged, so that its encoding is not sure"
    if b"\0" in data:
        if found := _unmarked_utf16(data):
            return found, ""
        data = data.replace(b"\0", b"")  # what an interrupted download leaves
    if re.search(rb"\x1b[$(]|~\{[!-~]+~\}", data):
        return None, "is in an encoding with escape sequences (ISO-2022 or HZ)"
    if chinese and (text := _chinese(data)) is not None:
        return text, ""
    if (found := _strict(data, "utf-8")) is not None:
        return _mended(found), ""
    lines = [_western_or_utf8(line) for line in data.split(b"\n")]
    if None not in lines:
        return _mended("\n".join(line for line in lines if line is not None)), ""
    text = data.decode("utf-8", "replace")
    bad, good = text.count("\ufffd"), sum(c > "\x7f" for c in text) - text.count("\ufffd")
    if good > 4 * bad:
        return text, f"has {bad} bytes that are not UTF-8, the encoding of the rest: they are shown as \ufffd"
    return None, "is in an unknown encoding, neither UTF-8 nor UTF-16 nor Windows-1252"


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _mended(text: str) -> str:
    return _C1.sub(lambda m: m[0].encode("latin-1").decode("cp1252", "replace"), text)


def _unmarked_utf16(data: bytes) -> str | None:
    """UTF-16 without its mark, where zeros lie on one side only and what they make of the rest are characters."""
    even, odd = data[::2].count(0), data[1::2].count(0)
    if len(data) % 2 or min(even, odd) > 0 or max(even, odd) < max(2, len(data) // 40):
        return None
    try:
        text = data.decode("utf-16-be" if even else "utf-16-le")
    except UnicodeDecodeError:
        return None
    strange = sum(unicodedata.category(c) in ("Cn", "Co", "Cc", "Cs") and c not in "\t\r\n" for c in set(text))
    return None if strange else text


def _western_or_utf8(line: bytes) -> str | None:
    """A line in UTF-8, or one in Windows-1252 that can be nothing else; None for any other."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        pass
    runs = _HIGH.findall(line)
    letters = sum(65 <= (c & 0xDF) <= 90 for c in line if c < 128)
    if any(not _WESTERN.fullmatch(run) for run in runs) or _CAPITAL_WITHIN.search(line):
        return None
    if sum(map(len, runs)) > max(4, letters // 2):
        return None
    try:
        return line.decode("cp1252")
    except UnicodeDecodeError:
        return None


def _chinese(data: bytes) -> str | None:
    """Text that is known to be Chinese, where one encoding alone makes common characters of it."""
    found = {}
    for encoding, common in (("utf-8", None), ("gb18030", ("gb2312", 0xB0, 0xD7)), ("big5", ("big5", 0xA4, 0xC6))):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if common is None:
            return None  # UTF-8, which is read as such
        letters = [c for c in text if c > "\x7f" and not _PUNCTUATION.match(c)]
        if letters and sum(map(lambda c, how=common: _is_common(c, *how), letters)) >= _COMMON * len(letters):
            found[encoding] = text
    return next(iter(found.values())) if len(found) == 1 else None


def _is_common(character: str, encoding: str, first: int, last: int) -> bool:
    """Whether a character is of the first level of a national standard, which holds nearly all of ordinary text."""
    try:
        return first <= character.encode(encoding)[0] <= last
    except UnicodeEncodeError:
        return False
