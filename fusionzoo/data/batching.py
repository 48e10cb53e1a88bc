"""Which dialogues make a batch: an epoch planned on the CPU with numpy, as row numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusionzoo.errors import DataError

#: Batches that are sorted by length together when shuffling: more saves padding, fewer mixes dialogues better.
_POOL_BATCHES = 16
#: A small corpus is cut into about this many pools (of two batches at least), so that it is not sorted as a whole and the
#: same dialogues do not meet in every epoch.
_POOLS = 4


@dataclass(frozen=True)
class BatchPlan:
    """One rank's batches of one epoch: dialogue numbers, and which batches only fill up for the other ranks."""

    batches: list[np.ndarray]
    repeated: list[bool]


def plan_batches(
    lengths: np.ndarray,
    batch_size: int,
    shuffle: bool,
    weights: np.ndarray | None = None,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> BatchPlan:
    """One rank's batches of one epoch, of dialogues of these lengths (see `ResidentSplit.batches`).

    weights : with which dialogues are drawn with replacement; None takes each once.
    """
    if batch_size < 1 or not 0 <= rank < world_size:
        raise DataError(
            f"batch_size={batch_size}, rank={rank}, world_size={world_size}: expected a batch_size of 1 or more "
            f"and a rank from 0 to world_size - 1."
        )
    count = len(lengths)
    number = -(-count // batch_size)
    random = np.random.default_rng([seed, epoch])
    if shuffle or weights is not None:
        pool = batch_size * min(_POOL_BATCHES, max(2, number // _POOLS))
        order = random.permutation(count) if weights is None else random.choice(count, count, p=weights / weights.sum())
        # Stable sort by (pool, length): dialogues stay in their pool and come by length within it.
        order = order[np.lexsort((lengths[order], np.arange(count) // pool))]
    else:
        order = np.argsort(lengths, kind="stable")
    batches = [order[i : i + batch_size] for i in range(0, count, batch_size)]
    # Neighbours in this list have similar lengths: give the ranks neighbours, so that none waits for the others.
    steps = -(-number // world_size)
    slots = np.arange(steps * world_size).reshape(steps, world_size)
    if shuffle:
        slots = slots[random.permutation(steps)]
    mine = slots[:, rank].tolist()
    return BatchPlan([batches[i % number] for i in mine], [i >= number for i in mine])


def class_weights(labels: np.ndarray, dialogue: np.ndarray, count: int) -> np.ndarray:
    """For each of `count` dialogues the mean of one over its utterances' class counts; the labels `(N,)` are of `dialogue`.

    Unlabelled utterances take no part; a dialogue of nothing else is never drawn, unless all are.
    """
    known = labels >= 0
    counts = np.bincount(labels[known]) if known.any() else np.ones(1)
    each = np.where(known, 1.0 / np.maximum(counts[np.where(known, labels, 0)], 1), 0.0)
    total = np.bincount(dialogue, each, count)
    weights = total / np.maximum(np.bincount(dialogue, known, count), 1)
    return weights if weights.any() else np.ones(count)
