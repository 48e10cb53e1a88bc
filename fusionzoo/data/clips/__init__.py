"""Releases as clips: words, sounds and pictures of single utterances, read as they are asked for.

```python
from fusionzoo.data.clips import read_clips

corpus = read_clips("/data/RAVDESS", {"visual": {"frames": 30}, "audio": {"kind": "mfcc"}})
```

`fusionzoo train --data FOLDER` with `data.media` does the same. Importing this imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusionzoo._lazy import attach

if TYPE_CHECKING:
    from fusionzoo.data.clips.corpus import ClipCorpus as ClipCorpus
    from fusionzoo.data.clips.corpus import read_clips as read_clips
    from fusionzoo.data.clips.loading import ClipSplit as ClipSplit
    from fusionzoo.data.clips.media import KINDS as KINDS
    from fusionzoo.data.clips.media import Medium as Medium

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "ClipCorpus": "fusionzoo.data.clips.corpus",
        "ClipSplit": "fusionzoo.data.clips.loading",
        "KINDS": "fusionzoo.data.clips.media",
        "Medium": "fusionzoo.data.clips.media",
        "read_clips": "fusionzoo.data.clips.corpus",
    },
)
