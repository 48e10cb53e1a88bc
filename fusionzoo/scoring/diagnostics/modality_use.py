"""What a model makes of each modality: taken away, alone, permuted, and missing more and more often.

Taking a modality away shows what a model does without it, which it may never have been trained for. Permuting it keeps
the modality as it is and only hands each utterance somebody else's, so that what is lost is what the model read there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fusionzoo.errors import FusionZooError
from fusionzoo.scoring.diagnostics.predicted import (
    Finding,
    Predicted,
    between,
    main_short,
    points,
    predict_split,
    scores_of,
)
from fusionzoo.scoring.metrics import MAIN
from fusionzoo.scoring.statistics import bootstrap_difference

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.host import Host

#: A loss of the main score that is none: what costs less, with certainty, is not read.
MARGIN = 0.01
#: Probabilities that differ by no more than this are the same but for rounding.
_ROUNDING = 1e-5
RATES = (0.25, 0.5, 0.75, 1.0)
#: Any modality, each by itself; one is always left.
ANY = "any"


@dataclass(frozen=True)
class Permuted:
    """What permuting one modality among the utterances of a split costs.

    Parameters
    ----------
    modality : its name.
    drop : main score of the model minus that with the modality permuted, averaged over permutations.
    interval : 95 % of it when the dialogues are drawn anew.
    moved : mean share of probability that moves from one class to others; zero for a modality that is not read.
    flipped : share of utterances whose predicted class changes.
    """

    modality: str
    drop: float
    interval: tuple[float, float] | None
    moved: float
    flipped: float

    def finding(self, score: float) -> Finding:
        """What it says of a model with this main score."""
        m, short = self.modality, main_short()
        costs = f"permuting it costs {short} {points(self.drop)}{between(self.interval)} of {points(score)}"
        if self.moved <= _ROUNDING:
            return Finding("modalities", f"ignores {m}: permuting it changes nothing, no output moves", grave=True)
        if self.interval is None:
            return Finding("modalities", f"{m}: {costs}; one dialogue says nothing about how certain that is")
        if self.interval[1] < 0:
            return Finding(
                "modalities", f"is misled by {m}: permuting it raises {short} by {points(-self.drop)}", grave=True
            )
        if self.interval[1] < MARGIN:
            return Finding("modalities", f"ignores {m}: {costs}, which is less than {points(MARGIN)}", grave=True)
        if self.interval[0] > 0:
            return Finding("modalities", f"reads {m}: {costs}")
        return Finding("modalities", f"{m} may be worth nothing: {costs}, and so few dialogues cannot tell")


@dataclass(frozen=True)
class ModalityUse:
    """How a model depends on its modalities.

    Parameters
    ----------
    scores : main score and others of the model as it is.
    majority : main score of always saying the split's most frequent class.
    permuted : one per modality.
    without, alone : modality -> main score with it taken away, and with all others taken away; None where the model
        refuses that.
    missing : modality, or `any` -> share of utterances that lack it -> main score.
    refused : why the model takes no missing modality; empty where it does.
    """

    scores: Mapping[str, float]
    majority: float
    permuted: tuple[Permuted, ...]
    without: Mapping[str, float | None]
    alone: Mapping[str, float | None]
    missing: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    refused: str = ""

    def findings(self) -> list[Finding]:
        """What each modality is worth, and where the model breaks without one."""
        score = self.scores[MAIN]
        found = [p.finding(score) for p in self.permuted]
        for m, left in self.without.items():
            if left is not None and left <= self.majority < score:
                words = (
                    f"breaks without {m}: {main_short()} {points(left)}, no better than the most frequent class alone"
                )
                found.append(Finding("modalities", f"{words} ({points(self.majority)})", grave=len(self.without) > 2))
        return found


def modality_use(
    host: Host,
    corpus: Corpus,
    split: str = "test",
    *,
    base: Predicted | None = None,
    repeats: int = 5,
    rates: Sequence[float] = RATES,
    seed: int = 0,
    batch_size: int = 16,
    step: Callable[[], None] = lambda: None,
) -> ModalityUse:
    """Measure how a host depends on its modalities on one split.

    Parameters
    ----------
    host : trained.
    corpus : with its modalities; best that split alone, see `Corpus.at`, since each alteration copies its features.
    split : its name.
    base : what the host says of the split, if that is known.
    repeats : permutations of each modality.
    rates : shares of utterances that lack a modality, in rising order.
    seed : of permutations and of which utterances lack one; the utterances that lack it at a rate lack it at every higher one.
    batch_size : dialogues at a time.
    step : called after each of the `steps_of` predictions.
    """
    probe = _Probe(host, corpus, split, batch_size, np.random.default_rng(seed), step)
    base = predict_split(host, corpus, split, batch_size) if base is None else base
    permuted = tuple(probe.permute(m, base, repeats) for m in corpus.modalities)
    often = np.bincount(base.true, minlength=corpus.num_classes).argmax()
    majority = scores_of(base.true, np.full_like(base.true, often), corpus.num_classes)[MAIN]
    without: dict[str, float | None] = dict.fromkeys(corpus.modalities)
    alone: dict[str, float | None] = dict.fromkeys(corpus.modalities)
    missing: dict[str, dict[float, float]] = {}
    refused = ""
    try:
        for m in corpus.modalities:
            without[m] = probe.without({m})
            alone[m] = probe.without(set(corpus.modalities) - {m})
        missing = probe.curves(rates, base.main, without)
    except FusionZooError as error:  # a fusion that was built with missing="error"
        refused = str(error)
    return ModalityUse(base.score(), majority, permuted, without, alone, missing, refused)


def steps_of(modalities: int, repeats: int = 5, rates: Sequence[float] = RATES) -> int:
    """How many predictions of the split `modality_use` makes, for a bar that shows how far it is."""
    between_ends = sum(r < 1 for r in rates)
    return modalities * (repeats + 2) + (modalities + 1) * between_ends


@dataclass(frozen=True)
class _Probe:
    host: Host
    corpus: Corpus
    split: str
    batch_size: int
    rng: np.random.Generator
    step: Callable[[], None]

    def predict(self, corpus: Corpus) -> Predicted:
        predicted = predict_split(self.host, corpus, self.split, self.batch_size)
        self.step()
        return predicted

    def permute(self, modality: str, base: Predicted, repeats: int) -> Permuted:
        runs = [self.predict(self._permuted(modality)) for _ in range(repeats)]
        mine = [base.confusions()] * repeats
        moved = [0.5 * np.abs(r.probabilities - base.probabilities).sum(1).mean() for r in runs]
        return Permuted(
            modality=modality,
            drop=base.main - float(np.mean([r.main for r in runs])),
            interval=bootstrap_difference(mine, [r.confusions() for r in runs]) if len(mine[0]) > 1 else None,
            moved=float(np.mean(moved)),
            flipped=float(np.mean([(r.predicted != base.predicted).mean() for r in runs])),
        )

    def _permuted(self, modality: str) -> Corpus:
        """Each utterance that has the modality with that of another one which has it: who lacks it stays as it is."""
        rows = np.flatnonzero((self.corpus.split == self.split) & self.corpus.present.get(modality, True))
        source = np.arange(len(self.corpus))
        source[rows] = self.rng.permutation(rows)
        features = self.corpus.features | {modality: self.corpus.features[modality][source]}
        return replace(self.corpus, features=features)

    def without(self, modalities: set[str]) -> float:
        return self._with({m: np.zeros(len(self.corpus), dtype=bool) for m in modalities})

    def curves(
        self, rates: Sequence[float], base: float, without: Mapping[str, float | None]
    ) -> dict[str, dict[float, float]]:
        """Modality -> rate -> main score; at 0 and 1 what is known already."""
        inner = [r for r in rates if r < 1]
        order = {m: self.rng.random(len(self.corpus)) for m in self.corpus.modalities}
        out: dict[str, dict[float, float]] = {}
        for m in self.corpus.modalities:
            out[m] = {0.0: base} | {r: self._with({m: order[m] >= r}) for r in inner}
            if (left := without[m]) is not None:
                out[m][1.0] = left
        spared = self.rng.integers(len(order), size=len(self.corpus))
        out[ANY] = {0.0: base}
        for r in inner:
            out[ANY][r] = self._with({m: (u >= r) | (spared == i) for i, (m, u) in enumerate(order.items())})
        return out

    def _with(self, there: Mapping[str, np.ndarray]) -> float:
        present = dict(self.corpus.present)
        for m, kept in there.items():
            present[m] = kept & present.get(m, True)
        return self.predict(replace(self.corpus, present=present)).main
