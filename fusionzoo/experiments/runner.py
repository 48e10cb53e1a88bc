"""Many runs: those that are finished are kept, the others run, one after the other or side by side, and failures are noted."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fusionzoo._file_schemas import RecipeFacts, ResultFile
from fusionzoo._files import write_text
from fusionzoo._installed import described
from fusionzoo._progress import Bar
from fusionzoo.errors import ConfigError, FusionZooError, TrainingError
from fusionzoo.experiments.engines import Engine
from fusionzoo.experiments.jobs import Job
from fusionzoo.experiments.single_run import RunResult, train
from fusionzoo.runs.config import RunConfig
from fusionzoo.runs.data_section import corpus_sha256
from fusionzoo.runs.folder import clear_run, kept
from fusionzoo.scoring.metrics import METRICS

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus

#: Takes a line of what is going on.
Say = Callable[[str], None]


def same_corpus(corpus: Corpus) -> Corpus:
    """What a task sees of the data that all share: all of it."""
    return corpus


@dataclass(frozen=True)
class Task:
    """One run.

    Parameters
    ----------
    config : its configuration, every option with its value.
    folder : the run folder; its name is the task's.
    recipe : as for `train`.
    view : what it sees of its data; goes to other processes, so it must survive pickling.
    data : which of several data sets it is about.
    quiet : whether the run itself shows no progress.
    """

    config: RunConfig
    folder: Path
    recipe: RecipeFacts | None = None
    view: Callable[[Corpus], Corpus] = same_corpus
    data: str = ""
    quiet: bool = True

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def run(self, corpus: Corpus) -> RunResult | Exception:
        """Train, going on where it stopped; the error if it failed, its traceback in `failure.txt`."""
        failure = self.folder / "failure.txt"
        try:
            seen = self.view(corpus)
            result = train(self.config, self.folder, resume=True, quiet=self.quiet, corpus=seen, recipe=self.recipe)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin that exits ends its own run and no other
            write_text(failure, traceback.format_exc())
            return error if isinstance(error, Exception) else TrainingError(f"the run ended with {described(error)}")
        failure.unlink(missing_ok=True)
        return result

    def progress(self) -> float:
        """The share of its epochs that is done."""
        return 1.0 if (self.folder / "result.json").exists() else epochs_done(self.folder, self.config)


def epochs_done(folder: Path, config: RunConfig) -> float:
    """The share of its epochs that a run in a folder has done."""
    try:
        lines = (folder / "metrics.csv").read_text(encoding="utf-8").count("\n")
    except OSError:
        return 0.0
    return min(max(lines - 1, 0) / config.training.epochs, 1.0)


@dataclass
class Outcome:
    """What came of the tasks, by their names.

    Parameters
    ----------
    results : of those that finished, now or before, in the order of the tasks.
    failed : type and message of the others' errors.
    is_main : whether this process is the one that writes and speaks.
    """

    results: dict[str, ResultFile] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    is_main: bool = True


def run_all(
    tasks: Sequence[Task],
    corpus: Corpus | Mapping[str, Corpus],
    *,
    engine: Engine | None = None,
    stop: Literal["never", "first", "any"] = "never",
    quiet: bool = False,
    folder: Path | None = None,
) -> Outcome:
    """Run what is not finished yet.

    Parameters
    ----------
    tasks : what is to be done. A task that has finished under the same configuration and data is kept; one that was
        interrupted goes on from its checkpoint; one whose configuration or data have changed is made anew, and a line
        says so.
    corpus : the data that all tasks share, or what `Task.data` names.
    engine : where they run; None for one after the other here.
    stop : which failure ends it all and is raised: none, that of the first task, or any. Others are noted.
    quiet : print nothing; else there is a bar on a terminal and a line per task elsewhere.
    folder : where an engine may write; None for the parent of the first task's folder.
    """
    engine = engine or Engine()
    outcome, corpora = Outcome(is_main=engine.is_main), corpus if isinstance(corpus, Mapping) else {"": corpus}
    folder = folder or tasks[0].folder.parent
    if engine.elsewhere:  # workers start in folders of their own
        tasks = [replace(t, folder=t.folder.resolve()) for t in tasks]
    with Bar(outcome.is_main and not quiet, "runs", digits=1, lines=not all(t.quiet for t in tasks)) as bar:
        todo = []
        for task in tasks:
            result = _kept(task, corpora[task.data], bar.line)
            if result is None:
                todo.append(task)
            else:
                outcome.results[task.name] = result
        if outcome.results:
            bar.line(f"{len(outcome.results)} of {len(tasks)} runs are finished already")
        done = len(tasks) - len(todo)
        bar.start("training", len(tasks), done)
        with closing(engine.run(todo, corpora, folder)) as runs, following(bar, todo):
            for task, ended in runs:  # an interruption ends the workers
                done += 1
                head = f"[{done}/{len(tasks)}] {task.name}"
                if isinstance(ended, RunResult):
                    outcome.results[task.name] = ended.result
                    bar.line(f"{head}: {scores_in_words(ended.result)}")
                    continue
                if stop == "any" or (stop == "first" and task.name == tasks[0].name):
                    raise ended
                outcome.failed[task.name] = described(ended)
                bar.line(f"{head} FAILED: {ended}")
    order = [t.name for t in tasks if t.name in outcome.results]
    outcome.results = {name: outcome.results[name] for name in order}
    return outcome


@contextmanager
def following(bar: Bar, jobs: Sequence[Job]) -> Iterator[None]:
    """Move a bar by what jobs under way have done, as their folders show it, wherever they run."""
    before, over = bar.completed, threading.Event()

    def follow() -> None:
        while not over.wait(1.0):
            bar.to(before + sum(job.progress() for job in jobs))

    if not bar.on_terminal:
        yield
        return
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        bar.to(before + sum(job.progress() for job in jobs))


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    """`3` as 0, 1, 2; or the seeds themselves.

    Raises
    ------
    ConfigError : there is none, or one is there twice or below zero.
    """
    chosen = list(range(seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise ConfigError(f"seeds must be one or more different whole numbers from 0, not {seeds!r}")
    return chosen


def scores_in_words(result: ResultFile) -> str:
    """`W-F1 0.6123, UA 0.5876, ...` of the test split, or of dev where test has no labels."""
    scores: Any = result["test"] or result["dev"]
    return ", ".join(f"{m.short} {m.show(scores[k])}" for k, m in METRICS.items()) if scores else "no labels"


def _kept(task: Task, corpus: Corpus, say: Say) -> ResultFile | None:
    """The result of a task that has finished. What lies in the way of one that has not, is removed."""
    if not task.folder.exists():
        return None
    result, why = kept(task.folder, task.config, corpus_sha256(task.view(corpus)))
    if result is not None:
        return result
    if not why and (task.folder / "config.yaml").exists() and _started_as(task.folder) != task.config.to_dict():
        why = "begun with another configuration"
    if why:
        say(f"{task.name}: {why}; running it again")
        clear_run(task.folder)
    return None


def _started_as(folder: Path) -> dict[str, Any] | None:
    try:
        return RunConfig.load(folder / "config.yaml").to_dict()
    except FusionZooError:
        return None
