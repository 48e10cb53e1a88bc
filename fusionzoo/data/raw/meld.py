"""MELD: dialogues of the series Friends, as csv files of the words and one clip an utterance.

```
train_sent_emo.csv   dev_sent_emo.csv   test_sent_emo.csv           (here or one or two folders down)
train_splits/dia0_utt0.mp4        (train_splits_complete in some copies)
dev_splits_complete/dia0_utt0.mp4
output_repeated_splits_test/dia0_utt0.mp4
```

The csv files alone are enough for text. Clips may be mp4 (sound and picture) or wav, or both (folders `*_wav`). The
release is known to be flawed: `KNOWN_BAD` clips are not used, which is reported, and their utterances stay with their
words.

Source: Poria et al., MELD, ACL 2019; the flaws: issues 20, 22, 27 and 39 of declare-lab/MELD.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fusionzoo.data.corpus import SPLITS
from fusionzoo.data.raw._files import AUDIO, VIDEO, Log, check_encoding, entries, folders, read_lines, why_unusable
from fusionzoo.data.raw.corpus import RawCorpus, RawUtterance
from fusionzoo.data.readers import ReleaseReader
from fusionzoo.errors import DataError, OptionError, close_matches_hint
from fusionzoo.plugin import plugin

#: Name of a choice of classes -> (class names, the csv's emotion -> class).
_SEVEN = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
_FOUR = {"anger": "angry", "joy": "happy", "sadness": "sad", "neutral": "neutral"}
CLASSES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "7": (_SEVEN, {name: name for name in _SEVEN}),
    "4-memocmt": (("angry", "happy", "sad", "neutral"), _FOUR),
    "sentiment": (("neutral", "positive", "negative"), {}),
}

#: Clips of the release that are broken or show something else than the csv says.
KNOWN_BAD: dict[tuple[str, int, int], str] = {
    ("train", 125, 3): "cannot be decoded",
    ("train", 309, 0): "is cut wrongly: it runs on for minutes",
    ("dev", 110, 7): "is not in the release",
    ("test", 38, 4): "is cut wrongly: it runs on for minutes",
    ("test", 220, 0): "is cut wrongly: it runs on for minutes",
}
_NEEDED = ("Utterance", "Speaker", "Dialogue_ID", "Utterance_ID")  # and the column of the classes
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
#: A longer cell is no name, and no sentence of the series either.
_LONGEST = {"Utterance": 20_000, **dict.fromkeys(("Speaker", "Emotion", "Sentiment", "Season", "Episode"), 200)}
# The test folder holds some clips twice, once with this prefix; the plain name is the one that the csv means.
_CLIP = re.compile(r"^(final_videos_test)?dia(\d+)_utt(\d+)$", re.IGNORECASE)
_TIME = re.compile(r"^([0-9]{1,3}):([0-5][0-9]):([0-5][0-9])[,.]([0-9]{1,6})$")
_NUMBER = re.compile(r"([0-9]{1,9})(?:\.0*)?")  # pandas makes 0.0 of 0 where a column has gaps


@dataclass(frozen=True)
class _Clips:
    """(dialogue, utterance) of one split -> its sound, its picture, and why its clip must not be used."""

    audio: dict[tuple[int, int], Path]
    video: dict[tuple[int, int], Path]
    bad: dict[tuple[int, int], str]


def recognise(root: Path) -> bool:
    """Whether a folder holds at least one of MELD's csv files, at most two folders down."""
    return bool(_find_csv(root))


def read_meld(
    root: Path,
    *,
    classes: str | int = 7,
    media: bool = True,
    known_bad: str = "skip",
    encoding: str | None = None,
) -> RawCorpus:
    """Read the release; the splits are its own.

    classes : `7` (the field's order), `"4-memocmt"` (angry, happy, sad, neutral; the rest is left out), `"sentiment"`.
    media : look for clips; False reads the csv files only.
    known_bad : `"skip"` leaves out the clips of `KNOWN_BAD`; `"use"` is for a copy in which they were mended.
    encoding : of the csv files, where it is not found out by itself.

    The cells may be separated by commas, as in the release, or by semicolons, tabs or bars, as programs write them again.

    A dialogue is called `train_dia0`; an utterance `train_dia0_utt0`, because all three splits count from 0.
    """
    key = str(classes).lower().replace("_", "-")
    if key not in CLASSES:
        raise OptionError(
            f"classes={classes!r} of MELD{close_matches_hint(key, CLASSES) or '.'} Choices: {', '.join(CLASSES)}."
        )
    if known_bad not in ("skip", "use"):
        raise OptionError(f"known_bad={known_bad!r}: expected 'skip' or 'use'.")
    check_encoding(encoding)
    tables = _find_csv(root)
    if not tables:
        raise DataError(
            f"{root}: holds none of MELD's csv files. Expected train_sent_emo.csv, dev_sent_emo.csv and "
            f"test_sent_emo.csv here or in a folder below; they come with MELD.Raw.tar.gz."
        )
    log = Log()
    utterances: list[RawUtterance] = []
    places: dict[str, list[str]] = {}
    for split in SPLITS:
        if split not in tables:
            log.file(root / f"{split}_sent_emo.csv", f"there is no such file: no {split} split", "no csv file")
            continue
        audio, video = _clips(root, split, log) if media else ({}, {})
        places[split] = sorted({str(p.parent) for p in (*audio.values(), *video.values())})
        bad = {(d, u): why for (s, d, u), why in KNOWN_BAD.items() if s == split and known_bad == "skip"}
        utterances += _read_table(tables[split], split, key, _Clips(audio, video, bad), encoding, log)
    if not utterances:
        raise DataError(
            f"{root}: the csv files hold no utterance of the classes {', '.join(CLASSES[key][0])}. {_why(log)}Expected the "
            f"columns {', '.join(_needed(key))}. Correct the files, or fetch MELD's csv files again."
        )
    info = {"classes": key, "csv": {s: str(p) for s, p in tables.items()}, "clips": places}
    return RawCorpus("meld", root, CLASSES[key][0], tuple(utterances), tuple(log.problems), info)


def _places(root: Path) -> list[Path]:
    """The folder, those in it, and those in these; not the clip folders, which hold thousands of files."""
    first = folders(root)
    return [root, *first, *(p for f in first for p in folders(f))]


def _find_csv(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    if not root.is_dir():
        return found
    for folder in _places(root):
        for split in SPLITS:
            path = folder / f"{split}_sent_emo.csv"
            if split not in found and path.is_file():
                found[split] = path
    return found


def _clips(root: Path, split: str, log: Log) -> tuple[dict[tuple[int, int], Path], dict[tuple[int, int], Path]]:
    """(dialogue, utterance) -> sound, and the same -> picture."""
    audio: dict[tuple[int, int], Path] = {}
    video: dict[tuple[int, int], Path] = {}
    second: dict[tuple[int, int], Path] = {}
    for folder in _places(root):
        name = folder.name.lower()
        if split not in re.split(r"[^a-z]+", name) or not ("split" in name or name == split):
            continue
        for entry in entries(folder, log):
            path = Path(entry.path)
            match = _CLIP.match(path.stem)
            if match is None or path.suffix.lower() not in AUDIO | VIDEO:
                continue
            if wrong := why_unusable(path):
                log.file(path, wrong, "unusable file")
                continue
            place = (int(match[2]), int(match[3]))
            if path.suffix.lower() in AUDIO:
                audio.setdefault(place, path)
            elif match[1]:
                second.setdefault(place, path)
            else:
                video.setdefault(place, path)
    for place, path in second.items():
        if place in video:
            log.file(path, "is a second clip of an utterance; the one without the prefix is used", "second clip")
        else:
            video[place] = path
    return audio, video


def _read_table(
    path: Path,
    split: str,
    classes: str,
    clips: _Clips,
    encoding: str | None,
    log: Log,
) -> list[RawUtterance]:
    names, mapping = CLASSES[classes]
    rows: dict[tuple[int, int], RawUtterance] = {}
    listed: set[tuple[int, int]] = set()
    records = _records(path, encoding, log)
    header = [column.strip() for column in next(records, (0, []))[1] or ()]
    if not _check_header(path, header, _needed(classes), log):
        return []
    for line, cells in records:
        where = f"{path}:{line}"
        row = _row(header, cells)
        if isinstance(row, str):
            log.drop(where, row, "malformed row")
            continue
        place = (_whole(row["Dialogue_ID"]), _whole(row["Utterance_ID"]))
        name = f"{split}_dia{place[0]}_utt{place[1]}"
        given = row.get("Sentiment" if classes == "sentiment" else "Emotion", "").lower()
        label = given if classes == "sentiment" else mapping.get(given)
        if place in listed:
            log.drop(where, f"has {name} again", "duplicate id", name)
            continue
        listed.add(place)
        if label not in names:
            log.drop(where, f"{name} has the label {given!r}, not a class", f"label {given or '(none)'}", name)
            continue
        sound, picture = _media(place, clips, name, where, log)
        rows[place] = RawUtterance(
            id=name,
            dialogue_id=f"{split}_dia{place[0]}",
            index=place[1],
            speaker=row["Speaker"] or "unknown",
            label=names.index(label),
            split=split,
            text=row["Utterance"] or None,
            audio=sound,
            video=picture,
            extras=_extras(row),
        )
    for place in sorted((set(clips.audio) | set(clips.video)) - listed):
        clip = clips.video.get(place) or clips.audio[place]
        log.file(clip, "no row of the csv is about this clip", "clip without a row")
    return [rows[place] for place in sorted(rows)]


def _row(header: list[str], cells: list[str] | None) -> dict[str, str] | str:
    """Column -> cell, or what is wrong with the row."""
    if cells is None:
        return "is no row that the csv format knows (a cell without end, or of 100,000 characters)"
    if len(cells) != len(header):
        return f"has {len(cells)} cells, expected {len(header)}: {','.join(cells)[:60]!r}"
    row = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
    if long := [c for c, most in _LONGEST.items() if len(row.get(c, "")) > most]:
        return f"has {len(row[long[0]]):,} characters in the column {long[0]}"
    if not all(_NUMBER.fullmatch(row[c]) for c in ("Dialogue_ID", "Utterance_ID")):
        got = f"{row['Dialogue_ID'][:40]!r}, {row['Utterance_ID'][:40]!r}"
        return f"Dialogue_ID and Utterance_ID are {got}, expected numbers"
    return row


def _whole(cell: str) -> int:
    return int(cell.partition(".")[0])


def _extras(row: dict[str, str]) -> dict[str, object]:
    """What a row says beyond its class."""
    extras: dict[str, object] = {c.lower(): row[c].lower() for c in ("Emotion", "Sentiment") if c in row}
    if row.get("Season") and row.get("Episode"):
        extras["episode"] = f"S{row['Season']}E{row['Episode']}"
    # Times are of the episode, which nobody has; they are facts about the utterance, not a place in the clip.
    start, end = _seconds(row.get("StartTime", "")), _seconds(row.get("EndTime", ""))
    if start is not None and end is not None and end > start:
        extras["seconds"] = round(end - start, 3)
    return extras


def _needed(classes: str) -> tuple[str, ...]:
    return (*_NEEDED, "Sentiment" if classes == "sentiment" else "Emotion")


def _check_header(path: Path, header: list[str], needed: tuple[str, ...], log: Log) -> bool:
    if missing := [c for c in needed if c not in header]:
        has = ", ".join(header)[:200]
        log.file(path, f"lacks the column(s) {', '.join(missing)}; it has {has or 'none'}", "malformed csv")
    elif twice := [c for c in needed if header.count(c) > 1]:
        log.file(path, f"has the column {twice[0]} {header.count(twice[0])} times", "malformed csv")
    else:
        return True
    return False


def _why(log: Log) -> str:
    """What was wrong with the tables, for the message that nothing is left of them."""
    wrong = [p for p in log.problems if p.reason in ("malformed csv", "unknown encoding", "malformed row")]
    return "".join(f"{p}. " for p in wrong[:3])


def _records(path: Path, encoding: str | None, log: Log) -> Iterator[tuple[int, list[str] | None]]:
    """(line number, cells) of the header and of every row that is not blank; None for a row that cannot be read.

    A record is read line by line: an unclosed quote costs its own row and not all that follow, as it would in `csv`.
    """
    lines = read_lines(path, log, encoding=encoding)
    separator = _separator(next((line for line in lines if line.strip()), ""))
    if separator != ",":
        log.file(path, f"is separated by {_SEPARATORS[separator]}, not by commas, and read so", "another separator")
    width = None
    at = 0
    while at < len(lines):
        start, record = at, lines[at]
        at += 1
        cells = _cells(record, separator)
        # An odd number of quotes: a cell with a line break in it, if a few more lines make a row of the right width.
        if record.count('"') % 2:
            for more in range(1, 6):
                joined = "\n".join(lines[start : start + 1 + more])
                if joined.count('"') % 2 == 0:
                    whole = _cells(joined, separator)
                    if whole is not None and len(whole) == width:
                        cells, at = whole, start + 1 + more
                    break
        if cells is None or any(cell.strip() for cell in cells):
            width = len(cells) if width is None and cells is not None else width
            yield start + 1, cells


def _separator(header: str) -> str:
    """What separates the names that a table of MELD must have; a comma where that is not clear."""

    def known(separator: str) -> int:
        return len({c.strip() for c in _cells(header, separator) or ()} & {*_NEEDED, "Emotion", "Sentiment"})

    return max(_SEPARATORS, key=known)  # the first, a comma, of several that find as many


def _cells(record: str, separator: str) -> list[str] | None:
    try:
        return next(csv.reader(io.StringIO(record, newline=""), delimiter=separator), [])
    except csv.Error:  # a cell beyond the format's limit
        return None


def _media(place: tuple[int, int], clips: _Clips, name: str, where: str, log: Log) -> tuple[Path | None, Path | None]:
    """The sound and the picture of an utterance; an mp4 is both."""
    if not clips.audio and not clips.video:
        return None, None  # only the words were fetched: nothing to report row by row
    picture = clips.video.get(place)
    sound = clips.audio.get(place) or picture
    if why := clips.bad.get(place):
        log.file(
            sound or where, f"the clip of {name} {why} (a known flaw of the release): not used", "known bad clip", name
        )
        return None, None
    if sound is None:
        log.file(where, f"there is no usable clip of {name}", "no clip", name)
    elif clips.video and picture is None:
        log.file(where, f"there is no usable picture of {name}", "no video file", name)
    return sound, picture


def _seconds(time: str) -> float | None:
    match = _TIME.match(time)
    if match is None:
        return None
    hours, minutes, seconds, fraction = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")


class Meld(ReleaseReader):
    """MELD as released: csv files of the words, one clip per utterance; see `read_meld` for the options."""

    precedence = 20
    media = ("text", "audio", "video")
    looks_like = "MELD (train_sent_emo.csv)"
    recognise = staticmethod(recognise)
    read = staticmethod(read_meld)


fusionzoo_register = plugin(
    Meld,
    name="meld",
    summary="MELD as released: csv files of the words, one clip per utterance",
    paper="Poria et al., MELD, ACL 2019",
)
