"""The same budget for every fusion: N trials of one search space on dev data, then the seeds with what was chosen.

A study is one model on one data set (with folds: on one fold, so that nothing is chosen by what another fold tests). The
first trial has the values that the model has anyway; the others come from Optuna's TPE, and a median pruner ends those that
fall behind. Labels of the test split are taken out of the data before the first trial: nothing here can see them.

The trials of a study run one after the other and each draws from a generator of its own number, so that what is chosen
depends neither on the engine nor on how often the study was interrupted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionzoo._files import write_json, write_text
from fusionzoo._installed import described
from fusionzoo._progress import Bar
from fusionzoo._schema import read_json
from fusionzoo.data.conventions import UNLABELLED
from fusionzoo.errors import CheckpointError, ConfigError, FusionZooError, MissingDependency, TrainingError
from fusionzoo.experiments.engines import Engine
from fusionzoo.experiments.runner import epochs_done, following, same_corpus
from fusionzoo.experiments.search_space import Values, check_asked, space_of
from fusionzoo.runs.config import RunConfig, flatten
from fusionzoo.runs.data_section import corpus_sha256
from fusionzoo.runs.models import built
from fusionzoo.scoring.metrics import METRICS
from fusionzoo.training.progress import Progress
from fusionzoo.training.setup import make_accelerator, torch_settings
from fusionzoo.training.trainer import Trainer

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus

#: What a study leaves in its folder beside Optuna's journal: see `Study.facts`.
FACTS, JOURNAL = "study.json", "journal.log"


def check_tuning(trials: int) -> None:
    """Raise where tuning cannot begin.

    Raises
    ------
    MissingDependency : Optuna is not installed.
    ConfigError : a number of trials that is none.
    """
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise ConfigError(f"tune, the number of trials for every fusion, must be 1 or more, not {trials!r}")
    _optuna()


@dataclass(frozen=True)
class Study:
    """The trials of one model.

    Parameters
    ----------
    config : the model as it is anyway, every option with its value.
    folder : the study's.
    trials : how many.
    space : option -> values.
    view, data : as for a task.
    fold : the name of what is held out, None with the splits of the data.
    fixed : options that are left as they are.
    """

    config: RunConfig
    folder: Path
    trials: int
    space: Mapping[str, Values] = field(default_factory=dict)
    view: Callable[[Corpus], Corpus] = same_corpus
    data: str = ""
    fold: str | None = None
    fixed: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def default(self) -> dict[str, Any]:
        """The values that the model has anyway."""
        have = flatten(self.config.to_dict())
        return {k: have[k] for k in self.space}

    def fingerprint(self, corpus: Corpus) -> str:
        """Hash of everything that decides a trial."""
        parts = [self.config.fingerprint(), corpus_sha256(self.seen(corpus)), self.space]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def seen(self, corpus: Corpus) -> Corpus:
        """What trials see: the data without the labels of the test split."""
        corpus = self.view(corpus)
        return dataclasses.replace(corpus, label=np.where(corpus.split == "test", UNLABELLED, corpus.label))

    def written(self) -> dict[str, Any]:
        """What lies in its folder, empty where nothing does."""
        path = self.folder / FACTS
        return dict(read_json(dict[str, Any], path, CheckpointError)) if path.exists() else {}

    def facts(self, trials: list[dict[str, Any]], fingerprint: str) -> dict[str, Any]:
        """What the study came to: `trials` (number, state, score, epochs, seconds, values), and what was `chosen`."""
        whole = [t for t in trials if t["state"] == "complete"]
        gain = METRICS[self.config.training.metric].gain
        best = max(whole, key=lambda t: (gain(t["score"]), -t["number"])) if whole else None
        return {
            "format": 1,
            "fingerprint": fingerprint,
            "fold": self.fold,
            "seed": self.config.training.seed,
            "metric": self.config.training.metric,
            "space": dict(self.space),
            "default": self.default,
            "chosen": best["values"] if best else None,
            "score": best["score"] if best else None,
            "trials": trials,
        }

    def progress(self) -> float:
        """The share of its trials that is done."""
        try:
            done = len(self.written().get("trials", ()))
        except CheckpointError:
            return 0.0
        under_way = epochs_done(self.trial_folder(done), self.config)
        return min((done + under_way) / self.trials, 1.0)

    def trial_folder(self, number: int) -> Path:
        """Where a trial has its checkpoints while it is under way."""
        return self.folder / "trials" / f"{number:03d}"

    def run(self, corpus: Corpus) -> dict[str, Any] | Exception:
        """What the study came to, going on where it stopped; the error if it failed, its traceback in `failure.txt`."""
        try:
            return _Trials(self, corpus).run()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin that exits ends its own study and no other
            write_text(self.folder / "failure.txt", traceback.format_exc())
            return error if isinstance(error, Exception) else TrainingError(f"the study ended with {described(error)}")


class _Trials:
    """A study under way."""

    def __init__(self, study: Study, corpus: Corpus):
        self.study, self.corpus = study, study.seen(corpus)
        self.fingerprint = study.fingerprint(corpus)
        self.optuna = _optuna()
        study.folder.mkdir(parents=True, exist_ok=True)
        epochs = study.config.training.epochs
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        backend = self.optuna.storages.journal.JournalFileBackend(str(study.folder / JOURNAL))
        self.trials = self.optuna.create_study(
            storage=self.optuna.storages.JournalStorage(backend),
            study_name=study.name,
            direction="maximize",
            load_if_exists=True,
            pruner=self.optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=math.ceil(epochs / 4)),
        )
        self.distributions = {k: self._distribution(v) for k, v in study.space.items()}

    def run(self) -> dict[str, Any]:
        """Trials until there are enough."""
        states = self.optuna.trial.TrialState
        for trial in self.trials.get_trials(states=(states.RUNNING,)):  # somebody was killed in it
            self._tell(trial.number, trial.user_attrs.get("fusionzoo"))
        done = [t.user_attrs["fusionzoo"] for t in self.trials.trials if "fusionzoo" in t.user_attrs]
        if not done and not self.trials.get_trials(states=(states.WAITING,)):
            self.trials.enqueue_trial(self.study.default)
        self._write(done)
        while len(done) < self.study.trials:
            done.append(self._trial(len(done)))
            self._write(done)
        shutil.rmtree(self.study.folder / "trials", ignore_errors=True)
        return self._write(done[: self.study.trials])

    def _write(self, done: list[dict[str, Any]]) -> dict[str, Any]:
        facts = self.study.facts(done, self.fingerprint)
        write_json(self.study.folder / FACTS, facts)
        return facts

    def _trial(self, number: int) -> dict[str, Any]:
        """One trial, which after a crash is begun again with the same values and goes on from its checkpoint."""
        seed = int(np.random.SeedSequence([self.study.config.training.seed, number]).generate_state(1)[0])
        self.trials.sampler = self.optuna.samplers.TPESampler(seed=seed, n_startup_trials=5, constant_liar=False)
        trial = self.trials.ask(self.distributions)
        folder, started = self.study.trial_folder(number), time.perf_counter()
        config = with_values(self.study.config, trial.params)
        watching = _Watching(config, trial, self.optuna)
        state, why = "complete", None
        try:
            with torch_settings(config):
                trainer = Trainer(config, folder, self.corpus, make_accelerator(config, folder))
                trainer.restore()
                watching.again(trainer.scores)
                trainer.fit(watching)
        except self.optuna.TrialPruned:
            state = "pruned"
        except FusionZooError as error:  # such a model cannot be built, or its loss is not finite
            state, why = "failed", str(error)
        gain = METRICS[config.training.metric].gain
        best = max(watching.scores, default=None)
        facts = {
            "number": number,
            "state": state,
            "score": None if best is None else gain(best),  # its own inverse
            "epochs": len(watching.scores),
            "seconds": round(time.perf_counter() - started, 3),
            "values": dict(trial.params),
            **({} if why is None else {"why": why}),
        }
        trial.set_user_attr("fusionzoo", facts)
        self._tell(trial.number, facts)
        shutil.rmtree(folder, ignore_errors=True)
        return facts

    def _tell(self, number: int, facts: Mapping[str, Any] | None) -> None:
        """Tell Optuna how a trial ended; without facts it did not, and is left out of account."""
        states = self.optuna.trial.TrialState
        if facts is not None and facts["state"] == "complete":
            self.trials.tell(number, METRICS[self.study.config.training.metric].gain(facts["score"]))
        else:
            self.trials.tell(number, state=states.FAIL if facts is None else states.PRUNED)

    def _distribution(self, values: Values) -> Any:
        of = self.optuna.distributions
        if isinstance(values, list):
            return of.CategoricalDistribution(values)
        whole = all(isinstance(values[k], int) for k in ("low", "high"))
        return (of.IntDistribution if whole else of.FloatDistribution)(values["low"], values["high"], log=values["log"])


class _Watching(Progress):
    """Takes the epochs of a trial, and ends it where it falls behind."""

    def __init__(self, config: RunConfig, trial: Any, optuna: Any):
        super().__init__(config, enabled=False)
        self.trial, self.optuna = trial, optuna
        self.scores: list[float] = []

    def again(self, scores: Iterable[float]) -> None:
        """Epochs that were done before an interruption."""
        for score in scores:
            self.scores.append(score)
            self.trial.report(score, len(self.scores))

    def epoch(self, row: Mapping[str, Any], split: str, scores: Any) -> None:
        """One more."""
        self.again(scores[len(self.scores) :])
        if len(self.scores) < self.config.training.epochs and self.trial.should_prune():
            raise self.optuna.TrialPruned


@dataclass
class Tuned:
    """What came of all studies.

    Parameters
    ----------
    facts : study's name -> see `Study.facts`.
    failed : study's name -> why there is nothing chosen.
    """

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def tune_all(
    studies: list[Study], corpora: Mapping[str, Corpus], engine: Engine, folder: Path, *, strict: bool, quiet: bool
) -> Tuned:
    """Run the studies that are not finished yet.

    Parameters
    ----------
    studies : what is to be done; one whose configuration, data or search space have changed is made anew, and a line says
        so; one that is to have more trials goes on.
    corpora : key -> data.
    engine : where they run, side by side.
    folder : where the engine may write.
    strict : whether a study that fails ends it all and is raised; else it is noted.
    quiet : print nothing.
    """
    tuned = Tuned()
    if engine.elsewhere:
        studies = [dataclasses.replace(s, folder=s.folder.resolve()) for s in studies]
    with Bar(not quiet, "studies", digits=1) as bar:
        todo = []
        for study in studies:
            facts = _kept(study, corpora[study.data], bar)
            if facts is None:
                todo.append(study)
            else:
                tuned.facts[study.name] = facts
        done = len(studies) - len(todo)
        bar.start("tuning", len(studies), done)
        with closing(engine.run(todo, corpora, folder)) as runs, following(bar, todo):
            for study, ended in runs:
                done += 1
                why = _why_nothing(ended)
                if why is not None and strict:
                    raise ended if isinstance(ended, Exception) else TrainingError(f"tuning {study.name}: {why}")
                if why is None:
                    tuned.facts[study.name] = ended
                    words = f"best dev {METRICS[ended['metric']].show(ended['score'])} with {in_words(ended['chosen'])}"
                else:
                    tuned.failed[f"tune {study.name}"] = why
                    words = f"FAILED: {why}"
                bar.line(f"[{done}/{len(studies)}] tuned {study.name}: {words}")
    return tuned


def studies_of(models: Iterable[Study], space: Mapping[str, Any] | None, corpora: Mapping[str, Corpus]) -> list[Study]:
    """Studies with their search spaces.

    Parameters
    ----------
    models : one per model, each with the options that are fixed.
    space : see `space_of`.
    corpora : key -> data.

    Raises
    ------
    ConfigError : a search space that nothing has, or epochs that are chosen on the test split.
    """
    models = list(models)
    check_asked(space or {}, [m.config for m in models])
    if any(m.config.training.selection == "test" for m in models):
        raise ConfigError("tuning chooses on dev data, and training.selection=test chooses epochs on the test split")
    spaces = [_buildable(space_of(m.config, space, m.fixed), m.config, corpora[m.data]) for m in models]
    return [dataclasses.replace(m, space=s) for m, s in zip(models, spaces, strict=True)]


def _buildable(space: Mapping[str, Values], config: RunConfig, corpus: Corpus) -> dict[str, Values]:
    """Without choices with which the model cannot be built at this width: nobody's budget is spent on them."""

    def builds(key: str, value: Any) -> bool:
        try:
            built(with_values(config, {key: value}), corpus)
        except FusionZooError:
            return False
        return True

    have = flatten(config.to_dict())
    if not builds("training.seed", config.training.seed):  # as it is; its trials will say why
        return dict(space)
    return {k: [c for c in v if c == have[k] or builds(k, c)] if isinstance(v, list) else v for k, v in space.items()}


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The configuration with other values, by `section.key`."""
    return config.replaced(**{key.replace(".", "__", 1): value for key, value in values.items()})


def in_words(values: Mapping[str, Any]) -> str:
    """`lr 0.0012, rank 8`."""
    shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in values.items()}
    return ", ".join(f"{k} {v}" for k, v in shown.items())


def _why_nothing(ended: dict[str, Any] | Exception) -> str | None:
    if isinstance(ended, Exception):
        return described(ended)
    if ended["chosen"] is None:
        whys = [t["why"] for t in ended["trials"] if "why" in t]
        return f"none of {len(ended['trials'])} trials finished" + (f", the first: {whys[0]}" if whys else "")
    return None


def _kept(study: Study, corpus: Corpus, bar: Bar) -> dict[str, Any] | None:
    """What a study that has finished came to. What lies in the way of one that has not, is removed."""
    if not study.folder.exists():
        return None
    why = "damaged"
    try:
        facts = study.written()
        if facts.get("fingerprint") == study.fingerprint(corpus):
            if len(facts["trials"]) < study.trials:
                return None
            facts = study.facts(facts["trials"][: study.trials], facts["fingerprint"])
            return facts if facts["chosen"] is not None else None
        why = "made with another configuration, search space or data"
    except (CheckpointError, KeyError, TypeError):
        pass
    if not any((study.folder / name).exists() for name in (FACTS, JOURNAL)) and any(study.folder.iterdir()):
        raise ConfigError(f"{str(study.folder)!r} is in the way: it is not the folder of a study, so it is left alone")
    bar.line(f"tuning of {study.name}: {why}; tuning again")
    shutil.rmtree(study.folder)
    return None


def _optuna() -> Any:
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise MissingDependency("optuna", extra="tune", purpose="--tune") from error
    return optuna
