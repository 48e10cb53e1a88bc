"""ESD, the emotional speech dataset: ten speakers a language say 350 sentences in five emotions each.

```
0011/0011.txt                              lines of id, words, emotion (tabs, sometimes spaces)
0011/Angry/0011_000351.wav                 or 0011/Angry/{train,evaluation,test}/0011_000351.wav
```

0001 to 0010 speak Mandarin, 0011 to 0020 English. The release's split is by sentence: of an emotion's 350, the first 20
are evaluation (our dev), the next 30 test, the other 300 train; every speaker is in all three.

Source: Zhou et al., Emotional voice conversion: theory, databases and ESD, Speech Communication 137, 2022.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fusionzoo.data.raw._files import Log, check_encoding, files, folders, read_lines
from fusionzoo.data.raw.corpus import RawCorpus, RawUtterance
from fusionzoo.data.readers import ReleaseReader
from fusionzoo.errors import DataError, OptionError, close_matches_hint
from fusionzoo.plugin import plugin

#: Name of a choice of classes -> (class names, the release's folder -> class).
_FIVE = {"angry": "angry", "happy": "happy", "neutral": "neutral", "sad": "sad", "surprise": "surprise"}
CLASSES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "5": (("angry", "happy", "neutral", "sad", "surprise"), _FIVE),
    "4-memocmt": (("angry", "happy", "sad", "neutral"), {k: v for k, v in _FIVE.items() if k != "surprise"}),
}
CLASSES["4"] = CLASSES["4-memocmt"]

_SPEAKER = re.compile(r"^00(0[1-9]|1\d|20)$")
_LINE = re.compile(r"^(\d{4}_\d{6})\s+(.*?)\s+(\S+)$")
_ID = re.compile(r"^(\d{4})_(\d{6})$")
_LAST_MANDARIN = 10  # the others speak English
_SENTENCES = 350  # an emotion
_FOLDERS = {"train": "train", "evaluation": "dev", "test": "test"}


def recognise(root: Path) -> bool:
    """Whether a folder is (or holds, one level down) ESD: a speaker's folder with an emotion's folder in it."""
    return _home(root) is not None


def read_esd(
    root: Path,
    *,
    classes: str | int = 5,
    language: str = "english",
    split: str = "release",
    encoding: str | None = None,
) -> RawCorpus:
    """Read the release.

    Parameters
    ----------
    classes : `5`, or `4` (`"4-memocmt"`: angry, happy, sad, neutral; surprise is left out).
    language : `"english"` (0011 to 0020), `"mandarin"` or `"both"`.
    split : `"release"` (by sentence), `"speakers"` (the last speaker that is there is test, the one before dev) or
        `"random"` (MemoCMT's: 20 % test, 10 % of the rest dev, by utterance; see `RawCorpus.random_split`). Speakers
        are folds, so `RawCorpus.hold_out` makes any other speaker-independent split.
    encoding : of the transcripts, where it is not found out by itself (UTF-8, UTF-16, and GB18030 or Big5 of Mandarin).
    """
    key = _check(classes, language, split)
    check_encoding(encoding)
    home = _home(root)
    if home is None:
        raise DataError(
            f"{root}: is not ESD. Expected speakers' folders 0001 to 0020, each with folders Angry, Happy, Neutral, "
            f"Sad, Surprise of .wav files and a transcript like 0011.txt. Name the folder that holds 0011."
        )
    names, mapping = CLASSES[key]
    log = Log()
    utterances: list[RawUtterance] = []
    left = []
    for folder in folders(home):
        if not _SPEAKER.match(folder.name):
            continue
        speaks = "english" if int(folder.name) > _LAST_MANDARIN else "mandarin"
        if language in (speaks, "both"):
            utterances += _read_speaker(folder, names, mapping, encoding, log)
        else:
            left.append(folder.name)
    if left:
        log.file(home, f"speakers {', '.join(left)} do not speak {language}: not read", "speaker of another language")
    if not utterances:
        raise DataError(
            f"{home}: no {language} utterance of the classes {', '.join(names)}. Expected files like "
            f"0011/Angry/0011_000351.wav (language='mandarin' reads 0001 to 0010)."
        )
    info = {"classes": key, "language": language, "split": split}
    corpus = RawCorpus("esd", home, names, tuple(utterances), tuple(log.problems), info)
    if split == "random":
        return corpus.random_split(test=0.2, dev=0.1, seed=0)
    if split == "speakers":
        if len(corpus.folds) < 3:
            raise OptionError(f"split='speakers' needs three speakers or more; {home} has {', '.join(corpus.folds)}.")
        return corpus.hold_out(corpus.folds[-1], corpus.folds[-2])
    return corpus


def _check(classes: str | int, language: str, split: str) -> str:
    """The name in `CLASSES` of a choice, where it and the other options are known."""
    key = str(classes).lower().replace("_", "-")
    if key not in CLASSES:
        raise OptionError(
            f"classes={classes!r} of ESD{close_matches_hint(key, CLASSES) or '.'} Choices: {', '.join(CLASSES)}."
        )
    if split not in ("release", "speakers", "random"):
        raise OptionError(f"split={split!r} of ESD: expected 'release', 'speakers' or 'random'.")
    if language not in ("english", "mandarin", "both"):
        raise OptionError(f"language={language!r} of ESD: expected 'english', 'mandarin' or 'both'.")
    return key


def _home(root: Path) -> Path | None:
    for folder in (root, *folders(root)):
        for speaker in folders(folder):
            if _SPEAKER.match(speaker.name) and any(e.name.lower() in _FIVE for e in folders(speaker)):
                return folder
    return None


def _read_speaker(
    folder: Path, names: tuple[str, ...], mapping: dict[str, str], encoding: str | None, log: Log
) -> list[RawUtterance]:
    speaker = folder.name
    words, emotions = _transcript(folder / f"{speaker}.txt", encoding, int(speaker) <= _LAST_MANDARIN, log)
    rows: dict[str, RawUtterance] = {}
    for emotion, name, file, split in _sounds(folder, log):
        match = _ID.match(name)
        if match is None or match[1] != speaker:
            log.drop(file, f"expected a name like {speaker}_000001.wav", "malformed name", name)
            continue
        if emotion not in mapping:
            log.drop(file, f"{name} has the emotion {emotion!r}, not a class", f"label {emotion}", name)
            continue
        if name in rows:
            log.drop(file, f"is {name} again, after {rows[name].audio}", "duplicate id", name)
            continue
        said = emotions.get(name)
        if said in _FIVE and said != emotion:
            log.file(file, f"the transcript calls {name} {said}; its folder is believed", "label conflict", name)
        if words and name not in words:
            log.file(folder / f"{speaker}.txt", f"there are no words of {name}", "no transcription", name)
        rows[name] = RawUtterance(
            id=name,
            dialogue_id=name,
            index=0,
            speaker=speaker,
            label=names.index(mapping[emotion]),
            split=split or _release_split(int(match[2])),
            fold=speaker,
            text=words.get(name),
            audio=file,
        )
    # Only what should be here, sentences of the chosen classes, and of which no other problem is known.
    unheard = {name for name in set(words) - set(rows) if emotions[name] in mapping or emotions[name] not in _FIVE}
    for name in sorted(unheard - {p.utterance for p in log.problems}):
        log.drop(folder / f"{name}.wav", f"{name} is in the transcript but has no sound", "no audio file", name)
    return [rows[name] for name in sorted(rows)]


def _sounds(folder: Path, log: Log) -> Iterator[tuple[str, str, Path, str | None]]:
    """Emotion, id, file and split of a speaker's sounds; the split is known where they lie in folders of it."""
    for place in (p for p in folders(folder) if p.name.lower() in _FIVE):
        emotion = place.name.lower()
        found = [(emotion, i, f, None) for i, f in files(place, {".wav"}, log).items()]
        for part in (p for p in folders(place) if p.name.lower() in _FOLDERS):
            found += [(emotion, i, f, _FOLDERS[part.name.lower()]) for i, f in files(part, {".wav"}, log).items()]
        yield from found


def _release_split(number: int) -> str:
    position = (number - 1) % _SENTENCES
    return "dev" if position < 20 else "test" if position < 50 else "train"


def _transcript(path: Path, encoding: str | None, chinese: bool, log: Log) -> tuple[dict[str, str], dict[str, str]]:
    """Id -> words, and id -> emotion in lower case."""
    words: dict[str, str] = {}
    emotions: dict[str, str] = {}
    if not path.is_file():
        log.file(path, "there is no transcript: this speaker has no words", "no transcript")
        return words, emotions
    for row, line in enumerate(read_lines(path, log, encoding=encoding, chinese=chinese), start=1):
        if not line.strip():
            continue
        match = _LINE.match(line.strip())
        if match is None:
            log.file(f"{path}:{row}", f"expected id, words, emotion; got {line.strip()[:60]!r}", "malformed line")
        elif match[1] in words:
            log.file(f"{path}:{row}", f"has {match[1]} again", "duplicate id", match[1])
        else:
            words[match[1]], emotions[match[1]] = match[2].strip(), match[3].lower()
    return words, emotions


class Esd(ReleaseReader):
    """ESD as released: ten speakers per language, 350 sentences in five emotions; see `read_esd` for the options."""

    precedence = 40
    media = ("text", "audio")
    looks_like = "ESD (0011/Angry/0011_000351.wav)"
    recognise = staticmethod(recognise)
    read = staticmethod(read_esd)


fusionzoo_register = plugin(
    Esd,
    name="esd",
    summary="ESD as released: ten speakers per language, 350 sentences in five emotions",
    paper="Zhou et al., Emotional voice conversion: theory, databases and ESD, Speech Communication 137, 2022",
)
