"""RAVDESS: 24 actors say two sentences in eight emotions; everything about a clip is in its name.

```
Actor_01/01-01-06-01-02-01-01.mp4       here, or one folder down (Video_Speech_Actor_01/Actor_01/...)
landmarks/01-01-06-01-02-01-01.csv      facial landmarks per frame, optional (FacialTracking_Actors_01-24)
```

Fields: modality (01 picture and sound, 02 picture, 03 sound), channel (01 speech, 02 song), emotion, intensity (01
normal, 02 strong), statement, repetition, actor (odd: male, even: female).

Source: Livingstone and Russo, RAVDESS, PLoS ONE 13(5), 2018; landmarks: zenodo record 3255102.
"""

from __future__ import annotations

import re
from pathlib import Path

from fusionzoo.data.raw._files import AUDIO, VIDEO, Log, entries, files, folders, why_unusable
from fusionzoo.data.raw.corpus import RawCorpus, RawUtterance
from fusionzoo.data.readers import ReleaseReader
from fusionzoo.errors import DataError, OptionError
from fusionzoo.plugin import plugin

CLASSES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = {1: "Kids are talking by the door.", 2: "Dogs are sitting by the door."}
_ACTOR = re.compile(r"^Actor_(\d\d)$", re.IGNORECASE)
_NAME = re.compile(r"^" + "-".join([r"(\d\d)"] * 7) + r"$")
_FIELDS = ("modality", "channel", "emotion", "intensity", "statement", "repetition", "actor")
_LIMITS = (3, 2, 8, 2, 2, 2, 24)


def recognise(root: Path) -> bool:
    """Whether a folder holds Actor_NN folders with clips named after RAVDESS's fields."""
    for folder in _actors(root):
        for entry in entries(folder):
            if _NAME.match(Path(entry.name).stem):
                return True
    return False


def read_ravdess(
    root: Path,
    *,
    channel: str = "speech",
    k_fold: int = 5,
    fold: int = 0,
    published: bool = False,
    landmarks: Path | str | None = None,
    seed: int = 0,
) -> RawCorpus:
    """Read the clips.

    Parameters
    ----------
    channel : `"speech"`, `"song"` or `"both"`.
    k_fold, fold, published : the actors of this group (from 0) of `RawCorpus.group_folds(k_fold, published=...)` are
        test; dev is one or more of the other actors (about a tenth, drawn with `seed`). Actors are folds. With fewer
        than three actors all are train.
    landmarks : the folder of landmark csv files; None looks for one called like the release's.

    Clips with picture only (modality 02) have no words to hear and are left out, as in MSAF and CFN-SR; a clip with
    sound only (03) is used where the same performance has no clip with both.
    """
    if channel not in ("speech", "song", "both"):
        raise OptionError(f"channel={channel!r} of RAVDESS: expected 'speech', 'song' or 'both'.")
    log = Log()
    best: dict[tuple[int, ...], tuple[int, Path]] = {}
    actors = _actors(root)
    for folder in actors:
        for entry in entries(folder, log):
            _look(Path(entry.path), channel, best, log)
    if not best:
        raise DataError(
            f"{root}: holds no usable clip of RAVDESS's {channel}. Expected Actor_01/01-01-06-01-02-01-01.mp4 (or "
            f".wav) here or one folder down. Name the folder that holds Actor_01."
        )
    points = _landmarks(root, landmarks, log)
    utterances = []
    for fields, (modality, path) in sorted(best.items(), key=lambda item: (item[0][-1], item[0])):
        utterances.append(_utterance(fields, modality, path, points, log))
    info = {"channel": channel, "k_fold": k_fold, "fold": fold, "published": published}
    corpus = RawCorpus("ravdess", root, CLASSES, tuple(utterances), tuple(log.problems), info)
    if len(corpus.folds) < 3:
        return corpus.with_split({u.dialogue_id: "train" for u in utterances})
    groups = corpus.group_folds(min(k_fold, len(corpus.folds)), published=published)
    if not 0 <= fold < len(groups):
        raise OptionError(f"fold={fold} of RAVDESS: expected 0 to {len(groups) - 1} for k_fold={k_fold}.")
    return corpus.hold_out(groups[fold], seed=seed)


def _actors(root: Path) -> list[Path]:
    """All Actor_NN folders here and one level down: sound and picture come in archives of their own."""
    if _ACTOR.match(root.name) and root.is_dir():
        return [root]
    near = folders(root)
    return [p for p in (*near, *(q for f in near for q in folders(f))) if _ACTOR.match(p.name)]


def _look(path: Path, channel: str, best: dict[tuple[int, ...], tuple[int, Path]], log: Log) -> None:
    """Put a file into `best` (performance -> its best file so far), or say why not."""
    if path.is_dir() or path.suffix.lower() not in AUDIO | VIDEO:
        return
    match = _NAME.match(path.stem)
    fields = tuple(map(int, match.groups())) if match else ()
    wrong = [f"{n} {v:02d}" for n, v, most in zip(_FIELDS, fields, _LIMITS, strict=False) if not 1 <= v <= most]
    if not fields or wrong:
        what = (
            f"{', '.join(wrong)} does not exist"
            if wrong
            else "expected seven numbers of two digits, like 01-01-06-01-02-01-12"
        )
        log.drop(path, f"its name is not RAVDESS's: {what}", "malformed name")
        return
    folder = _ACTOR.match(path.parent.name)
    if folder and int(folder[1]) != fields[-1]:
        log.drop(
            path, f"is of actor {fields[-1]:02d} but lies in {path.parent.name}", "actor in a wrong folder", path.stem
        )
        return
    modality, rest = fields[0], fields[1:]
    if channel != "both" and rest[0] != (1 if channel == "speech" else 2):
        log.drop(path, f"is {'song' if rest[0] == 2 else 'speech'}, and {channel} is read", "other channel", path.stem)
        return
    if modality == 2:
        log.drop(path, "has no sound (modality 02)", "video only", path.stem)
        return
    if why := why_unusable(path):
        log.drop(path, why, "unusable file", path.stem)
        return
    # A sound file cannot show a face, whatever its name says.
    modality = 3 if path.suffix.lower() in AUDIO else modality
    if rest in best:
        keep, spare = sorted([best[rest], (modality, path)])
        best[rest] = keep
        log.file(spare[1], f"is the performance of {keep[1].name} again, which is used", "second copy", spare[1].stem)
    else:
        best[rest] = (modality, path)


def _utterance(
    fields: tuple[int, ...], modality: int, path: Path, points: dict[str, Path] | None, log: Log
) -> RawUtterance:
    channel, emotion, intensity, statement, repetition, actor = fields
    name = "-".join(f"{n:02d}" for n in (modality, *fields))
    video = path if modality == 1 else None
    marks = None
    if points is not None and video is not None:
        # The landmarks were tracked in the clips with sound; some copies name them after the silent ones.
        marks = points.get(name) or points.get("02" + name[2:])
        if marks is None:
            log.file(path, f"there are no landmarks of {name}", "no landmarks", name)
    return RawUtterance(
        id=name,
        dialogue_id=name,
        index=0,
        speaker=f"Actor_{actor:02d}",
        label=emotion - 1,
        fold=f"Actor_{actor:02d}",
        text=STATEMENTS[statement],
        audio=path,
        video=video,
        landmarks=marks,
        gender="M" if actor % 2 else "F",
        extras={
            "channel": "speech" if channel == 1 else "song",
            "intensity": intensity,
            "statement": statement,
            "repetition": repetition,
        },
    )


def _landmarks(root: Path, given: Path | str | None, log: Log) -> dict[str, Path] | None:
    """Clip name -> landmark csv; None where there is no folder of them."""
    if given is not None:
        folder = Path(given)
        if not folder.is_dir():
            raise DataError(f"landmarks={folder}: there is no such folder. Expected csv files named after the clips.")
        return files(folder, {".csv"}, log)
    for folder in folders(root):
        if folder.name.lower() == "landmarks" or folder.name.lower().startswith("facialtracking"):
            found = files(folder, {".csv"}, log)
            for inner in folders(folder):
                found |= files(inner, {".csv"}, log)
            return found
    return None


class Ravdess(ReleaseReader):
    """RAVDESS as released: 24 actors, two sentences, eight emotions; see `read_ravdess` for the options."""

    precedence = 30
    media = ("audio", "video")
    looks_like = "RAVDESS (Actor_01/01-01-06-01-02-01-01.mp4)"
    recognise = staticmethod(recognise)
    read = staticmethod(read_ravdess)


fusionzoo_register = plugin(
    Ravdess,
    name="ravdess",
    summary="RAVDESS as released: 24 actors, two sentences, eight emotions",
    paper="Livingstone and Russo, RAVDESS, PLoS ONE 13(5), 2018",
)
