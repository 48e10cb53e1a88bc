"""From the run folders of a comparison to its rows: scores over seeds, and how each compares with its baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo.runs.config import model_title
from fusionzoo.runs.folder import read_predictions, read_result
from fusionzoo.scoring import statistics
from fusionzoo.scoring.metrics import MAIN, METRICS, scores_from_confusion

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ResultFile

#: Mean, sample deviation and interval of a score; None where undefined.
Spread = Mapping[str, float | None]
#: Seed -> dialogue -> confusion matrix.
Confusions = Mapping[int, Mapping[str, np.ndarray]]

#: Axes of a comparison besides host, fusion and seed, in the order in which tables name them.
AXES = ("data", "protocol", "objective")


@dataclass(frozen=True)
class Contestant:
    """What a row of a comparison is about.

    Parameters
    ----------
    host, fusion : their labels.
    axes : axis of `AXES` -> label, of those that vary in this comparison.
    """

    host: str
    fusion: str
    axes: tuple[tuple[str, str], ...] = ()

    @property
    def contest(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What it has in common with its baseline: everything but the fusion."""
        return self.host, self.axes

    @property
    def title(self) -> str:
        """In words."""
        return ", ".join([model_title(self.host, self.fusion), *(label for _, label in self.axes)])


@dataclass
class Row:
    """One host with one fusion over its seeds, on one data set, by one protocol, with one objective.

    Parameters
    ----------
    host, fusion : their labels.
    n : finished seeds; where a protocol has folds, those of which every fold has finished.
    dev, test : score -> `{"mean", "sd", "low", "high"}`, the interval being that of the mean over seeds (95 %, t).
    per_seed : seed -> test score, of the main metric.
    selection : the split on which epochs were chosen.
    parameters : that are trained.
    flops : per utterance, forward.
    seconds : of training, mean over seeds.
    difference : mean test score minus the baseline's on the same seeds, None for the baseline itself.
    p, p_holm : paired t-test over seeds, and after Holm's correction over the whole comparison.
    bootstrap : 95 % interval of the difference when the test dialogues are drawn anew.
    axes : axis of `AXES` -> label, of those that vary in this comparison; empty where only hosts and fusions do.
    failed : a run's name -> why it failed, of this row's runs.
    ceiling : the best test score that these data let anybody reach, where that is known.
    tuned : with `tune`, what was tried and chosen: one entry per study (one; with folds one for each), see
        `fusionzoo.experiments.tuning.Study.facts`.
    runs : seed -> its run folders, one or one per fold.
    baseline : the fusion that it is compared with, None for the baseline itself.
    pairs : how many seeds both have.
    dialogues : on how many test dialogues both were scored; 0 where these are not the same.
    p_permutation : exact paired permutation test over seeds, not corrected.
    order : almost stochastic order over the baseline: near 0 better in every quantile, near 1 worse in every one.
    smallest_seeds, smallest_dialogues : differences that so many seeds, and so many dialogues, show in 80 % of all cases; over
        seeds at the strictest step of Holm's correction.
    """

    host: str
    fusion: str
    n: int
    dev: dict[str, dict[str, float | None]]
    test: dict[str, dict[str, float | None]]
    per_seed: dict[int, float]
    selection: str
    parameters: int | None
    flops: float | None
    seconds: float | None
    difference: float | None = None
    p: float | None = None
    p_holm: float | None = None
    bootstrap: tuple[float, float] | None = None
    axes: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    ceiling: float | None = None
    tuned: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[int, list[Path]] = field(default_factory=dict)
    baseline: str | None = None
    pairs: int = 0
    dialogues: int = 0
    p_permutation: float | None = None
    order: float | None = None
    smallest_seeds: float | None = None
    smallest_dialogues: float | None = None

    @property
    def contestant(self) -> Contestant:
        """Its labels."""
        return Contestant(self.host, self.fusion, tuple(self.axes.items()))

    @property
    def over_seeds(self) -> bool:
        """Whether the difference from the baseline holds over seeds, corrected for the other comparisons."""
        return self.p_holm is not None and self.p_holm < statistics.ALPHA

    @property
    def over_dialogues(self) -> bool:
        """Whether it holds when the test dialogues are drawn anew."""
        return self.bootstrap is not None and (self.bootstrap[0] > 0 or self.bootstrap[1] < 0)

    @property
    def clear(self) -> bool:
        """Whether it holds over both."""
        return self.over_seeds and self.over_dialogues

    @property
    def gain(self) -> float:
        """The difference turned so that more is better; 0 where there is none."""
        return 0.0 if self.difference is None else METRICS[MAIN].gain(self.difference)


def summarise(groups: Mapping[Contestant, Mapping[int, Sequence[Path]]], baseline: str | None = None) -> list[Row]:
    """Rows of a comparison.

    Parameters
    ----------
    groups : contestant -> seed -> its run folders: one, or one per fold.
    baseline : the fusion that the others are tested against in each host, on each data set, by each protocol; None for
        the first one.
    """
    rows: list[Row] = []
    confusions: dict[Contestant, Confusions] = {}
    for who, by_seed in groups.items():
        seeds = {seed: s for seed in sorted(by_seed) if (s := _seed(by_seed[seed])) is not None}
        rows.append(_row(who, seeds))
        confusions[who] = {seed: s.confusions for seed, s in seeds.items() if s.test}
    baselines: dict[Any, Row] = {}
    for row in rows:
        if baseline in (None, row.fusion):
            baselines.setdefault(row.contestant.contest, row)
    compared: list[tuple[Row, list[float], list[float]]] = []
    for row in rows:
        against = baselines.get(row.contestant.contest, row)
        if row is not against:
            compared.append((row, *_compare(row, against, confusions)))
    for row, p in zip(rows, statistics.holm([r.p for r in rows]), strict=True):
        row.p_holm = p
    tests = max(1, sum(r.p is not None for r in rows))
    for row, mine, theirs in compared:
        row.smallest_seeds = statistics.smallest_over_seeds(mine, theirs, statistics.ALPHA / tests)
    return rows


@dataclass(frozen=True)
class _Seed:
    """What a contestant's runs with one seed came to: one run, or every fold.

    Over folds, the test score is that of all held-out predictions together: every utterance is tested once, as with a fixed
    split, and an F1 of sums is not biased as a mean of F1s is. Dev is the mean, since dev splits of folds overlap.
    """

    folders: list[Path]
    results: list[ResultFile]
    dev: Mapping[str, Any] | None
    test: Mapping[str, Any] | None
    confusions: Mapping[str, np.ndarray]


def _seed(folders: Sequence[Path]) -> _Seed | None:
    """None where a run is missing: a score over some of the folds is no score of the seed."""
    results = [r for f in folders if (r := read_result(f)) is not None]
    if not results or len(results) < len(folders):
        return None
    tested = all(r["test"] for r in results)
    confusions: dict[str, np.ndarray] = {}
    for folder, result in zip(folders, results, strict=True):
        confusions |= _test_confusions(folder, result) if tested else {}
    if len(results) == 1:
        return _Seed(list(folders), results, results[0]["dev"], results[0]["test"], confusions)
    of: dict[str, list[Any]] = {split: [r[split] for r in results] for split in ("dev", "test")}
    dev = {k: float(np.mean([s[k] for s in of["dev"]])) for k in METRICS} if all(of["dev"]) else None
    pooled = np.sum([np.asarray(s["confusion"]) for s in of["test"]], axis=0) if tested else None
    test = None if pooled is None else {k: float(v) for k, v in scores_from_confusion(pooled).items()}
    return _Seed(list(folders), results, dev, test, confusions)


def _test_confusions(folder: Path, result: ResultFile) -> dict[str, np.ndarray]:
    assert result["test"] is not None  # asked by the caller
    return statistics.dialogue_confusions(read_predictions(folder, result), "test", list(result["test"]["per_class"]))


def _row(who: Contestant, seeds: Mapping[int, _Seed]) -> Row:
    """What one contestant's runs say by themselves."""
    scores: dict[str, list[Any]] = {s: [x for r in seeds.values() if (x := getattr(r, s))] for s in ("dev", "test")}
    dev, test = ({k: statistics.mean_interval([x[k] for x in of]) for k in METRICS} for of in scores.values())
    first = next((s.results[0] for s in seeds.values()), None)
    return Row(
        host=who.host,
        fusion=who.fusion,
        n=len(seeds),
        dev=dev,
        test=test,
        per_seed={seed: s.test[MAIN] for seed, s in seeds.items() if s.test},
        selection=first["selection"] if first else "",
        parameters=first["parameters"] if first else None,
        flops=first["flops_per_utterance"] if first else None,
        seconds=float(np.mean([sum(r["seconds"] for r in s.results) for s in seeds.values()])) if seeds else None,
        axes=dict(who.axes),
        runs={seed: s.folders for seed, s in seeds.items()},
    )


def _compare(row: Row, baseline: Row, confusions: Mapping[Contestant, Confusions]) -> tuple[list[float], list[float]]:
    """The row beside its baseline, on the seeds that both have: writes what follows, and gives the scores of both."""
    seeds = sorted(row.per_seed.keys() & baseline.per_seed.keys())
    a, b = ([r.per_seed[s] for s in seeds] for r in (row, baseline))
    row.baseline, row.pairs = baseline.fusion, len(seeds)
    if not seeds:
        return a, b
    row.difference = float(np.mean(a) - np.mean(b))
    mine, theirs = ([confusions[r.contestant][s] for s in seeds] for r in (row, baseline))
    row.dialogues = len(mine[0]) if all(m.keys() == mine[0].keys() for m in (*mine, *theirs)) else 0
    samples = statistics.bootstrap_differences(mine, theirs)
    if samples is not None:
        row.bootstrap = statistics.percentiles(samples, row.dialogues)
        row.smallest_dialogues = statistics.smallest_over_dialogues(samples, row.dialogues)
    if len(seeds) >= statistics.FEWEST_SEEDS:
        row.p, row.p_permutation = statistics.paired_p(a, b), statistics.permutation_p(a, b)
        gains, others = ([METRICS[MAIN].gain(x) for x in side] for side in (a, b))
        row.order = statistics.almost_stochastic_order(gains, others)
    return a, b


def ranks_of(rows: Sequence[Row]) -> statistics.Ranks | None:
    """The fusions ranked over the blocks in which all of them finished; None with fewer than three of either."""
    fusions = list(dict.fromkeys(r.fusion for r in rows if r.per_seed))
    means = {
        (r.contestant.contest, r.fusion): METRICS[MAIN].gain(m) for r in rows if (m := r.test[MAIN]["mean"]) is not None
    }
    blocks = [b for b in dict.fromkeys(r.contestant.contest for r in rows) if all((b, f) in means for f in fusions)]
    if len(fusions) < 3 or len(blocks) < 3:
        return None
    return statistics.rank_over_blocks({f: [means[b, f] for b in blocks] for f in fusions})
