"""Batches cut on the device from features that stay there.

The features of a split are copied to the device once, as flat `(rows, width)` tensors. An epoch is planned on the CPU
with numpy, as row numbers; one copy brings the plan to the device, and a batch is a gather of its rows. Nothing on the
way to a batch waits for the device. Where the features do not fit, they stay in host memory and a batch's rows travel
instead, through page-locked memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fusionzoo.batch import Batch
from fusionzoo.data.batching import BatchPlan, class_weights, plan_batches
from fusionzoo.data.corpus import UNLABELLED, Corpus
from fusionzoo.data.scores import scores_of
from fusionzoo.errors import DataError


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
        scores = scores_of(corpus)
        self._scores = None if scores is None else self._column(scores[rows].astype(np.float32), np.nan)
        self._present = {m: self._column(x[rows], False) for m, x in corpus.present.items()}

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self.dialogues)

    @property
    def num_utterances(self) -> int:
        """Number of utterances."""
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

    def _column(self, values: np.ndarray, padding: float) -> Tensor:
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
        """Batches of one epoch for this rank: an iterable with a length.

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

    def _index(self, plan: BatchPlan) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
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

    def __init__(self, data: ResidentSplit, plan: BatchPlan):
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
            scores=None if data._scores is None else data._scores.index_select(0, index).view(size),
        )
