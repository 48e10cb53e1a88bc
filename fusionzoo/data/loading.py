"""Batches cut on the device from features that stay there.

The features of a split are copied to the device once, as flat `(rows, width)` tensors. An epoch is planned on the CPU
with numpy, as row numbers; one copy brings the plan to the device, and a batch is a gather of its rows. Nothing on the
way to a batch waits for the device. Where the features do not fit, they stay in host memory and a batch's rows travel
instead, through page-locked memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusionzoo.batch import Batch
from fusionzoo.data.corpus import UNLABELLED, Corpus
from fusionzoo.errors import DataError

#: Batches that are sorted by length together when shuffling: more saves padding, fewer mixes dialogues better.
_POOL_BATCHES = 16
#: A small corpus is cut into about this many pools (of two batches at least), so that it is not sorted as a whole and the
#: same dialogues do not meet in every epoch.
_POOLS = 4


def feature_statistics(corpus: Corpus, split: str = "train") -> dict[str, tuple[Tensor, Tensor]]:
    """Modality -> (mean `(d,)`, standard deviation `(d,)`), float32, over the rows of `split` where it was recorded.

    The deviation is the population's. A feature that never varies gets deviation 1, so that standardising makes it
    zero; a modality that the split never has gets mean 0 and deviation 1.
    """
    rows = corpus.split == split
    out: dict[str, tuple[Tensor, Tensor]] = {}
    for m, x in corpus.features.items():
        kept = x[rows & corpus.present[m]] if m in corpus.present else x[rows]
        if not len(kept):
            out[m] = (torch.zeros(x.shape[1]), torch.ones(x.shape[1]))
            continue
        mean, std = kept.mean(axis=0, dtype=np.float64), kept.std(axis=0, dtype=np.float64)
        # Rounding leaves a constant column a deviation of about 1e-16 of its size; single precision resolves 1e-7.
        std[std <= 1e-7 * np.maximum(np.abs(mean), 1e-30)] = 1.0
        out[m] = (torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(std.astype(np.float32)))
    return out


@dataclass(frozen=True)
class _Plan:
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
) -> _Plan:
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
    return _Plan([batches[i % number] for i in mine], [i >= number for i in mine])


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


def split_of(corpus: Corpus, split: str, device: torch.device | str = "cpu") -> Any:
    """The dialogues of a split ready to be cut into batches: `ResidentSplit`, or `ClipSplit` of a corpus of clips."""
    from fusionzoo.data.clips.corpus import ClipCorpus

    if isinstance(corpus, ClipCorpus):
        from fusionzoo.data.clips.loading import ClipSplit

        return ClipSplit(corpus, split, device)
    return ResidentSplit(corpus, split, device)


class ResidentSplit:
    """The dialogues of one split, ready to be cut into batches on `device`.

    Parameters
    ----------
    corpus : a validated corpus.
    split : `"train"`, `"dev"` or `"test"`.
    device : where the batches are wanted.
    resident : True keeps the features on the device, False in host memory (page-locked for a GPU); None decides by
        `max_bytes`.
    max_bytes : with `resident=None`, the most that the features may take on the device; None means half of the
        memory that is free on a GPU, and no limit elsewhere.

    Raises
    ------
    DataError : the split has no dialogue.

    Examples
    --------
    >>> train = ResidentSplit(corpus, "train", "cuda")  # doctest: +SKIP
    >>> for batch in train.batches(16, shuffle=True, seed=0, epoch=3):  # doctest: +SKIP
    ...     out = host(batch)
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        device: torch.device | str = "cpu",
        *,
        resident: bool | None = None,
        max_bytes: int | None = None,
    ):
        self.split = split
        self.device = torch.device(device)
        self.dialogues = corpus.dialogues(split)
        if not self.dialogues:
            raise DataError(
                f"{corpus.source}: the split {split!r} has no dialogue. Give a split file (split=...), or a "
                f"dev_fraction above 0 where dev is meant."
            )
        self.dims, self.num_classes = corpus.dims, corpus.num_classes
        self.lengths = np.array([len(d) for d in self.dialogues], dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        rows = np.concatenate([np.arange(d.start, d.stop) for d in self.dialogues])
        self._rows = len(rows)
        owner = np.repeat(np.arange(len(self.dialogues)), self.lengths)
        self.weights = class_weights(corpus.label[rows], owner, len(self.dialogues))
        self.resident = self._fits(max_bytes) if resident is None else resident
        home = self.device if self.resident else torch.device("cpu")
        # One more row than there are utterances: what padding reads. Padded steps need no masking after the gather.
        self._features = {m: self._store(corpus, m, rows, home) for m in corpus.features}
        self._speakers = self._column(corpus.speaker_index()[rows], 0)
        self._labels = self._column(corpus.label[rows], UNLABELLED)
        self._present = {m: self._column(x[rows], False) for m, x in corpus.present.items()}

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self.dialogues)

    @property
    def num_utterances(self) -> int:
        return self._rows

    @property
    def num_bytes(self) -> int:
        """What the features take, wherever they are."""
        return sum((self._rows + 1) * d * 4 for d in self.dims.values())

    def _fits(self, max_bytes: int | None) -> bool:
        if max_bytes is None:
            if self.device.type != "cuda":
                return True
            max_bytes = torch.cuda.mem_get_info(self.device)[0] // 2
        return self.num_bytes <= max_bytes

    def _store(self, corpus: Corpus, modality: str, rows: np.ndarray, home: torch.device) -> Tensor:
        flat = np.zeros((len(rows) + 1, corpus.dims[modality]), dtype=np.float32)
        flat[:-1] = corpus.features[modality][rows]
        if modality in corpus.present:
            flat[:-1][~corpus.present[modality][rows]] = 0.0  # what is not recorded may be NaN in the file
        return torch.from_numpy(flat).to(home)

    def _column(self, values: np.ndarray, padding: int | bool) -> Tensor:
        # Labels, speakers and masks are a few bytes per row: always on the device.
        column = torch.from_numpy(np.append(values, np.asarray(padding, dtype=values.dtype)))
        return column.to(self.device)

    # ------------------------------------------------------------------ batches

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
    ) -> Batches:
        """This rank's batches of one epoch: an iterable with a length.

        batch_size : dialogues per batch and rank; the last batch may be smaller.
        shuffle : True mixes dialogues by `(seed, epoch)` alone (no global random state is read or changed), sorts
            pools of some batches by length to save padding, and mixes the batches again. False sorts by length, then
            by id, always the same.
        rank, world_size : every rank gets the same number of batches, of similar lengths at the same step. Where the
            batches do not divide evenly, the list starts again from its beginning; those repeats are marked in
            `Batches.repeated`, so that an evaluation can leave them out (training may use them).
        """
        weights = self.weights if balanced else None
        return Batches(self, plan_batches(self.lengths, batch_size, shuffle, weights, seed, epoch, rank, world_size))

    def _index(self, plan: _Plan) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
        """Row numbers of all batches, flat, and each batch's `(offset, B, T)`; padding points at the extra last row."""
        sizes = np.array([len(b) for b in plan.batches])
        dialogue = np.concatenate(plan.batches)
        longest = np.maximum.reduceat(self.lengths[dialogue], np.cumsum(sizes) - sizes)
        width = np.repeat(longest, sizes)
        step = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
        index = np.repeat(self._starts[dialogue], width) + step
        index[step >= np.repeat(self.lengths[dialogue], width)] = self._rows
        offsets = np.cumsum(sizes * longest) - sizes * longest
        return index, list(zip(offsets.tolist(), sizes.tolist(), longest.tolist(), strict=True))

    def _gather(self, flat: Tensor, index: Tensor, host_index: Tensor, size: tuple[int, int]) -> Tensor:
        if self.resident:
            return flat.index_select(0, index).view(*size, flat.shape[1])
        # The caching allocator of page-locked memory reuses a block only when its copy is done, so nothing waits here.
        rows = torch.empty(len(host_index), flat.shape[1], pin_memory=self.device.type == "cuda")
        torch.index_select(flat, 0, host_index, out=rows)
        return rows.to(self.device, non_blocking=True).view(*size, flat.shape[1])


class Batches:
    """One rank's batches of one epoch. Iterating again gives the same ones; `len()` is their number.

    `repeated[i]` is True where batch i repeats one that another rank has too (see `ResidentSplit.batches`).
    """

    def __init__(self, data: ResidentSplit, plan: _Plan):
        self._data, self._plan = data, plan
        self.repeated = tuple(plan.repeated)

    def __len__(self) -> int:
        return len(self._plan.batches)

    def __iter__(self) -> Iterator[Batch]:
        return self.starting_at(0)

    def starting_at(self, first: int) -> Iterator[Batch]:
        """The batches from number `first` on: an interrupted epoch goes on here, without cutting those before."""
        data = self._data
        flat, shapes = data._index(self._plan)
        host = torch.from_numpy(flat)
        if data.device.type == "cuda":
            host = host.pin_memory()
        index = host.to(data.device, non_blocking=True)
        for numbers, (offset, size, steps) in list(zip(self._plan.batches, shapes, strict=True))[first:]:
            here = slice(offset, offset + size * steps)
            yield self._cut(index[here], host[here], numbers, (size, steps))

    def _cut(self, index: Tensor, host: Tensor, numbers: np.ndarray, size: tuple[int, int]) -> Batch:
        data = self._data
        return Batch(
            features={m: data._gather(x, index, host, size) for m, x in data._features.items()},
            mask=(index != data._rows).view(size),
            speakers=data._speakers.index_select(0, index).view(size),
            labels=data._labels.index_select(0, index).view(size),
            ids=[data.dialogues[i].id for i in numbers],
            present={m: x.index_select(0, index).view(size) for m, x in data._present.items()} or None,
            lengths=data.lengths[numbers].tolist(),
        )
