"""Encoders for the training graph, frozen or fine-tuned: words, sounds and pictures to states and their mask.

```python
from fusionzoo.encoders import AudioEncoder, TextEncoder

text = TextEncoder("roberta-large", trainable=True)          # or a local folder
audio = AudioEncoder("facebook/hubert-base-ls960")           # frozen
states, mask = text(**text.tokenize(["I know.", "You know?"]))    # (2, T, 1024), (2, T)
```

The transformers models need the extra `encoders`; `ResNeXt3D`, `MFCCNet` and `VisExtNet` need nothing but torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionzoo.encoders.audio import AudioEncoder as AudioEncoder
    from fusionzoo.encoders.mfccnet import MFCCNet as MFCCNet
    from fusionzoo.encoders.mfccnet import mfcc as mfcc
    from fusionzoo.encoders.outputs import Encoded as Encoded
    from fusionzoo.encoders.outputs import pool as pool
    from fusionzoo.encoders.resnext3d import ResNeXt3D as ResNeXt3D
    from fusionzoo.encoders.text import TextEncoder as TextEncoder
    from fusionzoo.encoders.video import VideoEncoder as VideoEncoder
    from fusionzoo.encoders.visextnet import VisExtNet as VisExtNet

_LAZY = {
    "AudioEncoder": "audio",
    "Encoded": "outputs",
    "MFCCNet": "mfccnet",
    "ResNeXt3D": "resnext3d",
    "TextEncoder": "text",
    "VideoEncoder": "video",
    "VisExtNet": "visextnet",
    "mfcc": "mfccnet",
    "pool": "outputs",
}

__all__ = [
    "AudioEncoder",
    "Encoded",
    "MFCCNet",
    "ResNeXt3D",
    "TextEncoder",
    "VideoEncoder",
    "VisExtNet",
    "mfcc",
    "pool",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
