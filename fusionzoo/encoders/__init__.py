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

from typing import TYPE_CHECKING

from fusionzoo._lazy import attach

if TYPE_CHECKING:
    from fusionzoo.encoders._base import Encoder as Encoder
    from fusionzoo.encoders.audio import AudioEncoder as AudioEncoder
    from fusionzoo.encoders.mfccnet import MFCCNet as MFCCNet
    from fusionzoo.encoders.mfccnet import mfcc as mfcc
    from fusionzoo.encoders.outputs import Encoded as Encoded
    from fusionzoo.encoders.outputs import pool as pool
    from fusionzoo.encoders.resnext3d import ResNeXt3D as ResNeXt3D
    from fusionzoo.encoders.text import TextEncoder as TextEncoder
    from fusionzoo.encoders.video import VideoEncoder as VideoEncoder
    from fusionzoo.encoders.visextnet import VisExtNet as VisExtNet

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "AudioEncoder": "fusionzoo.encoders.audio",
        "Encoded": "fusionzoo.encoders.outputs",
        "Encoder": "fusionzoo.encoders._base",
        "MFCCNet": "fusionzoo.encoders.mfccnet",
        "ResNeXt3D": "fusionzoo.encoders.resnext3d",
        "TextEncoder": "fusionzoo.encoders.text",
        "VideoEncoder": "fusionzoo.encoders.video",
        "VisExtNet": "fusionzoo.encoders.visextnet",
        "mfcc": "fusionzoo.encoders.mfccnet",
        "pool": "fusionzoo.encoders.outputs",
    },
)
