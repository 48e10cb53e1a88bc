"""Folds of cross-validation: which dialogues are held out together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fusionzoo._schema import shown
from fusionzoo._types import Options
from fusionzoo.data.leaks import speakers_in_several
from fusionzoo.data.splits import draw_dev
from fusionzoo.errors import ConfigError, DataError, close_matches_hint

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus

#: Other words for the speaker, and the columns that a release's reader or the field uses for sessions.
_SPEAKER = ("speaker", "actor", "subject")
_SESSION = ("session", "fold")
_IEMOCAP = re.compile(r"Ses(\d\d)")


#: `5`, `"session"`, `"speaker:5"`, `{"by": "speaker", "k": 5}`; None and `"none"` are no folds.
FoldsLike: TypeAlias = "str | int | Options | FoldPlan | None"


@dataclass(frozen=True)
class FoldPlan:
    """What is held out together, and how many folds.

    Parameters
    ----------
    by : `session` (a column `session` or `fold` of the data, or IEMOCAP's dialogue ids), `speaker` (also `actor`: dialogues
        that share a speaker stay together), `dialogue`, or any other text column of the data. A dialogue whose column is
        empty is never held out.
    k : number of folds; None is one a group. Groups are spread over k folds of about equal size.
    seed : of that spreading.
    dev : `fraction` (dialogues of the training folds, `data.dev_fraction` of them) or `fold` (the next fold).
    """

    by: str = "dialogue"
    k: int | None = None
    seed: int = 0
    dev: str = "fraction"

    @classmethod
    def read(cls, given: FoldsLike) -> FoldPlan | None:
        """`5`, `"session"`, `"speaker:5"`, `{"by": "speaker", "k": 5}`; None and `"none"` are no folds."""
        if given is None or given == "none":
            return None
        if isinstance(given, FoldPlan):
            return given
        values: dict[str, Any] = dict(given if isinstance(given, Mapping) else _written(str(given)))
        _check_plan(values)
        k = None if values.get("k") is None else int(values["k"])
        if k is not None and k < 2:
            raise ConfigError(f"folds.k must be 2 or more, not {k}")
        dev = str(values.get("dev", "fraction"))
        if dev not in ("fraction", "fold"):
            raise ConfigError(f"folds.dev is 'fraction' or 'fold', not {dev!r}")
        plan = cls(str(values.get("by", "dialogue")).lower(), k, int(values.get("seed") or 0), dev)
        if plan.by == "dialogue" and k is None:
            raise ConfigError("folds by dialogue need a number: --folds 5, or folds: {by: dialogue, k: 5}")
        return plan

    def __str__(self) -> str:
        if self.by == "dialogue":
            return f"{self.k} folds of dialogues"
        return f"leave one {self.by} out" if self.k is None else f"{self.k} folds by {self.by}"


def _written(folds: str) -> dict[str, str]:
    """The keys that `5`, `session` or `speaker:5` stands for."""
    by, _, k = folds.rpartition(":") if ":" in folds else (folds, "", "")
    return {"k": by} if by.isdigit() else {"by": by, **({"k": k} if k else {})}


def _check_plan(values: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where a key is unknown or a value is of another kind."""
    known = ("by", "k", "seed", "dev")
    for key in values:
        if key not in known:
            raise ConfigError(
                f"unknown key 'folds.{key}'{close_matches_hint(str(key), known) or '.'} Here go: {', '.join(known)}."
            )
    for key in ("k", "seed"):
        if values.get(key) is not None and not re.fullmatch(r"[0-9]{1,9}", str(values[key])):
            raise ConfigError(f"folds.{key} takes a whole number, not {shown(values[key])}")
    if not isinstance(values.get("by", ""), str):
        raise ConfigError(f"folds.by is the name of a column, not {shown(values['by'])}")


def groups_of(corpus: Corpus, by: str) -> dict[str, list[str]]:
    """Group -> its dialogue ids, both sorted. Raises `DataError` where the data do not say, or a dialogue is in two."""
    if by == "dialogue":
        return {d.id: [d.id] for d in corpus.dialogues()}
    if by in _SPEAKER:
        return _by_speaker(corpus)
    groups: dict[str, list[str]] = {}
    for dialogue, values in _groups_said(corpus, by).items():
        if len(values) > 1:
            raise DataError(
                f"{corpus.source}: dialogue {dialogue!r} is in several groups of {by!r} ({', '.join(values[:4])}), so that "
                f"none of them can be held out; use folds by dialogue."
            )
        if not values[0]:
            continue  # in no group: always train
        groups.setdefault(values[0], []).append(dialogue)
    return {name: sorted(groups[name]) for name in sorted(groups)}


def _groups_said(corpus: Corpus, by: str) -> dict[str, list[str]]:
    """Dialogue id -> the groups that a column, or IEMOCAP's ids, say it is in."""
    dialogues = corpus.dialogues()
    column = next((c for c in (_SESSION if by in _SESSION else (by,)) if c in corpus.extras), None)
    if column is not None:
        values = corpus.extras[column].astype(str)
        if values.ndim != 1:
            raise DataError(
                f"{corpus.source}: folds by {by!r} need one value per utterance, the column is {values.shape}."
            )
        return {d.id: sorted(set(values[d.start : d.stop].tolist())) for d in dialogues}
    if by == "session" and all(_IEMOCAP.match(d.id) for d in dialogues):
        return {d.id: [f"Session{int(_IEMOCAP.match(d.id)[1])}"] for d in dialogues}  # type: ignore[index]
    known = ["dialogue", "speaker", *(c for c, x in corpus.extras.items() if x.ndim == 1 and x.dtype.kind in "US")]
    raise DataError(
        f"{corpus.source} says nothing about {by!r}{close_matches_hint(by, known) or '.'} Folds can be made by: "
        f"{', '.join(known)}, and by session where there is a column 'session' or 'fold'."
    )


def _by_speaker(corpus: Corpus) -> dict[str, list[str]]:
    """Dialogues that share a speaker, directly or over others, belong together."""
    home: dict[str, str] = {}

    def root(name: str) -> str:
        while home.setdefault(name, name) != name:
            name = home[name]
        return name

    speakers = {d.id: sorted(set(corpus.speaker[d.start : d.stop].tolist())) for d in corpus.dialogues()}
    for names in speakers.values():
        for name in names[1:]:
            home[root(name)] = root(names[0])
    members: dict[str, set[str]] = {}
    groups: dict[str, list[str]] = {}
    for dialogue, names in speakers.items():
        members.setdefault(root(names[0]), set()).update(names)
        groups.setdefault(root(names[0]), []).append(dialogue)
    named = {"+".join(sorted(members[r])): sorted(ids) for r, ids in groups.items()}
    if len(named) < 2:
        raise DataError(
            f"{corpus.source}: all its dialogues are linked by the speakers that they share (there are "
            f"{len(np.unique(corpus.speaker))}), so that none can be held out; use folds by dialogue, e.g. --folds 5."
        )
    return {n if len(n) < 60 else f"{n[:50]}+{i}": named[n] for i, n in enumerate(sorted(named))}


def make_folds(corpus: Corpus, plan: FoldPlan) -> dict[str, list[str]]:
    """Fold -> its dialogue ids."""
    groups = groups_of(corpus, plan.by)
    if plan.k is None:
        folds = groups
    else:
        if plan.k > len(groups):
            raise DataError(f"{corpus.source} has {len(groups)} groups by {plan.by}, which do not make {plan.k} folds.")
        size = {d.id: len(d) for d in corpus.dialogues()}
        names = list(groups)
        order = [names[i] for i in np.random.default_rng(plan.seed).permutation(len(names))]
        order.sort(key=lambda n: -sum(size[d] for d in groups[n]))  # stable: equals stay in their drawn order
        filled: list[list[str]] = [[] for _ in range(plan.k)]
        for name in order:  # the largest first, each to the fold that has least
            min(filled, key=lambda f: sum(size[d] for d in f)).extend(groups[name])
        folds = {f"fold{i + 1}": sorted(ids) for i, ids in enumerate(filled)}
    if len(folds) < 2:
        raise DataError(f"{corpus.source} has one group by {plan.by}: nothing would be left to train on.")
    return {re.sub(r"[^\w.+=-]+", "-", name): ids for name, ids in folds.items()}


def check_speakers(corpus: Corpus, plan: FoldPlan) -> None:
    """Raise `DataError` where a speaker is in several sessions, which are left out for the sake of new speakers.

    Folds by speaker keep everybody's dialogues together by themselves; folds by another column promise nothing.
    """
    if plan.by not in _SESSION:
        return
    groups = groups_of(corpus, plan.by)
    if torn := speakers_in_several(corpus, groups):
        name, where = next(iter(torn.items()))
        raise DataError(
            f"{corpus.source}: {len(torn)} of {len(np.unique(corpus.speaker))} speakers are in several sessions, e.g. "
            f"{name!r} in {', '.join(where[:3])}: with one of these held out, the model would know its speakers, which "
            f"leaving a session out is to rule out. Correct 'speaker' or the sessions, or take folds by speaker "
            f"(--folds speaker)."
        )


def fold_split(
    folds: Mapping[str, Sequence[str]], held_out: str, plan: FoldPlan, fraction: float, seed: int
) -> dict[str, str]:
    """Dialogue id -> split, with one fold as the test split."""
    names = list(folds)
    mapping = {d: "test" if name == held_out else "train" for name, ids in folds.items() for d in ids}
    if plan.dev == "fold":
        if len(names) < 3:
            raise DataError("folds.dev: fold needs three folds or more: one to train on, one for dev, one for test")
        dev = set(folds[names[(names.index(held_out) + 1) % len(names)]])
    else:
        dev = draw_dev((d for d, s in mapping.items() if s == "train"), fraction, seed)
    return {d: "dev" if d in dev else s for d, s in mapping.items()}
