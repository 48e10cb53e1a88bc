"""Cross-validation: leave one session, speaker or group out, or k folds; one run folder per fold, resumable.

In every fold the held-out part is the test split and the rest is train, of which dev is drawn (`data.dev_fraction`) or, with
`dev: fold`, is the next fold as a whole. So the held-out part is touched once, unless a published protocol chooses the
epoch on it, which every report says in red.
"""

from __future__ import annotations

import copy
import re
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._installed import described
from fusionzoo._schema import shown
from fusionzoo._text import markdown_table, markup, visible
from fusionzoo.data.leaks import Rows, speakers_in_several
from fusionzoo.data.splits import draw_dev
from fusionzoo.errors import ConfigError, DataError, DataWarning, OptionError, close_matches_hint
from fusionzoo.reporting import run as report
from fusionzoo.runs.config import RunConfig
from fusionzoo.runs.files import write_json, write_text
from fusionzoo.runs.folder import anchor_paths, clear_run, kept, load_corpus
from fusionzoo.scoring.metrics import SCORES, SHORT_NAMES, scores_from_confusion
from fusionzoo.scoring.published import published_lines
from fusionzoo.scoring.statistics import mean_interval

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus

#: Other words for the speaker, and the columns that a release's reader or the field uses for sessions.
_SPEAKER = ("speaker", "actor", "subject")
_SESSION = ("session", "fold")
_IEMOCAP = re.compile(r"Ses(\d\d)")


@dataclass(frozen=True)
class FoldPlan:
    """What is held out together, and how many folds.

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
    def read(cls, given: str | int | Mapping[str, Any] | FoldPlan | None) -> FoldPlan | None:
        """`5`, `"session"`, `"speaker:5"`, `{"by": "speaker", "k": 5}`; None and `"none"` are no folds."""
        if given is None or given == "none":
            return None
        if isinstance(given, FoldPlan):
            return given
        values: dict[str, Any] = {}
        if isinstance(given, Mapping):
            values = dict(given)
        else:
            by, _, k = str(given).rpartition(":") if ":" in str(given) else (str(given), "", "")
            values = {"k": by} if by.isdigit() else {"by": by, **({"k": k} if k else {})}
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


# ---------------------------------------------------------------------- who is held out


def groups_of(corpus: Corpus, by: str) -> dict[str, list[str]]:
    """Group -> its dialogue ids, both sorted. Raises `DataError` where the data do not say, or a dialogue is in two."""
    dialogues = corpus.dialogues()
    if by == "dialogue":
        return {d.id: [d.id] for d in dialogues}
    if by in _SPEAKER:
        return _by_speaker(corpus)
    column = next((c for c in (_SESSION if by in _SESSION else (by,)) if c in corpus.extras), None)
    if column is not None:
        values = corpus.extras[column].astype(str)
        if values.ndim != 1:
            raise DataError(
                f"{corpus.source}: folds by {by!r} need one value per utterance, the column is {values.shape}."
            )
        found = {d.id: sorted(set(values[d.start : d.stop].tolist())) for d in dialogues}
    elif by == "session" and all(_IEMOCAP.match(d.id) for d in dialogues):
        found = {d.id: [f"Session{int(_IEMOCAP.match(d.id)[1])}"] for d in dialogues}  # type: ignore[index]
    else:
        known = ["dialogue", "speaker", *(c for c, x in corpus.extras.items() if x.ndim == 1 and x.dtype.kind in "US")]
        raise DataError(
            f"{corpus.source} says nothing about {by!r}{close_matches_hint(by, known) or '.'} Folds can be made by: "
            f"{', '.join(known)}, and by session where there is a column 'session' or 'fold'."
        )
    groups: dict[str, list[str]] = {}
    for dialogue, values in found.items():
        if len(values) > 1:
            raise DataError(
                f"{corpus.source}: dialogue {dialogue!r} is in several groups of {by!r} ({', '.join(values[:4])}), so that "
                f"none of them can be held out; use folds by dialogue."
            )
        if not values[0]:
            continue  # in no group: always train
        groups.setdefault(values[0], []).append(dialogue)
    return {name: sorted(groups[name]) for name in sorted(groups)}


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


# ---------------------------------------------------------------------- the runs


@dataclass
class CrossValidation:
    """Finished folds: `rows` (one per fold and seed: `fold`, `seed`, `epoch`, `utterances` and the held-out scores), `mean`
    (metric -> mean and deviation over folds), `pooled` (scores of all held-out predictions together) and `failed`."""

    folder: Path
    plan: FoldPlan
    rows: list[dict[str, Any]]
    mean: dict[str, dict[str, float | None]]
    pooled: dict[str, float]
    failed: dict[str, str]
    selection: str
    recipe: Mapping[str, Any] | None = None
    is_main: bool = True

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and cells: a line per fold and seed, then mean and deviation over folds, then all predictions pooled."""
        header = ["fold", "seed", "epoch", "utterances", *(SHORT_NAMES[k] for k in SCORES)]
        cells = [
            [r["fold"], str(r["seed"]), str(r["epoch"]), str(r["utterances"]), *(f"{r[k]:.4f}" for k in SCORES)]
            for r in self.rows
        ]

        def spread(value: Mapping[str, float | None]) -> str:
            if value["mean"] is None:
                return ""
            return f"{value['mean']:.4f}" + ("" if value["sd"] is None else f" ± {value['sd']:.4f}")

        if self.rows:
            cells.append(["mean ± sd over folds", "", "", "", *(spread(self.mean[k]) for k in SCORES)])
            count = str(sum(r["utterances"] for r in self.rows))
            cells.append(["all predictions", "", "", count, *(f"{self.pooled[k]:.4f}" for k in SCORES)])
        return header, cells

    @property
    def warnings(self) -> list[str]:
        """What stands in red."""
        red = [report.TEST_SELECTED] if self.selection == "test" else []
        return [*red, *(f"FAILED {name}: {visible(message)}" for name, message in self.failed.items())]

    def __str__(self) -> str:
        header, cells = self.table()
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in (header, *cells)]
        if self.recipe is not None:
            lines += published_lines(self.recipe, {k: v["mean"] for k, v in self.mean.items()})
        return "\n".join([*lines, *self.warnings, f"report: {self.folder / 'report.html'}"])


def cross_validate(
    config: RunConfig | Mapping[str, Any] | str | Path,
    out: str | Path,
    folds: str | int | Mapping[str, Any] | FoldPlan,
    *,
    seeds: Sequence[int] | None = None,
    quiet: bool = False,
    corpus: Corpus | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> CrossValidation:
    """Train and test once for every fold, and report the mean and the deviation.

    Parameters
    ----------
    config : what all folds share; its `data.dev_fraction` and `data.split_seed` draw dev in every fold.
    out : a folder; each fold is a run folder `runs/<fold>__seed<k>`, its split lies in `splits/<fold>.json`. Finished folds
        are kept when the command is given again, interrupted ones go on from their checkpoint.
    folds : see `FoldPlan.read`. seeds : None is `training.seed` alone.
    corpus : data already in memory. recipe : as for `train`.

    Leaves `summary.json`, `summary.md` and `report.html`. Raises what `train` raises before the first fold; a fold that
    fails later is noted in `failed`.
    """
    from fusionzoo.runs.models import corpus_sha256, resolved, settle_fusion
    from fusionzoo.training.trainer import train

    plan = FoldPlan.read(folds)
    if plan is None:
        raise OptionError("cross-validation needs folds: session, speaker, a number, or speaker:5")
    base = copy.deepcopy(config) if isinstance(config, RunConfig) else RunConfig.from_sources(config)
    if base.data.split is not None:
        raise OptionError("--split and --folds exclude each other: the folds are the split")
    folder, say = Path(out), (lambda _text: None) if quiet else _say
    anchor_paths(base.data)
    if corpus is None:
        corpus = load_corpus(base.data)
    settle_fusion(base, corpus)
    parts = make_folds(corpus, plan)
    check_speakers(corpus, plan)
    rows_of = Rows(corpus)
    leaks: dict[str, list[str]] = {}
    base = resolved(base, corpus)
    chosen = [base.training.seed] if seeds is None else list(seeds)
    failed: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    confusion: Any = 0
    is_main, number = True, 0
    for seed in chosen:
        for name in parts:
            number += 1
            mapping = dict.fromkeys((d.id for d in corpus.dialogues()), "train")
            mapping |= fold_split(parts, name, plan, base.data.dev_fraction, base.data.split_seed)
            path = folder / "splits" / f"{name}.json"
            _write_split(path, mapping)
            data = {**base.data.to_dict(), "split": str(path.resolve()), "merge_dev": False, "dev_fraction": 0.0}
            run = base.replaced(data=data, training__seed=seed)
            here = corpus.with_split(mapping, origin=f"fold {name}")
            if name not in leaks:
                leaks[name] = rows_of.leaks(here.split)
                for leak in leaks[name]:
                    warnings.warn(f"{corpus.source}, fold {name} held out: {leak}", DataWarning, stacklevel=2)
            here.info = here.info | {"leaks": leaks[name]}
            target = folder / "runs" / f"{name}__seed{seed}"
            result, why = kept(target, run, corpus_sha256(here))
            if why:
                say(f"{target.name}: {why}; running it again")
                clear_run(target)
            before = result is not None
            if result is None:
                try:
                    done = train(run, target, resume=True, quiet=True, corpus=here, recipe=recipe)
                except BaseException as error:  # a plugin that exits ends its own fold and no other
                    if number == 1 or isinstance(error, KeyboardInterrupt):
                        raise
                    write_text(target / "failure.txt", traceback.format_exc())
                    failed[target.name] = described(error)
                    say(f"[{number}/{len(chosen) * len(parts)}] {target.name} FAILED: {error}")
                    continue
                result, is_main = done.result, done.is_main
            scores = result["test"]
            if not scores:
                raise DataError(f"{corpus.source}: the fold {name!r} has no labelled utterance; choose other folds.")
            confusion = confusion + np.asarray(scores["confusion"])
            facts = {k: scores[k] for k in (*SCORES, "utterances")}
            rows.append({"fold": name, "seed": seed, "epoch": result["epoch"], **facts})
            say(
                f"[{number}/{len(chosen) * len(parts)}] {target.name}: UA {scores['ua']:.4f}, WA {scores['wa']:.4f}, "
                f"W-F1 {scores['weighted_f1']:.4f}" + (" (finished before)" if before else "")
            )
    mean = {k: mean_interval(_per_fold(rows, k)) for k in SCORES}
    pooled = {k: float(scores_from_confusion(confusion)[k]) for k in SCORES} if rows else {}
    done = CrossValidation(folder, plan, rows, mean, pooled, failed, base.training.selection, recipe, is_main)
    if is_main:
        _write(done, base, corpus)
    return done


def _per_fold(rows: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """A metric of every fold, averaged over its seeds."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["fold"], []).append(row[metric])
    return [float(np.mean(v)) for v in values.values()]


def _write_split(path: Path, mapping: Mapping[str, str]) -> None:
    content: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for dialogue, split in sorted(mapping.items()):
        content[split].append(dialogue)
    write_json(path, content)


def _write(done: CrossValidation, base: RunConfig, corpus: Corpus) -> None:
    """`config.yaml`, `summary.json`, `summary.md` and `report.html`."""
    folder, (header, cells) = done.folder, done.table()
    write_text(folder / "config.yaml", base.to_yaml())
    write_json(
        folder / "summary.json",
        {
            "format": 1,
            "data": {"name": corpus.name, "info": corpus.info},
            "folds": {"by": done.plan.by, "k": done.plan.k, "seed": done.plan.seed, "dev": done.plan.dev},
            "selection": done.selection,
            "recipe": done.recipe,
            "rows": done.rows,
            "mean": done.mean,
            "pooled": done.pooled,
            "failed": done.failed,
        },
    )
    lines = markdown_table(header, cells)
    about = f"{corpus.name}: {done.plan}; epoch chosen on {done.selection}."
    words = [about]
    parts = [report.paragraph(w, "warning") for w in done.warnings]
    if done.recipe is not None:
        means = {k: v["mean"] for k, v in done.mean.items()}
        parts += report.published_part(done.recipe, [("here, mean of folds", means)])
        words += published_lines(done.recipe, means)
    write_text(folder / "summary.md", "\n".join([*words, "", *lines, "", *(f"**{w}**" for w in done.warnings), ""]))
    parts += [report.paragraph(about), report.table(header, cells)]
    parts.append(f"<h2>Shared configuration</h2><pre>{markup(base.to_yaml())}</pre>")
    write_text(folder / "report.html", report.page(f"Cross-validation of {base.title}", parts))


def _say(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)
