"""From a raw corpus to features: `fusionzoo extract`, and reading sounds and videos.

```python
from fusionzoo.extraction import extract

done = extract("MELD.Raw", text="roberta-large", audio="facebook/hubert-large-ls960-ft", out="features")
done.path                                   # features/meld.npz, for --data
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionzoo.extraction.media import read_audio as read_audio
    from fusionzoo.extraction.media import read_frames as read_frames
    from fusionzoo.extraction.run import Extraction as Extraction
    from fusionzoo.extraction.run import extract as extract

_LAZY = {"Extraction": "run", "extract": "run", "read_audio": "media", "read_frames": "media"}

__all__ = ["Extraction", "extract", "read_audio", "read_frames"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
