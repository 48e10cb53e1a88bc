"""A corpus as released: its utterances, where their files lie, and what was left out. No features yet.

Every reader of `fusionzoo.data.raw` makes a `RawCorpus`; `fusionzoo extract` turns one into the columnar corpus.
Nothing here opens a sound or a video: a reader lists files and parses text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from fusionzoo._types import JSON, Options
from fusionzoo.data.corpus import SPLITS, UNLABELLED, some
from fusionzoo.data.splits import draw_dev
from fusionzoo.errors import DataError, OptionError, close_matches_hint

#: What an utterance can be made of; `RawUtterance.has` answers for each.
MEDIA = ("text", "audio", "video")


@dataclass(frozen=True)
class Problem:
    """Something of the release that is not used, and why.

    file : the file (and line) that is wrong or missing.
    what : a sentence for people.
    reason : a few words that are equal for all problems of a kind, to count by (`"no audio file"`, `"label xxx"`).
    utterance : the utterance's id, where there is one.
    dropped : True: the whole utterance is left out; False: only that file is, the utterance stays without it.
    """

    file: str
    what: str
    reason: str
    utterance: str | None = None
    dropped: bool = True

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class RawUtterance:
    """One utterance: what is known about it and where its recordings are.

    id : unique in the corpus, safe as a file name.
    dialogue_id, index : its conversation and its place there (strictly increasing; 0 where there is no conversation).
    speaker : unique in the corpus (`"Ses01F"`, `"Actor_03"`), except MELD's, which are names of roles.
    label : index into the corpus's `label_names`; -100 where it has none.
    split : `"train"`, `"dev"` or `"test"` where the release has splits (or `hold_out` made some), else None.
    fold : the group that cross-validation keeps together (`"Session1"`, `"Actor_01"`), or None.
    text : its words, or None.
    audio, video : files that exist and are not empty, or None. One file with both tracks (mp4) is both.
    start, end : seconds within `video`, for a video of the whole dialogue; None: the whole file is the utterance.
    audio_start, audio_end : the same for `audio`.
    crop : (left, top, right, bottom) as parts of the picture, 0 to 1, where the speaker is; None: the whole picture.
    features : modality -> file of ready frame features (`.npy`, `(frames, width)`), as Foal-Net's `video`: to be taken
        before any recording of that name.
    landmarks : a file of facial landmarks per frame (RAVDESS), or None.
    gender : `"F"`, `"M"` or None.
    extras : JSON-able annotations (`"vad"`, `"sentiment"`, `"intensity"`, ...).
    """

    id: str
    dialogue_id: str
    index: int
    speaker: str
    label: int
    split: str | None = None
    fold: str | None = None
    text: str | None = None
    audio: Path | None = None
    video: Path | None = None
    start: float | None = None
    end: float | None = None
    audio_start: float | None = None
    audio_end: float | None = None
    crop: tuple[float, float, float, float] | None = None
    features: Mapping[str, Path] = field(default_factory=dict)
    landmarks: Path | None = None
    gender: str | None = None
    extras: Options = field(default_factory=dict)

    def has(self, medium: str) -> bool:
        """Whether there is text, audio or video, or a file of ready features of that name."""
        return medium in self.features or (medium in MEDIA and getattr(self, medium) is not None)


@dataclass(frozen=True, eq=False, repr=False)
class RawCorpus:
    """The utterances of a release, the rows of a dialogue contiguous and in order.

    name : `"iemocap"`, `"meld"`, `"esd"`, `"ravdess"`, `"foal-net"`.
    root : the folder (or list file) that was read.
    label_names : the classes, in the order of the labels.
    utterances : everything that can be used.
    problems : everything that cannot, in the order in which it was met.
    info : JSON-able facts about how it was read (options, files found).
    """

    name: str
    root: Path
    label_names: tuple[str, ...]
    utterances: tuple[RawUtterance, ...]
    problems: tuple[Problem, ...] = ()
    info: Mapping[str, JSON] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.utterances)

    def __repr__(self) -> str:
        media = ", ".join(f"{m} {n}" for m, n in self.media().items())
        return f"RawCorpus({self.name!r}: {len(self)} utterances, {media}, {len(self.problems)} problems)"

    # ------------------------------------------------------------------ what it is

    @property
    def folds(self) -> tuple[str, ...]:
        """The folds, sorted; empty where the release has none."""
        return tuple(sorted({u.fold for u in self.utterances if u.fold is not None}))

    @property
    def has_splits(self) -> bool:
        """Whether every utterance is in train, dev or test."""
        return bool(self.utterances) and all(u.split is not None for u in self.utterances)

    def media(self) -> dict[str, int]:
        """Medium or ready feature -> utterances that have it, only what there is."""
        names = [*MEDIA, *sorted({name for u in self.utterances for name in u.features} - {*MEDIA})]
        counts = {m: sum(u.has(m) for u in self.utterances) for m in names}
        return {m: n for m, n in counts.items() if n}

    def skipped(self) -> dict[str, int]:
        """Reason -> how often, most frequent first."""
        return dict(Counter(p.reason for p in self.problems).most_common())

    def dialogues(self) -> dict[str, tuple[RawUtterance, ...]]:
        """Dialogue id -> its utterances, in order."""
        out: dict[str, list[RawUtterance]] = {}
        for u in self.utterances:
            out.setdefault(u.dialogue_id, []).append(u)
        return {d: tuple(rows) for d, rows in out.items()}

    def summary(self) -> dict[str, Any]:
        """Counts, JSON-able: per class, split, fold and medium, and what was skipped."""

        def by_class(rows: Iterable[RawUtterance]) -> dict[str, int]:
            count = Counter(u.label for u in rows)
            return {name: count[i] for i, name in enumerate(self.label_names)}

        def parts(of: Callable[[RawUtterance], str | None], names: Sequence[str]) -> dict[str, Any]:
            out = {}
            for name in names:
                rows = [u for u in self.utterances if of(u) == name]
                if rows:
                    dialogues = len({u.dialogue_id for u in rows})
                    out[name] = {"dialogues": dialogues, "utterances": len(rows), "labels": by_class(rows)}
            return out

        return {
            "name": self.name,
            "root": str(self.root),
            "utterances": len(self),
            "dialogues": len({u.dialogue_id for u in self.utterances}),
            "speakers": len({u.speaker for u in self.utterances}),
            "labels": by_class(self.utterances),
            "unlabelled": sum(u.label == UNLABELLED for u in self.utterances),
            "media": self.media(),
            "splits": parts(lambda u: u.split, SPLITS),
            "folds": parts(lambda u: u.fold, self.folds),
            "skipped": self.skipped(),
            "dropped": sum(p.dropped for p in self.problems),
        }

    # ------------------------------------------------------------------ parts of it

    def require(self, *media: str) -> RawCorpus:
        """Only the utterances that have all of these media; the others become problems.

        Raises `DataError` where none is left.
        """
        keep: list[RawUtterance] = []
        problems = list(self.problems)
        for u in self.utterances:
            missing = [m for m in media if not u.has(m)]
            if missing:
                what = f"left out: it has no {' and no '.join(missing)}"
                problems.append(Problem(u.id, what, f"without {', '.join(missing)}", u.id))
            else:
                keep.append(u)
        if not keep:
            have = ", ".join(f"{m} ({n})" for m, n in self.media().items()) or "nothing"
            raise DataError(
                f"{self.root}: no utterance of {self.name} has {' and '.join(media)}; found: {have}. Check that the "
                f"files lie where the release puts them (`fusionzoo data inspect {self.root}`)."
            )
        return replace(self, utterances=tuple(keep), problems=tuple(problems))

    def as_single_utterances(self) -> RawCorpus:
        """The same with every utterance a dialogue of its own, for models and splits that know no conversations."""
        alone = tuple(replace(u, dialogue_id=u.id, index=0) for u in self.utterances)
        return replace(self, utterances=alone)

    def with_split(self, mapping: Mapping[str, str], origin: str = "the split") -> RawCorpus:
        """The same with the splits of `mapping` (dialogue id -> split), which must name every dialogue."""
        have = {u.dialogue_id for u in self.utterances}
        if missing := sorted(have - set(mapping)):
            raise DataError(f"{origin} says nothing about {some(missing)} of {self.root}. Put every dialogue in one.")
        for dialogue, split in mapping.items():
            if split not in SPLITS:
                raise DataError(f"{origin} puts dialogue {dialogue!r} in {split!r}; splits are {', '.join(SPLITS)}.")
        return replace(self, utterances=tuple(replace(u, split=mapping[u.dialogue_id]) for u in self.utterances))

    def hold_out(
        self,
        test: str | Sequence[str],
        dev: str | Sequence[str] | None = None,
        *,
        dev_fraction: float = 0.1,
        seed: int = 0,
    ) -> RawCorpus:
        """The same with whole folds as test, and dev drawn so that the test is not needed to choose a model.

        Parameters
        ----------
        test : the fold or folds held out (`"Session5"`, or several actors).
        dev : the folds to choose the model on; None draws `dev_fraction` of the remaining dialogues with `seed`, or,
            where dialogues are single clips, the same share of the remaining folds, so that no speaker is in both. In
            the latter case at least one fold is drawn.
        """
        test = (test,) if isinstance(test, str) else tuple(test)
        chosen = (dev,) if isinstance(dev, str) else tuple(dev or ())
        self._check_folds(test, chosen)
        split_of = {f: "test" if f in test else "dev" if f in chosen else "train" for f in self.folds}
        mapping = {u.dialogue_id: split_of[u.fold] if u.fold else "train" for u in self.utterances}
        if not chosen:
            mapping |= dict.fromkeys(self._drawn_dev(mapping, test, dev_fraction, seed), "dev")
        return self.with_split(mapping, f"hold_out(test={list(test)})")

    def _check_folds(self, test: Sequence[str], dev: Sequence[str]) -> None:
        if not self.folds:
            raise DataError(f"{self.root}: {self.name} has no folds; its splits are those of the release.")
        for fold in (*test, *dev):
            if fold not in self.folds:
                raise OptionError(
                    f"{self.name} has no fold {fold!r}{close_matches_hint(fold, self.folds) or '.'} Folds: "
                    f"{', '.join(self.folds)}."
                )
        if not test or set(test) & set(dev) or set(self.folds) <= {*test, *dev}:
            raise OptionError(
                f"test={list(test)} and dev={list(dev)} of {len(self.folds)} folds: expected one or more test "
                f"folds, other dev folds, and at least one fold left to train on."
            )

    def _drawn_dev(self, mapping: Mapping[str, str], test: Sequence[str], fraction: float, seed: int) -> set[str]:
        """The dialogues drawn to choose the model on: of whole folds where dialogues are single clips."""
        single = all(len(rows) == 1 for rows in self.dialogues().values())
        left = [f for f in self.folds if f not in test]
        if single and len(left) > 1:
            drawn = draw_dev(left, fraction, seed)
            return {u.dialogue_id for u in self.utterances if u.fold in drawn}
        return draw_dev([d for d, split in mapping.items() if split == "train"], fraction, seed)

    def group_folds(self, k: int, *, published: bool = False) -> tuple[tuple[str, ...], ...]:
        """The folds in `k` groups of neighbours, for k-fold cross-validation with `hold_out`.

        published : groups of `int(n / k)`, as MSAF and CFN-SR make them: what is left over (4 of 24 actors for k=5) is
            never tested. Otherwise sizes differ by at most one and every fold is in a group.
        """
        n = len(self.folds)
        if not 1 < k <= n:
            raise OptionError(f"k={k} groups of the {n} folds of {self.name}: expected 2 to {n}.")
        if published:
            return tuple(self.folds[i * (n // k) : (i + 1) * (n // k)] for i in range(k))
        edges = [round(i * n / k) for i in range(k + 1)]
        return tuple(self.folds[a:b] for a, b in pairwise(edges))

    def random_split(self, test: float, dev: float, seed: int = 0) -> RawCorpus:
        """Every utterance a dialogue of its own, `test` of them drawn as test and `dev` of the rest as dev.

        This is MemoCMT's protocol (0.1 and 0.1 on IEMOCAP, 0.2 and 0.1 on ESD): speakers, and sentences said more than
        once, are in train and test. Published for comparison; for a number to trust, hold out speakers.
        """
        alone = self.as_single_utterances()
        ids = [u.id for u in alone.utterances]
        tested = draw_dev(ids, test, seed)
        chosen = draw_dev((i for i in ids if i not in tested), dev, seed)
        mapping = {i: "test" if i in tested else "dev" if i in chosen else "train" for i in ids}
        return alone.with_split(mapping, "random_split")
