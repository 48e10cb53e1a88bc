"""Foal-Net's lists: lines of `id wavpath label`, one list a part of IEMOCAP.

```
session5_train.scp      Ses01F_impro01_F000 /data/.../Ses01F_impro01_F000.wav neu
session5_valid.scp
clip-large/session01/Ses01F_impro01_F000.npy        ready frame features of the picture, (frames, 768), elsewhere
```

Labels are hap (excited merged into it before), neu, sad, ang. Foal-Net holds one session out as `valid` and chooses the
best epoch on it too; here `valid` without a `test` list is the test, and dev is drawn from train.

Source: ASolitaryMan/Foal-Net at 781849fdf6 (Li et al., Interspeech 2024).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from fusionzoo.data.raw._files import Log, entries, folders, read_lines, why_unusable
from fusionzoo.data.raw.corpus import RawCorpus, RawUtterance
from fusionzoo.data.readers import ReleaseReader
from fusionzoo.data.splits import draw_dev
from fusionzoo.errors import DataError, OptionError
from fusionzoo.plugin import plugin

CLASSES = ("happy", "neutral", "sad", "angry")
_LABELS = {"hap": 0, "exc": 0, "happy": 0, "neu": 1, "neutral": 1, "sad": 2, "ang": 3, "angry": 3}
_IEMOCAP = re.compile(r"^((Ses\d(\d)[FM])_\w+?)_([FM])(?:XX)?\d+$")
_PARTS = {"train": "train", "valid": "dev", "val": "dev", "dev": "dev", "test": "test"}


def recognise(root: Path) -> bool:
    """Whether this is an .scp list, or a folder with some."""
    if root.is_file():
        return root.suffix.lower() == ".scp"
    return any(e.name.lower().endswith(".scp") for e in entries(root))


def read_scp(
    root: Path,
    *,
    session: int | None = None,
    audio_root: Path | str | None = None,
    video: Path | str | None = None,
    dev_fraction: float = 0.1,
    seed: int = 0,
) -> RawCorpus:
    """Read one list, or the lists of one fold in a folder.

    Parameters
    ----------
    session : which fold, where a folder has `session1_train.scp` to `session5_valid.scp`; None takes the highest.
    audio_root : where the wavs are on this machine, if not where the list says: IEMOCAP's full release (the folder of
        Session1), or a flat folder of wavs.
    video : the folder of ready `.npy` features, `session01/<id>.npy` or flat. They are `features["video"]`.
    dev_fraction, seed : without a dev list, this share of the train dialogues becomes dev.
    """
    if not recognise(root):
        raise DataError(
            f"{root}: expected an .scp list of 'id wavpath label' lines, or a folder with train.scp and others."
        )
    lists, fold = _lists(root, session)
    for option, folder in (("audio_root", audio_root), ("video", video)):
        if folder is not None and not Path(folder).is_dir():
            raise DataError(f"{option}={folder}: there is no such folder.")
    log = Log()
    sounds = _Sounds(root, audio_root)
    pictures = _pictures(video, root)
    seen: dict[str, str] = {}
    rows: list[RawUtterance] = []
    for path, split in lists:
        rows += _read_list(path, split, sounds, pictures, seen, log)
    if not rows:
        raise DataError(
            f"{root}: no usable line in {', '.join(p.name for p, _ in lists)}. Expected lines like "
            f"'Ses03F_impro01_F002 /data/Ses03F_impro01_F002.wav neu'."
        )
    info = {"lists": {str(p): s for p, s in lists}, "session": fold, "sounds_found_in": sounds.where()}
    corpus = RawCorpus("foal-net", root, CLASSES, _in_dialogues(rows), tuple(log.problems), info)
    split = {u.dialogue_id: u.split or "train" for u in corpus.utterances}
    if "dev" not in split.values():
        drawn = draw_dev((d for d, s in split.items() if s == "train"), dev_fraction, seed)
        split |= dict.fromkeys(drawn, "dev")
    return corpus.with_split(split)


def _lists(root: Path, session: int | None) -> tuple[list[tuple[Path, str]], int | None]:
    """The lists to read with their splits, and the fold they belong to."""
    if root.is_file():
        return [(root, _part(root) or "train")], None
    found, fold = _of_session(root, session)
    parts = {p: _part(p) for p in found}
    unknown = [p.name for p, part in parts.items() if part is None]
    if unknown and len(found) > 1:
        raise DataError(
            f"{root}: it is not clear what {', '.join(unknown)} is for. Expected names with train, valid or test in "
            f"them."
        )
    # Foal-Net has no test list: what it calls valid is held out, and is the only thing it reports on.
    if "test" not in parts.values():
        parts = {p: "test" if part == "dev" else part for p, part in parts.items()}
    return [(p, part or "train") for p, part in parts.items()], fold


def _of_session(root: Path, session: int | None) -> tuple[list[Path], int | None]:
    """The lists of a folder that belong to a session, and which; all of them where their names have no number."""
    found = [Path(e.path) for e in entries(root) if e.name.lower().endswith(".scp")]
    numbered = {p: int(m[1]) for p in found if (m := re.search(r"session0?(\d)", p.stem.lower()))}
    if not numbered and session is None:
        return found, None
    if not numbered:
        raise OptionError(
            f"session={session}: the lists in {root} are not called session{session}_train.scp and so on."
        )
    available = sorted(set(numbered.values()))
    fold = available[-1] if session is None else session
    if fold not in available:
        raise OptionError(f"session={session}: {root} has lists of sessions {', '.join(map(str, available))}.")
    return [p for p in found if numbered.get(p) == fold], fold


def _part(path: Path) -> str | None:
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((_PARTS[w] for w in words if w in _PARTS), None)


class _Sounds:
    """Finds a wav that a list made on another machine names."""

    def __init__(self, root: Path, audio_root: Path | str | None):
        self.beside = root if root.is_dir() else root.parent
        self.root = Path(audio_root) if audio_root is not None else None
        self.used: dict[str, int] = {}

    def find(self, written: str) -> Path | None:
        # Lists are also made on Windows; its separators would be part of the name elsewhere.
        parts = (PureWindowsPath(written) if "\\" in written else PurePosixPath(written)).parts
        places = [("the list's path", Path(written)), ("beside the list", self.beside / written)]
        if self.root is not None:
            tail = next((i for i, part in enumerate(parts) if re.fullmatch(r"Session\d", part)), None)
            places = [("audio_root", self.root / parts[-1]), *places]
            if tail is not None:
                places = [("audio_root", self.root.joinpath(*parts[tail:])), *places]
        for where, path in places:
            if why_unusable(path) is None:
                self.used[where] = self.used.get(where, 0) + 1
                return path
        return None

    def where(self) -> dict[str, int]:
        return dict(self.used)


def _pictures(video: Path | str | None, root: Path) -> dict[str, Path] | None:
    """Id -> `.npy`, searched in the folder and one below; None where no folder is given and none is beside the list."""
    if video is None:
        beside = root if root.is_dir() else root.parent
        for name in ("video", "visual", "clip-large"):
            if (beside / name).is_dir():
                video = beside / name
                break
        else:
            return None
    folder = Path(video)
    found: dict[str, Path] = {}
    for place in (folder, *folders(folder)):
        for entry in entries(place):
            if entry.name.endswith(".npy"):
                found.setdefault(entry.name[: -len(".npy")], Path(entry.path))
    return found


def _read_list(
    path: Path,
    split: str,
    sounds: _Sounds,
    pictures: dict[str, Path] | None,
    seen: dict[str, str],
    log: Log,
) -> list[RawUtterance]:
    rows = []
    for number, line in enumerate(read_lines(path, log), start=1):
        where = f"{path}:{number}"
        cells = line.split()
        if not cells:
            continue
        if len(cells) < 3:
            log.drop(where, f"expected 'id wavpath label', got {line.strip()[:60]!r}", "malformed line")
            continue
        # A path may hold spaces; an id and a label never do.
        name, written, label = cells[0], line.strip()[len(cells[0]) :].rsplit(None, 1)[0].strip(), cells[-1].lower()
        if name in seen:
            log.drop(where, f"has {name} again, after {seen[name]}", "duplicate id", name)
            continue
        seen[name] = where
        if label not in _LABELS:
            log.drop(
                where, f"{name} has the label {cells[-1]!r}; expected hap, neu, sad or ang", f"label {label}", name
            )
            continue
        audio = sounds.find(written)
        if audio is None:
            log.file(
                where,
                f"there is no usable sound at {written} (audio_root=... says where they are)",
                "no audio file",
                name,
            )
        features = {}
        if pictures is not None:
            # Foal-Net takes the name from the wav, not from the id.
            picture = pictures.get(PurePosixPath(written.replace("\\", "/")).stem) or pictures.get(name)
            wrong = "there are no video features" if picture is None else why_unusable(picture)
            if wrong or picture is None:
                log.file(
                    picture or where, f"{wrong} of {name}" if picture is None else f"{wrong}", "no video features", name
                )
            else:
                features = {"video": picture}
        parts = _IEMOCAP.match(name)
        rows.append(
            RawUtterance(
                id=name,
                dialogue_id=parts[1] if parts else name,
                index=0,
                speaker=f"Ses{int(parts[3]):02d}{parts[4]}" if parts else "unknown",
                label=_LABELS[label],
                split=split,
                fold=f"Session{parts[3]}" if parts else None,
                audio=audio,
                features=features,
                gender=parts[4] if parts else None,
            )
        )
    return rows


def _in_dialogues(rows: Sequence[RawUtterance]) -> tuple[RawUtterance, ...]:
    """The rows with those of a dialogue together, in the list's order, which is all that a list knows about time.

    A list that tears a dialogue into several splits is about single utterances, and is read as such.
    """
    splits: dict[str, set[str | None]] = {}
    for u in rows:
        splits.setdefault(u.dialogue_id, set()).add(u.split)
    if any(len(s) > 1 for s in splits.values()):
        return tuple(replace(u, dialogue_id=u.id, index=0) for u in rows)
    grouped: dict[str, list[RawUtterance]] = {}
    for u in rows:
        grouped.setdefault(u.dialogue_id, []).append(u)
    return tuple(replace(u, index=i) for group in grouped.values() for i, u in enumerate(group))


class FoalNetLists(ReleaseReader):
    """Foal-Net's lists of IEMOCAP's sounds, with ready frame features; see `read_scp` for the options."""

    precedence = 50
    media = ("audio", "video")
    looks_like = "Foal-Net's lists (*.scp)"
    recognise = staticmethod(recognise)
    read = staticmethod(read_scp)


fusionzoo_register = plugin(
    FoalNetLists,
    name="foal-net",
    summary="Foal-Net's lists of IEMOCAP's sounds, with ready frame features",
    paper="Li et al., Foal-Net, Interspeech 2024",
)
