"""From a raw corpus to features: `fusionzoo extract`, and reading sounds and videos.

```python
from fusionzoo.extraction import extract

done = extract("MELD.Raw", text="roberta-large", audio="facebook/hubert-large-ls960-ft", out="features")
done.path                                   # features/meld.npz, for --data
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusionzoo._lazy import attach

if TYPE_CHECKING:
    from fusionzoo.extraction.run import Extraction as Extraction
    from fusionzoo.extraction.run import extract as extract
    from fusionzoo.media import read_audio as read_audio
    from fusionzoo.media import read_frames as read_frames

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Extraction": "fusionzoo.extraction.run",
        "extract": "fusionzoo.extraction.run",
        "read_audio": "fusionzoo.media",
        "read_frames": "fusionzoo.media",
    },
)
