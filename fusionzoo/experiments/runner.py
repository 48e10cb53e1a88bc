"""Many runs: those that are finished are kept, the others run, one after the other or side by side, and failures are noted."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fusionzoo._file_schemas import RecipeFacts, ResultFile
from fusionzoo._files import write_text
from fusionzoo._installed import described
from fusionzoo._text import visible
from fusionzoo.errors import ConfigError, FusionZooError, TrainingError
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
    view : what it sees of the data that all tasks share; goes to other processes, so it must survive pickling.
    """

    config: RunConfig
    folder: Path
    recipe: RecipeFacts | None = None
    view: Callable[[Corpus], Corpus] = same_corpus

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name


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
    is_main: bool = field(default_factory=lambda: os.environ.get("RANK", "0") == "0")


def run_all(
    tasks: Sequence[Task],
    corpus: Corpus,
    *,
    jobs: int = 1,
    stop: Literal["never", "first", "any"] = "never",
    say: Say | None = None,
    quiet: bool = True,
) -> Outcome:
    """Run what is not finished yet.

    Parameters
    ----------
    tasks : what is to be done. A task that has finished under the same configuration and data is kept; one that was
        interrupted goes on from its checkpoint; one whose configuration or data have changed is made anew, and a line
        says so.
    corpus : the data that all tasks share.
    jobs : how many run side by side, each in a process of its own, spread over the GPUs there are.
    stop : which failure ends it all and is raised: none, that of the first task, or any. Others are noted.
    say : told of every task; None prints to standard error.
    quiet : whether the runs themselves show no progress.
    """
    if jobs > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "runs side by side (--jobs) are spread over processes and GPUs here; start without `accelerate launch`"
        )
    outcome = Outcome()
    say = (say or print_line) if outcome.is_main else be_silent
    todo = []
    for task in tasks:
        result = _kept(task, corpus, say)
        if result is None:
            todo.append(task)
        else:
            outcome.results[task.name] = result
    if outcome.results:
        say(f"{len(outcome.results)} of {len(tasks)} runs are finished already")
    done = len(tasks) - len(todo)
    with closing(_each(todo, corpus, jobs, quiet)) as runs:  # an interruption ends the workers
        for task, ended in runs:
            done += 1
            head = f"[{done}/{len(tasks)}] {task.name}"
            if isinstance(ended, RunResult):
                outcome.results[task.name] = ended.result
                say(f"{head}: {scores_in_words(ended.result)}")
                continue
            if stop == "any" or (stop == "first" and task is tasks[0]):
                raise ended
            outcome.failed[task.name] = described(ended)
            say(f"{head} FAILED: {ended}")
    order = [t.name for t in tasks if t.name in outcome.results]
    outcome.results = {name: outcome.results[name] for name in order}
    return outcome


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


def print_line(text: str) -> None:
    """A line to standard error, in which names may stand that come from files."""
    print(visible(text), file=sys.stderr, flush=True)


def be_silent(text: str) -> None:
    """What is said where nothing is to be said."""


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


def run_task(task: Task, corpus: Corpus, quiet: bool = True) -> RunResult | Exception:
    """Train one, going on where it stopped; the error if it failed, its traceback in `failure.txt`."""
    failure = task.folder / "failure.txt"
    try:
        seen = task.view(corpus)
        result = train(task.config, task.folder, resume=True, quiet=quiet, corpus=seen, recipe=task.recipe)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin that exits ends its own run and no other
        write_text(failure, traceback.format_exc())
        return error if isinstance(error, Exception) else TrainingError(f"the run ended with {described(error)}")
    failure.unlink(missing_ok=True)
    return result


# -- side by side -----------------------------------------------------------------------------------------------------


def _each(
    tasks: Sequence[Task], corpus: Corpus, jobs: int, quiet: bool
) -> Generator[tuple[Task, RunResult | Exception], None, None]:
    if jobs <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield task, run_task(task, corpus, quiet)
        return
    # Fresh interpreters: a forked child would inherit torch's threads and a CUDA context that it cannot use.
    context = multiprocessing.get_context("spawn")
    gpus, turn = _gpus(tasks[0].config), context.Value("i", 0)
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, _start_worker, (corpus, gpus, turn)) as pool:
        running = {pool.submit(_run_in_worker, task): task for task in tasks}
        try:
            for future in as_completed(running):
                broken = future.exception()
                yield running[future], broken if isinstance(broken, Exception) else future.result()
        except BaseException:
            # Nobody waits for them: their checkpoints are whole, and the same command goes on from there.
            for future in running:
                future.cancel()
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


_corpus: Corpus | None = None


def _start_worker(corpus: Corpus, gpus: list[str], turn: Any) -> None:
    global _corpus
    _corpus = corpus
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the first one decides
    if gpus:
        with turn.get_lock():
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[turn.value % len(gpus)]
            turn.value += 1


def _run_in_worker(task: Task) -> RunResult | Exception:
    assert _corpus is not None  # set by _start_worker
    ended = run_task(task, _corpus)
    if isinstance(ended, RunResult) or _survives_pickling(ended):
        return ended
    return FusionZooError(f"{type(ended).__name__}: {ended}")


def _survives_pickling(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # whatever a foreign exception's constructor may raise
        return False


def _gpus(config: RunConfig) -> list[str]:
    """GPUs to share out among workers; empty where there is one at most or the configuration names a device."""
    if config.training.device not in ("auto", "cuda"):
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        names = [v.strip() for v in named.split(",") if v.strip()]
    else:
        import torch

        names = [str(i) for i in range(torch.cuda.device_count())]
    return names if len(names) > 1 else []
