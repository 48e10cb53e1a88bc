"""Probabilities for every utterance of a split, exact on any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fusionzoo.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fusionzoo.data.clips.loading import ClipSplit
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.data.resident import ResidentSplit


@torch.inference_mode()
def split_probabilities(
    model: nn.Module,
    corpus: Corpus,
    resident: ResidentSplit | ClipSplit,
    split: str,
    batch_size: int,
    accelerator: Accelerator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows `(N,)` of the corpus that belong to the split, in order, and probabilities `(N, C)` float32 for them.

    With several processes each computes its share and all receive the whole; a dialogue that pads a share is written
    twice to the same rows and so counts once.

    Parameters
    ----------
    model : a host.
    corpus : what is predicted.
    resident : the split, ready to be cut into batches.
    split : its name.
    batch_size : dialogues at a time; rounding apart, no probability depends on it.
    accelerator : of several processes; None for this one alone.

    Raises
    ------
    TrainingError : a probability is not finite.
    """
    spans = {d.id: (d.start, d.stop) for d in corpus.dialogues(split)}
    rank = accelerator.process_index if accelerator else 0
    world = accelerator.num_processes if accelerator else 1
    classes = int(model.num_classes)  # type: ignore[arg-type]
    training = model.training
    model.eval()
    rows: list[np.ndarray] = []
    outputs: list[torch.Tensor] = []
    for batch in resident.batches(batch_size, shuffle=False, seed=0, epoch=0, rank=rank, world_size=world):
        if accelerator:
            with accelerator.autocast():
                logits = model(batch).logits
        else:
            logits = model(batch).logits
        rows += [np.arange(*spans[i]) for i in batch.ids]
        # Positions are built on the CPU from lengths known there: a boolean mask would wait for the device.
        width = logits.shape[1]
        real = np.concatenate([np.arange(n) + i * width for i, n in enumerate(batch.lengths_list())])
        outputs.append(logits.float().flatten(0, 1)[torch.from_numpy(real).to(logits.device, non_blocking=True)])
    model.train(training)
    probabilities = torch.cat(outputs).softmax(-1).cpu().numpy() if outputs else np.zeros((0, classes), np.float32)
    shares: list[tuple[np.ndarray, np.ndarray]] = [(np.concatenate(rows) if rows else np.zeros(0, int), probabilities)]
    if accelerator and world > 1:
        from accelerate.utils import gather_object

        shares = gather_object(shares)
    table = np.full((len(corpus.label), classes), np.nan, dtype=np.float32)
    for row, share in shares:
        table[row] = share
    wanted = np.concatenate([np.arange(*s) for s in sorted(spans.values())]) if spans else np.zeros(0, int)
    if not np.isfinite(table[wanted]).all():
        raise TrainingError(
            f"the model gives probabilities that are not finite on the {split} split: its weights have diverged; "
            "lower training.lr, or set training.clip, or training.precision=no"
        )
    return wanted, table[wanted]


def prediction_rows(
    corpus: Corpus, split: str, rows: np.ndarray, probabilities: np.ndarray, label_names: Sequence[str]
) -> list[list[Any]]:
    """Rows of predictions.csv: split, dialogue, utterance, true name (empty when unlabelled), predicted name, probabilities.

    Parameters
    ----------
    corpus : what was predicted; true names are its own.
    split : which part of it.
    rows : of the corpus.
    probabilities : for these rows.
    label_names : the model's classes.
    """
    assert corpus.utterance_id is not None  # filled in by the corpus itself
    best = probabilities.argmax(1)
    return [
        [
            split,
            str(corpus.dialogue_id[row]),
            str(corpus.utterance_id[row]),
            corpus.label_names[corpus.label[row]] if corpus.label[row] >= 0 else "",
            label_names[best[i]],
            *(f"{p:.6f}" for p in probabilities[i]),
        ]
        for i, row in enumerate(rows)
    ]


def prediction_header(label_names: Sequence[str]) -> list[str]:
    """Header of predictions.csv."""
    return ["split", "dialogue", "utterance", "true", "predicted", *(f"p_{name}" for name in label_names)]
