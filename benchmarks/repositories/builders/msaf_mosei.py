"""MSAF for CMU-MOSEI: channel gates between recurrences, last states joined; the modalities are items of a list."""

import sys
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "anita-hu/MSAF"
COMMIT = "125e0f1eef"
SAMPLES = 4
STREAMS = {(0, 0): 0, (0, 1): 0, (0, 2): 0}


def build(root: Any) -> Any:
    """The network of `cmu_mosei/main_msaf.py`."""
    sys.path.insert(0, str(root / "cmu_mosei"))
    from networks.audio_lstm import COVAREPAudioLSTMNet
    from networks.msaf_mosei import MSAFLSTMNet
    from networks.text_lstm import BERTTextLSTMNet
    from networks.visual_lstm import FACETVisualLSTMNet

    nets = {"visual": FACETVisualLSTMNet, "audio": COVAREPAudioLSTMNet, "bert": BERTTextLSTMNet}
    model = MSAFLSTMNet({k: {"model": net(), "id": i} for i, (k, net) in enumerate(nets.items())})
    widths = [getattr(model, f"{k}_model")[0].input_size for k in ("visual", "audio", "text")]
    call = Call([torch.randn(SAMPLES, t, d) for t, d in zip((20, 20, 50), widths, strict=True)])
    return model, call, {"modalities": {"x[0]": "visual", "x[1]": "audio", "x[2]": "text"}}
