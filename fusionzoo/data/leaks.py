"""What the test split should not share with the training: rows of features, and speakers where a protocol forbids it.

An utterance counts where its features in a modality are, bit for bit, those of an utterance of another split. Words said
again ("okay") have one vector wherever they are said, so such rows are compared with how often rows recur between dialogues
of the training split itself: only clearly more than that is a leak. Rows of zeros or of one value, and rows whose modality
was not recorded, are never counted.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fusionzoo._text import brief, visible
from fusionzoo.errors import DataWarning

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus

#: A split, and the one that must not hold its rows; what the model is chosen on comes second.
_PAIRS = (("test", "train"), ("dev", "train"), ("test", "dev"))
_CHUNK = 4096
_SHORTEST_COPY = 3
_ALL = "whole set of"


@dataclass(frozen=True)
class Shared:
    """Rows of one split whose features another split has too. leak : whether these are more than recur by themselves."""

    words: str
    leak: bool


class Rows:
    """The rows of a corpus as numbers: equal ones where the features are equal."""

    def __init__(self, corpus: Corpus):
        self.codes = {m: _codes(x, corpus.present.get(m)) for m, x in corpus.features.items()}
        if len(self.codes) > 1:
            every = np.stack(list(self.codes.values()))
            joint = np.unique(every, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
            joint[(every < 0).all(axis=0)] = -1
            self.codes = {_ALL: joint, **self.codes}
        starts = np.zeros(len(corpus), dtype=np.int64)
        starts[corpus._starts()[1:]] = 1
        self.dialogue = np.cumsum(starts)

    def shared(self, split: np.ndarray) -> list[Shared]:
        """What each pair of splits shares in a modality; one that says no more than the line before is left out."""
        found = []
        for one, other in _PAIRS:
            mine, theirs = split == one, split == other
            before = None
            for modality, codes in self.codes.items():
                hit = mine & (codes >= 0) & np.isin(codes, codes[theirs & (codes >= 0)])
                count, total = int(hit.sum()), int((mine & (codes >= 0)).sum())
                if not count or (before is not None and np.array_equal(hit, before)):
                    continue
                recurring, rate = self._recurring(codes, theirs)
                # One row alone can meet another by chance in one modality, never in all of them.
                least = 0.0 if modality == _ALL else 1.0
                copies = self._copies(codes, mine, theirs)
                leak = copies > 0 or count > max(least, 2 * rate * total + 5 * np.sqrt(rate * total))
                if not leak and "train" not in (one, other):
                    continue
                before = hit if leak else before
                found.append(
                    Shared(
                        f"{count:,} of {total:,} {one} utterances have exactly the {visible(modality)} features of a {other} "
                        f"utterance{f', {copies} whole dialogue(s) among them' if copies else ''} (within "
                        f"{other}, {recurring:,} recur in another dialogue; rows of zeros or of one value are not counted)",
                        leak,
                    )
                )
        return found

    def leaks(self, split: np.ndarray) -> list[str]:
        """A sentence for each pair of splits and modality with more equal rows than recur by themselves."""
        return [s.words for s in self.shared(split) if s.leak]

    def _recurring(self, codes: np.ndarray, rows: np.ndarray) -> tuple[int, float]:
        """How many rows have their features in another dialogue of the same split, and their share."""
        rows = rows & (codes >= 0)
        pairs = np.unique(np.stack([codes[rows], self.dialogue[rows]]), axis=1)[0]
        values, dialogues = np.unique(pairs, return_counts=True)
        count = int(np.isin(codes[rows], values[dialogues > 1]).sum())
        return count, count / max(int(rows.sum()), 1)

    def _copies(self, codes: np.ndarray, mine: np.ndarray, theirs: np.ndarray) -> int:
        """How many dialogues of three utterances or more are, row for row, dialogues of the other split."""

        def contents(rows: np.ndarray) -> list[bytes]:
            at = np.flatnonzero(rows & (codes >= 0))
            pieces = np.split(codes[at], np.flatnonzero(np.diff(self.dialogue[at])) + 1)
            return [piece.tobytes() for piece in pieces if len(piece) >= _SHORTEST_COPY]

        there = set(contents(theirs))
        return sum(content in there for content in contents(mine))


def _codes(x: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    """`(N,)` int64: equal for rows with equal bits, -1 for rows that say nothing."""
    silent = (x == x[:, :1]).all(axis=1) & (x.shape[1] > 1)
    silent |= (x == 0).all(axis=1)
    if present is not None:
        silent |= ~present
    # The sum of a row's words times random numbers, modulo 2**64: rows that differ meet with a chance of one in 2**63.
    factors = np.random.default_rng(0).integers(0, 2**63, x.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    sums = np.empty(len(x), dtype=np.uint64)
    for at in range(0, len(x), _CHUNK):
        words = np.ascontiguousarray(x[at : at + _CHUNK]).view(np.uint32).astype(np.uint64)
        sums[at : at + _CHUNK] = (words * factors).sum(axis=1, dtype=np.uint64)
    codes = np.unique(sums, return_inverse=True)[1].astype(np.int64)
    codes[silent] = -1
    return codes


def find_leaks(corpus: Corpus) -> list[str]:
    """Sentences about rows of features that two splits of a validated corpus share; empty where there is nothing to say."""
    return Rows(corpus).leaks(corpus.split) if len(corpus) else []


def warn_of_leaks(corpus: Corpus) -> None:
    """Look for leaks once, note them in `info["leaks"]`, and warn of each with a `DataWarning`."""
    if "leaks" in corpus.info:
        return
    leaks = find_leaks(corpus)
    corpus.info = corpus.info | {"leaks": leaks}
    for leak in leaks:
        warnings.warn(
            f"{corpus.source}: {leak}. The score on that split is too high by an unknown amount", DataWarning, 3
        )


def shared_speakers(corpus: Corpus) -> str | None:
    """A sentence about test speakers who speak in train too, None where there are none or no test split."""
    if _are_roles(corpus):
        return None
    test, train = (set(corpus.speaker[corpus.split == s].tolist()) for s in ("test", "train"))
    shared = test & train
    if not shared or not train:
        return None
    return (
        f"{len(shared)} of {len(test)} test speakers speak in train too, e.g. {brief(min(shared))}: what is measured is not "
        f"how well new speakers are understood"
    )


def speakers_in_several(corpus: Corpus, groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Speaker -> the groups (of dialogue ids) that they speak in, for those in more than one; empty where names are roles."""
    if _are_roles(corpus):
        return {}
    spans = {d.id: (d.start, d.stop) for d in corpus.dialogues()}
    where: dict[str, list[str]] = {}
    for group, dialogues in groups.items():
        for name in sorted({str(s) for d in dialogues for s in corpus.speaker[slice(*spans[d])]}):
            where.setdefault(name, []).append(group)
    return {name: found for name, found in where.items() if len(found) > 1}


def _are_roles(corpus: Corpus) -> bool:
    """Whether speakers are called by their role (`M` and `F` of every dialogue): there are no more than in one dialogue."""
    return len(np.unique(corpus.speaker)) <= corpus.num_speakers
