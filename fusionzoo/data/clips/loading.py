"""Batches of clips: read as they are asked for, or ahead of it by threads, always the same for a seed and an epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusionzoo.batch import Batch, Clip
from fusionzoo.data.batching import BatchPlan, class_weights, plan_batches
from fusionzoo.data.clips.corpus import ClipCorpus
from fusionzoo.errors import DataError

#: Batches that threads read ahead of the one that is asked for.
_AHEAD = 2
_Read = dict[str, np.ndarray | str | None]


class ClipSplit:
    """The utterances of one split, each a dialogue of its own, with the interface of `ResidentSplit`.

    Nothing is read before a batch is asked for. Augmentation, which `batches(shuffle=True)` asks for, is drawn from
    (seed, epoch, place in the epoch), so that neither threads nor resuming change it.

    Raises `DataError` when the split has no utterance; a broken file raises `MediaError` when its batch is asked for.
    """

    def __init__(self, corpus: ClipCorpus, split: str, device: torch.device | str = "cpu"):
        self.corpus, self.split, self.device = corpus, split, torch.device(device)
        self.dialogues = corpus.dialogues(split)
        if not self.dialogues:
            raise DataError(
                f"{corpus.source}: the split {split!r} has no utterance. Choose another split of the release (data.random, "
                f"or its reader's options), or a dev_fraction above 0 where dev is meant."
            )
        self.rows = np.array([d.start for d in self.dialogues])
        self.lengths = np.ones(len(self.rows), dtype=np.int64)
        self.dims, self.num_classes = corpus.dims, corpus.num_classes
        self.weights = class_weights(corpus.label[self.rows], np.arange(len(self.rows)), len(self.rows))
        self._kept: dict[int, _Read] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_utterances(self) -> int:
        """Utterances of the split."""
        return len(self.rows)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool,
        balanced: bool = False,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> ClipBatches:
        """Batches of one epoch for this rank; see `ResidentSplit.batches`. Those with `shuffle` are augmented."""
        weights = self.weights if balanced else None
        plan = plan_batches(self.lengths, batch_size, shuffle, weights, seed, epoch, rank, world_size)
        return ClipBatches(self, plan, (seed, epoch, rank) if shuffle else None)

    def read(self, number: int, random: np.random.Generator | None) -> _Read:
        """The media of dialogue `number`; None for one that it lacks."""
        if number in self._kept:
            return self._kept[number]
        row = int(self.rows[number])
        utterance = self.corpus.clips[row]
        out: _Read = {}
        for m, medium in self.corpus.media.items():
            there = m not in self.corpus.present or bool(self.corpus.present[m][row])
            out[m] = medium.read(utterance, random) if there else None
        augmented = any(getattr(m, "augment", "none") != "none" for m in self.corpus.media.values())
        if self.corpus.keep and not (augmented and random is not None):
            self._kept[number] = out
        return out


class ClipBatches:
    """One rank's batches of one epoch. Iterating again gives the same ones; `len()` is their number.

    `repeated[i]` is True where batch i repeats one that another rank has too.
    """

    def __init__(self, data: ClipSplit, plan: BatchPlan, seeds: tuple[int, ...] | None):
        self._data, self._plan, self._seeds = data, plan, seeds
        self.repeated = tuple(plan.repeated)

    def __len__(self) -> int:
        return len(self._plan.batches)

    def __iter__(self) -> Iterator[Batch]:
        return self.starting_at(0)

    def starting_at(self, first: int) -> Iterator[Batch]:
        """The batches from number `first` on."""
        places = range(first, len(self._plan.batches))
        workers = self._data.corpus.workers
        if not workers:
            for place in places:
                yield self._batch(place, [self._read(place, i) for i in range(len(self._plan.batches[place]))])
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="fusionzoo-clips")
        waiting: deque[tuple[int, list[Future[_Read]]]] = deque()
        try:
            for place in places:
                jobs = [pool.submit(self._read, place, i) for i in range(len(self._plan.batches[place]))]
                waiting.append((place, jobs))
                if len(waiting) > _AHEAD:
                    ready, done = waiting.popleft()
                    yield self._batch(ready, [job.result() for job in done])
            for ready, done in waiting:
                yield self._batch(ready, [job.result() for job in done])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, place: int, i: int) -> _Read:
        random = None if self._seeds is None else np.random.default_rng([*self._seeds, place, i])
        return self._data.read(int(self._plan.batches[place][i]), random)

    def _batch(self, place: int, read: list[_Read]) -> Batch:
        data = self._data
        rows = data.rows[self._plan.batches[place]]
        size = (len(rows), 1)
        batch = Batch(
            features={},
            mask=torch.ones(size, dtype=torch.bool),
            speakers=torch.zeros(size, dtype=torch.long),
            labels=torch.from_numpy(data.corpus.label[rows]).view(size),
            ids=[str(data.corpus.dialogue_id[row]) for row in rows],
            present={m: torch.from_numpy(x[rows]).view(size) for m, x in data.corpus.present.items()} or None,
            lengths=[1] * len(rows),
            clips={m: collate([r[m] for r in read], data.corpus.widths[m]) for m in data.corpus.media},
        )
        if data.device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(data.device, non_blocking=True)


def collate(items: list[Any], width: int = 1) -> Clip:
    """A `Clip` of one medium from arrays with steps first, or texts; None for an item that lacks it."""
    if any(isinstance(i, str) for i in items):
        return Clip([i or "" for i in items])
    arrays = [i for i in items if i is not None]
    shapes = {a.shape[1:] for a in arrays}
    if len(shapes) > 1:
        raise DataError(
            f"clips of a batch have steps of shapes {sorted(shapes)}; give data.media a size that is theirs"
        )
    inner, dtype = (arrays[0].shape[1:], arrays[0].dtype) if arrays else ((width,) if width > 1 else (), np.float32)
    lengths = [0 if i is None else len(i) for i in items]
    values = np.zeros((len(items), max(1, *lengths), *inner), dtype=dtype)
    for i, item in enumerate(items):
        if item is not None:
            values[i, : len(item)] = item
    mask: Tensor = torch.arange(values.shape[1]) < torch.tensor(lengths).unsqueeze(1)
    return Clip(torch.from_numpy(values), mask)
