"""DMD: private and common parts of three modalities, cross-attention among them, four vectors concatenated at the end."""

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features, packed_tokens
from repositories.pretrained import random_weights

REPOSITORY = "mdswyz/DMD"
COMMIT = "516d4e1"
LENGTHS = [50, 41, 33]  # the model is built for 50 steps
STREAMS = {1: 0, 2: 0}  # not the packed token ids


def build(root: Any) -> Any:
    """`config.json` for MOSI, aligned, narrower."""
    for name in ("trains", "trains.singleTask", "trains.singleTask.model"):
        package = ModuleType(name)  # the packages' own import wants the trainers
        package.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[name] = package
    from trains.singleTask.model.dmd import DMD

    known = json.loads((root / "config/config.json").read_text())["dmd"]
    args = {
        **known["commonParams"],
        **known["datasetParams"]["mosi"],
        "dataset_name": "mosi",
        "feature_dims": [768, 5, 20],
    }
    args |= {"dst_feature_dim_nheads": [8, 2], "nlevels": 1, "num_classes": 1, "train_mode": "regression"}
    with random_weights(vocab_size=90, num_hidden_layers=1, intermediate_size=64):
        model = DMD(SimpleNamespace(**args))
    audio, visual = features(LENGTHS, 5, 20, time_first=False)
    return model, Call(packed_tokens(LENGTHS), audio, visual), {}
