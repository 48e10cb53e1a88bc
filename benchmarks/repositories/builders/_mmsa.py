"""MMSA's models, without the package's own import, which wants downloads and a GPU's library."""

import json
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class _Args(dict):
    __getattr__ = dict.__getitem__


def amio(root: Any, name: str, seq_lens: Sequence[int], data: str = "mosi") -> Any:
    """`AMIO` with one of its models, configured for a data set's regression."""
    package = ModuleType("MMSA")
    package.__path__ = [str(root / "src" / "MMSA")]
    sys.modules["MMSA"] = package
    from MMSA.models import AMIO

    known = json.loads((root / "src/MMSA/config/config_regression.json").read_text())[name]
    args = _Args({**known["commonParams"], **known["datasetParams"][data]})
    args.update(model_name=name, feature_dims=[768, 5, 20], seq_lens=list(seq_lens), train_mode="regression")
    args.update(num_classes=1, device="cpu", language="en")
    return AMIO(args)
