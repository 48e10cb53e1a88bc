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

import os
from pathlib import Path
from typing import Any

from fusionzoo.data.raw.corpus import MEDIA, Problem, RawCorpus, RawUtterance
from fusionzoo.data.readers import ReleaseReader, check_options, known_layouts, options_of, reader_for, readers_of
from fusionzoo.errors import DataError, OptionError, close_matches_hint

__all__ = ["MEDIA", "Problem", "RawCorpus", "RawUtterance", "read_raw", "recognise"]


def recognise(path: str | os.PathLike[str]) -> str | None:
    """The name of the reader that knows the release that a folder (or an .scp list) is, or None."""
    found = reader_for(ReleaseReader, Path(path))
    return found[0] if found else None


def read_raw(path: str | os.PathLike[str], kind: str | None = None, **options: Any) -> RawCorpus:
    """Read a release.

    Parameters
    ----------
    path : its folder, or the one above; an .scp list.
    kind : the name of its reader; None recognises it by its layout.
    options : the reader's own, e.g. `classes=4` (see `fusionzoo.data.raw.iemocap` and its neighbours).

    Raises
    ------
    DataError : there is no such path, no known release in it, or nothing usable.
    OptionError : an unknown kind or option.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such folder. Check the path.")
    name = recognise(path) if kind is None else release_name(kind)
    if name is None:
        raise DataError(
            f"{path}: no known corpus is recognised in it. Known: {known_layouts(ReleaseReader)}. Name the folder that holds "
            f"these."
        )
    reader = readers_of(ReleaseReader)[name]
    check_options(f"the reader of {name}", options, options_of(reader))
    return reader.read(path, **options)


def release_name(kind: str) -> str:
    """The name of the reader that a user means; an `OptionError` where there is none."""
    known = readers_of(ReleaseReader)
    if kind not in known:
        raise OptionError(
            f"there is no corpus {kind!r}{close_matches_hint(str(kind), known) or '.'} Known: {', '.join(known)}."
        )
    return kind
