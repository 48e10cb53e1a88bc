"""Where a model is right and wrong: by class, speaker, length of the dialogue, and whether the speaker's emotion has just shifted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fusionzoo.scoring.diagnostics.predicted import Finding, between, points

if TYPE_CHECKING:
    from fusionzoo.scoring.diagnostics.predicted import Predicted

#: Fewer utterances of a speaker say nothing about that speaker.
FEWEST = 20
#: An F1 below this is named.
_LOW_F1 = 0.1

SHIFT, STAY, FIRST = "emotion shifts", "emotion stays", "speaker's first"


@dataclass(frozen=True)
class Group:
    """Utterances that have something in common.

    Parameters
    ----------
    name : what that is.
    count : utterances.
    dialogues : that they come from.
    scores : every metric of them.
    """

    name: str
    count: int
    dialogues: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Confused:
    """A class: its scores, and the class that it is taken for most often (None where all are right)."""

    name: str
    support: int
    precision: float
    recall: float
    f1: float
    taken_for: str | None
    share: float


@dataclass(frozen=True)
class Groups:
    """Scores by what utterances have in common.

    Parameters
    ----------
    classes : in the order of the corpus.
    speakers : those with at least `FEWEST` utterances, the worst first.
    lengths : dialogues in thirds, the shortest first.
    shifts : the speaker's emotion differs from that of their utterance before, is the same, or is their first.
    stuck : share of the utterances with a shift that are given the emotion before it.
    differences : what is compared -> difference in accuracy and its interval over dialogues.
    """

    classes: tuple[Confused, ...]
    speakers: tuple[Group, ...]
    lengths: tuple[Group, ...]
    shifts: tuple[Group, ...]
    stuck: float | None
    differences: Mapping[str, tuple[float, tuple[float, float] | None]]

    def findings(self) -> list[Finding]:
        """Classes that are missed, and groups that are clearly worse."""
        found = []
        for c in self.classes:
            taken = f"; {100 * c.share:.0f} % of it is taken for {c.taken_for}" if c.taken_for else ""
            if c.support and c.f1 < _LOW_F1:
                found.append(
                    Finding("groups", f"misses {c.name}: F1 {points(c.f1)} of {c.support} utterances{taken}", True)
                )
        for what, (difference, interval) in self.differences.items():
            if interval is not None and (interval[1] < 0 or interval[0] > 0):
                word = "less" if difference < 0 else "more"
                words = f"is right {word} often {what}: accuracy {points(difference, sign=True)}{between(interval)}"
                found.append(Finding("groups", words))
        if self.stuck is not None and self.stuck > 0.5:
            share = f"{100 * self.stuck:.0f} %"
            found.append(
                Finding(
                    "groups",
                    f"repeats the past: of the utterances where the emotion shifts, {share} get the one before",
                    True,
                )
            )
        return found


def groups_of(predicted: Predicted) -> Groups:
    """Scores of a split by class, speaker, dialogue length and emotion shift."""
    corpus, rows = predicted.corpus, predicted.rows
    before = emotions_before(corpus.dialogue_id, corpus.speaker, corpus.label)[rows]
    shifted, stayed = (before >= 0) & (before != predicted.true), (before >= 0) & (before == predicted.true)
    shift_groups = {SHIFT: shifted, STAY: stayed, FIRST: before < 0}
    lengths = _thirds(predicted)
    speakers = _speakers(predicted)
    differences = {"where the speaker's emotion shifts than where it stays": _difference(predicted, shifted, stayed)}
    if len(lengths) > 1:
        (_, short), *_, (_, long) = lengths.items()
        differences["in the longest third of the dialogues than in the shortest"] = _difference(predicted, long, short)
    # Each speaker is held against all others, so that the intervals are wider the more speakers there are.
    level = 1 - 0.05 / max(len(speakers), 1)
    for name, mine in speakers.items() if len(speakers) > 1 else ():
        differences[f"with speaker {name} than with the others"] = _difference(predicted, mine, ~mine, level)
    return Groups(
        classes=_classes(predicted),
        speakers=tuple(sorted((_group(predicted, n, g) for n, g in speakers.items()), key=lambda g: g.scores["wa"])),
        lengths=tuple(_group(predicted, n, g) for n, g in lengths.items()),
        shifts=tuple(_group(predicted, n, g) for n, g in shift_groups.items() if g.any()),
        stuck=float((predicted.predicted[shifted] == before[shifted]).mean()) if shifted.any() else None,
        differences={what: d for what, d in differences.items() if d is not None},
    )


def emotions_before(dialogue: np.ndarray, speaker: np.ndarray, label: np.ndarray) -> np.ndarray:
    """`(N,)` label of the same speaker's last labelled utterance in the dialogue before each one, -1 where there is none."""
    last: dict[tuple[str, str], int] = {}
    out = np.full(len(label), -1, dtype=np.int64)
    for i, (d, s, c) in enumerate(zip(dialogue.tolist(), speaker.tolist(), label.tolist(), strict=True)):
        out[i] = last.get((d, s), -1)
        if c >= 0:
            last[d, s] = c
    return out


def _classes(predicted: Predicted) -> tuple[Confused, ...]:
    from fusionzoo.scoring.metrics import Counts

    names = predicted.corpus.label_names
    counts = Counts(sum(predicted.confusions().values()))
    wrong = counts.confusion - np.diag(counts.right)
    out = []
    for i, name in enumerate(names):
        most = int(wrong[i].argmax())
        share = float(wrong[i, most] / max(counts.support[i], 1))
        precision, recall, f1 = (float(x[i]) for x in (counts.precision, counts.recall, counts.f1))
        taken_for = names[most] if share else None
        out.append(Confused(name, int(counts.support[i]), precision, recall, f1, taken_for, share))
    return tuple(out)


def _speakers(predicted: Predicted) -> dict[str, np.ndarray]:
    spoken = predicted.corpus.speaker[predicted.rows]
    names, count = np.unique(spoken, return_counts=True)
    return {str(n): spoken == n for n, k in zip(names, count, strict=True) if k >= FEWEST}


def _thirds(predicted: Predicted) -> dict[str, np.ndarray]:
    """Dialogues by their length, in three parts of about as many dialogues; fewer where lengths are alike."""
    ids, lengths = np.unique(predicted.corpus.dialogue_id, return_counts=True)
    length = dict(zip(ids.tolist(), lengths.tolist(), strict=True))
    mine = np.array([length[d] for d in predicted.corpus.dialogue_id[predicted.rows].tolist()])
    here = np.array([length[d] for d in np.unique(predicted.corpus.dialogue_id[predicted.rows]).tolist()])
    part = np.searchsorted(np.quantile(here, [1 / 3, 2 / 3], method="lower"), mine, side="left")
    groups = {}
    for i in range(3):
        inside = part == i
        if inside.any():
            low, high = int(mine[inside].min()), int(mine[inside].max())
            groups[f"{low} utterances" if low == high else f"{low} to {high} utterances"] = inside
    return groups


def _group(predicted: Predicted, name: str, chosen: np.ndarray) -> Group:
    dialogues = len(np.unique(predicted.dialogue[chosen]))
    return Group(name, int(chosen.sum()), dialogues, predicted.score(chosen))


def _difference(
    predicted: Predicted, a: np.ndarray, b: np.ndarray, level: float = 0.95
) -> tuple[float, tuple[float, float] | None] | None:
    """Accuracy on `a` minus accuracy on `b`, and its interval; None where one of them is too small."""
    if min(a.sum(), b.sum()) < FEWEST:
        return None
    right = predicted.predicted == predicted.true
    columns = np.stack([right & a, a, right & b, b], 1).astype(np.float64)
    interval = predicted.interval(columns, lambda s: s[:, 0] / s[:, 1] - s[:, 2] / s[:, 3], level)
    return float(right[a].mean() - right[b].mean()), interval
