"""IEMOCAP's full release: five sessions, each of two actors in improvised and scripted dialogues.

```
Session1/dialog/EmoEvaluation/Ses01F_impro01.txt       the utterances: time, label, valence/activation/dominance
Session1/dialog/transcriptions/Ses01F_impro01.txt      their words
Session1/dialog/avi/DivX/Ses01F_impro01.avi            the picture of the whole dialogue, both actors side by side
Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav
```

An utterance whose label is not among the chosen classes (`xxx`: the annotators disagreed; `oth`, `fea`, `sur`, `dis`,
and in four-class work `fru`) is left out and counted, as everybody in this field does; `others="keep"` keeps them
unlabelled, as context. Of 10,039 utterances four classes leave 5,531, the field's number. Six leave 7,380; the feature
pickles that most papers use have 7,433, because they call 53 utterances happy that the release does not.

Source: Busso et al., IEMOCAP, Language Resources and Evaluation 42, 2008.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fusionzoo.data.corpus import UNLABELLED
from fusionzoo.data.raw._files import VIDEO, Log, check_encoding, entries, files, folders, read_lines
from fusionzoo.data.raw.corpus import RawCorpus, RawUtterance
from fusionzoo.data.readers import ReleaseReader
from fusionzoo.data.splits import draw_dev
from fusionzoo.errors import DataError, OptionError, close_matches_hint
from fusionzoo.plugin import plugin

#: Name of a choice of classes -> (class names, the release's label -> class). `4` is GCNet's and the field's order,
#: the others are those of the published systems; all three merge excited into happy.
CLASSES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "6": (
        ("happy", "sad", "neutral", "angry", "excited", "frustrated"),
        {"hap": "happy", "sad": "sad", "neu": "neutral", "ang": "angry", "exc": "excited", "fru": "frustrated"},
    ),
}
_MERGED = {"hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral", "ang": "angry"}
CLASSES |= {
    "4": (("happy", "sad", "neutral", "angry"), _MERGED),
    "4-foal-net": (("happy", "neutral", "sad", "angry"), _MERGED),
    "4-memocmt": (("angry", "happy", "sad", "neutral"), _MERGED),
}

_HEADER = re.compile(
    r"^\[\s*([0-9.]+)\s*-\s*([0-9.]+)\s*\]\s+(\S+)\s+(\S+)(?:\s+\[\s*([-0-9.]+)\s*,\s*([-0-9.]+)\s*,\s*([-0-9.]+)\s*\])?"
)
_TURN = re.compile(r"^(Ses\S+)\s*\[\s*([0-9.]+)\s*-\s*([0-9.]+)\s*\]\s*:\s*(.*)$")
_LONGEST_DIALOGUE = 3600.0  # seconds
# Scripted dialogues are called Ses01F_script01_1, improvised ones Ses01F_impro01; utterances add _F000 (who speaks,
# which), with XX in a few turns of overlapping speech.
_NAME = re.compile(r"^(Ses(\d\d)([FM])_\w+?)_([FM])(?:XX)?(\d+)$")


@dataclass(frozen=True)
class _Turn:
    id: str
    dialogue: str
    session: int
    wears_markers: str  # the F or M in the dialogue's name: whose face was marked
    gender: str
    start: float
    end: float
    label: str
    vad: tuple[float, ...] | None
    where: str


def recognise(root: Path) -> bool:
    """Whether a folder is (or holds, one level down) IEMOCAP's full release."""
    return _home(root) is not None


def read_iemocap(
    root: Path,
    *,
    classes: str | int = 6,
    others: str = "drop",
    test_session: int = 5,
    dev: str = "dialogues",
    dev_fraction: float = 0.1,
    seed: int = 0,
    video: bool = True,
    encoding: str | None = None,
) -> RawCorpus:
    """Read the release.

    Parameters
    ----------
    classes : `6` (the field's order), `4`, `"4-foal-net"` (happy, neutral, sad, angry) or `"4-memocmt"` (angry, happy,
        sad, neutral); see `CLASSES`.
    others : what becomes of utterances of other classes: `"drop"`, or `"keep"` (unlabelled, as context).
    test_session : this session is test, the others train and dev. All sessions are folds, see `RawCorpus.hold_out`.
    dev : `"dialogues"` draws `dev_fraction` of the training dialogues with `seed` (the field's standard split has 108
        train and 12 dev dialogues), `"session"` takes the session before the test session (no speaker of train in it),
        `"none"` has no dev.
    video : look for the dialogues' videos.
    encoding : of the transcriptions, where it is not found out by itself.
    """
    names, mapping = _classes(classes)
    check_encoding(encoding)
    if others not in ("drop", "keep"):
        raise OptionError(f"others={others!r}: expected 'drop' or 'keep'.")
    home = _home(root)
    if home is None:
        raise DataError(
            f"{root}: is not IEMOCAP's full release. Expected folders Session1 to Session5, each with "
            f"dialog/EmoEvaluation/*.txt. Name the folder that holds Session1."
        )
    log = Log()
    sessions = {int(p.name[-1]): p for p in folders(home) if re.fullmatch(r"Session[1-5]", p.name)}
    for number in range(1, 6):
        if number not in sessions:
            log.file(home / f"Session{number}", "there is no such folder: the release is not complete", "no session")
    utterances: list[RawUtterance] = []
    seen: dict[str, str] = {}
    for number, folder in sorted(sessions.items()):
        utterances += _read_session(folder, number, names, mapping, others == "keep", video, encoding, seen, log)
    if not utterances:
        raise DataError(
            f"{home}: no utterance of the classes {', '.join(names)} in dialog/EmoEvaluation of "
            f"{', '.join(p.name for p in sessions.values())}. Expected lines like "
            f"'[6.2901 - 8.2357]\\tSes01F_impro01_F000\\tneu\\t[2.5, 2.5, 2.5]'. Unpack the release again."
        )
    info = {"classes": str(classes), "others": others, "test_session": test_session, "dev": dev, "seed": seed}
    corpus = RawCorpus("iemocap", home, names, tuple(utterances), tuple(log.problems), info)
    return _split(corpus, test_session, dev, dev_fraction, seed)


def _home(root: Path) -> Path | None:
    for folder in (root, *folders(root)):
        if any((p / "dialog" / "EmoEvaluation").is_dir() for p in folders(folder) if p.name.startswith("Session")):
            return folder
    return None


def _classes(classes: str | int) -> tuple[tuple[str, ...], Mapping[str, str]]:
    key = str(classes).lower().replace("_", "-")
    if key not in CLASSES:
        raise OptionError(
            f"classes={classes!r} of IEMOCAP{close_matches_hint(key, CLASSES) or '.'} Choices: {', '.join(CLASSES)}."
        )
    return CLASSES[key]


def _split(corpus: RawCorpus, test_session: int, dev: str, fraction: float, seed: int) -> RawCorpus:
    """The corpus with splits; where the test session is not there, all of it is train."""
    test = f"Session{test_session}"
    if test_session not in range(1, 6):
        raise OptionError(f"test_session={test_session!r}: expected 1 to 5.")
    if dev not in ("dialogues", "session", "none"):
        raise OptionError(f"dev={dev!r}: expected 'dialogues', 'session' or 'none'.")
    before = f"Session{(test_session - 2) % 5 + 1}"
    split = {u.dialogue_id: "test" if u.fold == test else "train" for u in corpus.utterances}
    if dev == "session":
        split |= {u.dialogue_id: "dev" for u in corpus.utterances if u.fold == before}
    elif dev == "dialogues":
        split |= dict.fromkeys(draw_dev((d for d, s in split.items() if s == "train"), fraction, seed), "dev")
    return corpus.with_split(split)


def _read_session(
    folder: Path,
    number: int,
    names: tuple[str, ...],
    mapping: Mapping[str, str],
    keep: bool,
    video: bool,
    encoding: str | None,
    seen: dict[str, str],
    log: Log,
) -> list[RawUtterance]:
    recordings = _Recordings(folder, video, encoding, log)
    evaluations = [
        e for e in entries(folder / "dialog" / "EmoEvaluation", log) if e.is_file() and e.name.endswith(".txt")
    ]
    out: list[RawUtterance] = []
    for entry in evaluations:
        turns = _evaluation(Path(entry.path), number, seen, log)
        wavs: dict[str, dict[str, Path]] = {}
        index: dict[str, int] = {}
        for turn in sorted(turns, key=lambda t: (t.dialogue, t.start, t.end, t.id)):
            position = index[turn.dialogue] = index.get(turn.dialogue, -1) + 1
            if turn.label not in mapping and not keep:
                log.drop(
                    turn.where, f"{turn.id} has the label {turn.label!r}, not a class", f"label {turn.label}", turn.id
                )
                continue
            audio, picture, text = recordings.sound(turn, wavs), recordings.picture(turn), recordings.words(turn)
            out.append(
                RawUtterance(
                    id=turn.id,
                    dialogue_id=turn.dialogue,
                    index=position,
                    speaker=f"Ses{number:02d}{turn.gender}",
                    label=names.index(mapping[turn.label]) if turn.label in mapping else UNLABELLED,
                    fold=f"Session{number}",
                    text=text,
                    audio=audio,
                    video=picture,
                    start=turn.start if picture else None,
                    end=turn.end if picture else None,
                    crop=_side(turn) if picture else None,
                    gender=turn.gender,
                    extras={"emotion": turn.label} | ({"vad": list(turn.vad)} if turn.vad else {}),
                )
            )
    return out


class _Recordings:
    """Sound, picture and words of one session's turns; what is missing is reported."""

    def __init__(self, folder: Path, video: bool, encoding: str | None, log: Log):
        self.folder, self.dialog, self.log = folder, folder / "dialog", log
        self.texts = _transcriptions(self.dialog / "transcriptions", encoding, log)
        self.videos: dict[str, Path] = {}
        if video:
            # The release has them in dialog/avi/DivX; copies are often flat.
            for place in (self.dialog / "avi" / "DivX", self.dialog / "avi"):
                self.videos = files(place, VIDEO, log) | self.videos
            if not self.videos:
                log.file(self.dialog / "avi", "holds no video: this session has no picture", "no video folder")

    def sound(self, turn: _Turn, listed: dict[str, dict[str, Path]]) -> Path | None:
        """A turn's wav. `listed` keeps a dialogue's folder, so that it is listed once."""
        place = self.folder / "sentences" / "wav" / turn.dialogue
        if turn.dialogue not in listed:
            listed[turn.dialogue] = files(place, {".wav"}, self.log)
        found = listed[turn.dialogue].get(turn.id.lower())
        if found is None:
            self.log.file(place / f"{turn.id}.wav", f"there is no usable sound of {turn.id}", "no audio file", turn.id)
        return found

    def picture(self, turn: _Turn) -> Path | None:
        found = self.videos.get(turn.dialogue.lower())
        if self.videos and found is None:
            place = self.dialog / "avi" / f"{turn.dialogue}.avi"
            self.log.file(place, f"no picture of {turn.id}", "no video file", turn.id)
        return found

    def words(self, turn: _Turn) -> str | None:
        found = self.texts.get(turn.id)
        if found is None:
            place = self.dialog / "transcriptions" / f"{turn.dialogue}.txt"
            self.log.file(place, f"there are no words of {turn.id}", "no transcription", turn.id)
        return found


def _side(turn: _Turn) -> tuple[float, float, float, float]:
    """The half of the picture with the speaker: the actor with the markers, who names the dialogue, sits left."""
    left = turn.gender == turn.wears_markers
    return (0.0, 0.0, 0.5, 1.0) if left else (0.5, 0.0, 1.0, 1.0)


def _evaluation(path: Path, session: int, seen: dict[str, str], log: Log) -> list[_Turn]:
    turns: list[_Turn] = []
    for row, line in enumerate(read_lines(path, log), start=1):
        if not line.startswith("["):
            continue  # blank lines, and single annotators' opinions
        where = f"{path}:{row}"
        match = _HEADER.match(line)
        if match is None:
            if not line.startswith(
                "[START_TIME"
            ):  # the legend that every file of the release begins with ("% [START...")
                log.drop(where, f"is no utterance: {line[:60]!r}", "malformed line")
            continue
        start, end, name, label, *vad = match.groups()
        parts = _NAME.match(name)
        if parts is None or int(parts[2]) != session:
            log.drop(
                where, f"names the utterance {name[:60]!r}, which is none of session {session}", "malformed line", name
            )
            continue
        if name in seen:
            log.drop(where, f"has {name} again, after {seen[name]}", "duplicate id", name)
            continue
        try:
            times = float(start), float(end)
            scores = tuple(float(v) for v in vad) if all(vad) else None
            scores = scores if scores is None or all(map(math.isfinite, scores)) else None
        except ValueError:
            log.drop(where, f"has a number that is none: {line[:60]!r}", "malformed line", name)
            continue
        if not times[0] < times[1] < _LONGEST_DIALOGUE:
            what = (
                f"{name} lasts from {times[0]:g} s to {times[1]:g} s, expected a start before its end, within an hour"
            )
            log.drop(where, what, "malformed line", name)
            continue
        seen[name] = where
        turns.append(
            _Turn(name, parts[1], session, parts[3], parts[4], *times, label=label.lower(), vad=scores, where=where)
        )
    if not turns:
        log.file(path, "holds no utterance", "empty evaluation")
    return turns


def _transcriptions(folder: Path, encoding: str | None, log: Log) -> dict[str, str]:
    """Utterance id -> words, of a whole session. Turns without an id (backchannels) are none of the corpus's."""
    words: dict[str, str] = {}
    if not folder.is_dir():
        log.file(folder, "there is no such folder: this session has no words", "no transcriptions folder")
    for entry in entries(folder, log):
        if not entry.name.endswith(".txt"):
            continue
        for line in read_lines(Path(entry.path), log, encoding=encoding):
            match = _TURN.match(line.strip())
            if match:
                words.setdefault(match[1], match[4].strip())
    return words


class Iemocap(ReleaseReader):
    """IEMOCAP as released: five sessions of two actors, improvised and scripted; see `read_iemocap` for the options."""

    precedence = 10
    media = ("text", "audio", "video")
    looks_like = "IEMOCAP (Session1/dialog/EmoEvaluation)"
    recognise = staticmethod(recognise)
    read = staticmethod(read_iemocap)


fusionzoo_register = plugin(
    Iemocap,
    name="iemocap",
    summary="IEMOCAP as released: five sessions of two actors, improvised and scripted",
    paper="Busso et al., IEMOCAP, Language Resources and Evaluation 42, 2008",
)
