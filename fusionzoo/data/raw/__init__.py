"""Corpora as their authors release them: folders of recordings, transcripts and labels. No features are made here.

```python
from fusionzoo.data.raw import read_raw

corpus = read_raw("/data/IEMOCAP_full_release", classes=4)     # recognised by its layout
corpus.summary()                                               # counts per class, split, fold; what was skipped
corpus.hold_out("Session1").require("audio", "text")
```

Nothing here imports torch or opens a recording. What a release lacks, and what in it is broken, is skipped, counted
and told (`RawCorpus.problems`); an error is raised only where nothing usable is left.
"""

from __future__ import annotations

import importlib
import inspect as _inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusionzoo.data.raw.corpus import MEDIA, Problem, RawCorpus, RawUtterance
from fusionzoo.errors import DataError, OptionError, close_matches_hint

__all__ = ["EXPECTED", "MEDIA", "READERS", "Problem", "RawCorpus", "RawUtterance", "read_raw", "recognise"]

#: Name of a release -> (module, its reader), in the order in which they are tried.
READERS: dict[str, tuple[str, str]] = {
    "iemocap": ("fusionzoo.data.raw.iemocap", "read_iemocap"),
    "meld": ("fusionzoo.data.raw.meld", "read_meld"),
    "ravdess": ("fusionzoo.data.raw.ravdess", "read_ravdess"),
    "esd": ("fusionzoo.data.raw.esd", "read_esd"),
    "foal-net": ("fusionzoo.data.raw.scp", "read_scp"),
}

#: What a whole release has, so that what is missing can be told.
EXPECTED: dict[str, tuple[str, ...]] = {
    "iemocap": ("text", "audio", "video"),
    "meld": ("text", "audio", "video"),
    "ravdess": ("audio", "video"),
    "esd": ("text", "audio"),
    "foal-net": ("audio", "video"),
}


def recognise(path: str | os.PathLike[str]) -> str | None:
    """The name in `READERS` of the release that a folder (or an .scp list) is, or None."""
    path = Path(path)
    for name, (module, _) in READERS.items():
        if importlib.import_module(module).recognises(path):
            return name
    return None


def read_raw(path: str | os.PathLike[str], kind: str | None = None, **options: Any) -> RawCorpus:
    """Read a release.

    Parameters
    ----------
    path : its folder, or the one above; an .scp list.
    kind : a name of `READERS`; None recognises it by its layout.
    options : the reader's own, e.g. `classes=4` (see `fusionzoo.data.raw.iemocap` and its neighbours).

    Raises
    ------
    DataError : there is no such path, no known release in it, or nothing usable.
    OptionError : an unknown kind or option.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such folder. Check the path.")
    if kind is not None and kind not in READERS:
        raise OptionError(
            f"there is no corpus {kind!r}{close_matches_hint(kind, READERS) or '.'} Known: {', '.join(READERS)}."
        )
    name = kind or recognise(path)
    if name is None:
        raise DataError(
            f"{path}: no known corpus is recognised in it. Known: IEMOCAP (Session1/dialog/EmoEvaluation), MELD "
            f"(train_sent_emo.csv), RAVDESS (Actor_01/01-01-06-01-02-01-01.mp4), ESD (0011/Angry/0011_000351.wav), "
            f"Foal-Net's lists (*.scp). Name the folder that holds these."
        )
    module, function = READERS[name]
    reader: Callable[..., RawCorpus] = getattr(importlib.import_module(module), function)
    known = [p for p in _inspect.signature(reader).parameters if p != "root"]
    for option in options:
        if option not in known:
            raise OptionError(
                f"the reader of {name} has no option {option!r}{close_matches_hint(option, known) or '.'} Options: "
                f"{', '.join(known)}."
            )
    return reader(path, **options)
