"""Releases as clips: words, sounds and pictures of single utterances, read as they are asked for.

```python
from fusionzoo.data.clips import read_clips

corpus = read_clips("/data/RAVDESS", {"visual": {"frames": 30}, "audio": {"kind": "mfcc"}})
```

`fusionzoo train --data FOLDER` with `data.media` does the same. Importing this imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionzoo.data.clips.corpus import ClipCorpus as ClipCorpus
    from fusionzoo.data.clips.corpus import read_clips as read_clips
    from fusionzoo.data.clips.loading import ClipSplit as ClipSplit
    from fusionzoo.data.clips.media import KINDS as KINDS
    from fusionzoo.data.clips.media import Medium as Medium

_LAZY = {"ClipCorpus": "corpus", "ClipSplit": "loading", "KINDS": "media", "Medium": "media", "read_clips": "corpus"}

__all__ = ["KINDS", "ClipCorpus", "ClipSplit", "Medium", "read_clips"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
