"""What both sides of a trajectory do alike: the batches, the loss, the steps."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import nll_loss

STEPS, BATCHES = 30, 3
LOSSES = ("multiemo_swfc", "multiemo_softhgr")  # cases in which the features themselves are trained


def batches(
    name: str, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Inputs as the case's, with other features each time, and a label for every real utterance."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    given = {k[3:]: v for k, v in arrays.items() if k.startswith("in.")}
    if name in LOSSES:
        return []
    real = int(given["lengths"].sum()) if "lengths" in given else int(_mask(given).sum())
    out = []
    for _ in range(BATCHES):
        x = {k: random.normal(size=v.shape).astype(np.float32) if _is_feature(k, v) else v for k, v in given.items()}
        labels = torch.from_numpy(random.integers(0, meta["config"].get("n_classes", 6), real))
        if "padded_labels" in x:
            x["padded_labels"] = np.where(given["padded_labels"] >= 0, given["padded_labels"], -1)
        out.append(({k: torch.from_numpy(np.array(v)) for k, v in x.items()}, labels))
    return out


def _is_feature(name: str, value: np.ndarray) -> bool:
    return value.ndim == 3 and value.dtype.kind == "f" and "mask" not in name


def _mask(x: Mapping[str, Any]) -> Any:
    """(B, T)"""
    return next(x[k] for k in ("umask", "u_mask", "utterance_masks") if k in x) > 0


def free_features(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The features of a loss, to be trained."""
    names = [k for k, v in arrays.items() if k.startswith("in.") and v.dtype.kind == "f" and v.ndim == 2]
    return {k[3:]: torch.from_numpy(arrays[k]).double().requires_grad_() for k in names}


def loss(outputs: Mapping[str, Tensor], x: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """The mean negative log-likelihood of every classifier, over real utterances."""
    parts = []
    for name, out in outputs.items():
        if name.endswith("log_prob") or name == "logits":
            parts.append(nll_loss(_rows(out, x).log_softmax(-1), labels))
    assert parts
    return torch.stack(parts).sum()


def _rows(out: Tensor, x: Mapping[str, Tensor]) -> Tensor:
    """Real utterances, dialogue by dialogue."""
    if out.dim() == 2:
        return out
    mask = torch.as_tensor(_mask(x))
    return out[mask] if out.shape[:2] == mask.shape else out.transpose(0, 1)[mask]


def train(parameters: Iterable[Tensor], step: Callable[[int], Tensor]) -> None:
    """Thirty steps of Adam on what `step(i)` gives."""
    parameters = list(parameters)
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    for i in range(STEPS):
        optimizer.zero_grad()
        step(i).backward()
        optimizer.step()
