"""Where jobs run: in this process, in others of this machine, on Ray, on Slurm, or on any executor that people have.

There is no queue and no scheduler here: Ray, Slurm and executors have their own. A job leaves everything in its folder and
goes on from what lies there, so that one whose process was killed is handed in again and no number changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fusionzoo._types import Options
from fusionzoo.errors import ConfigError, close_matches_hint
from fusionzoo.experiments.elsewhere import on, ray_cluster, slurm
from fusionzoo.experiments.jobs import Call, Ended, Job, Needs, Reading
from fusionzoo.experiments.processes import cores, gpus, here, in_processes, room
from fusionzoo.runs.config import DataConfig, RunConfig
from fusionzoo.runs.data_section import corpus_sha256

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus


class Executor(Protocol):
    """What `concurrent.futures`, Dask's client, submitit and many others have. Futures have `done` and `result`."""

    def submit(self, function: Callable[[], Any], /) -> Any:
        """Run the function somewhere."""
        ...


#: `local`, `ray`, `slurm`, a mapping with such a `name` and its options, or an executor.
EngineLike = str | Options | Executor

#: How many run side by side: `auto` is what there is room for on this machine; None is one here, and elsewhere no limit.
Jobs = int | Literal["auto"] | None

_ELSEWHERE: dict[str, Callable[..., AbstractContextManager[Any]]] = {"ray": ray_cluster, "slurm": slurm}


@dataclass(frozen=True)
class Engine:
    """Where jobs run, and how.

    Parameters
    ----------
    name : `local`, `ray`, `slurm` or `executor`.
    options : of Ray's `init`, or of submitit's executor.
    executor : somebody's own.
    workers : how many side by side, None for what the engine has room for.
    needs : of each job.
    readings : key -> section `data`, for workers that read for themselves; other data are sent along.
    """

    name: str = "local"
    options: Options = field(default_factory=dict)
    executor: Executor | None = None
    workers: int | None = 1
    needs: Needs = field(default_factory=Needs)
    readings: Mapping[str, DataConfig] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        given: EngineLike,
        jobs: Jobs,
        configs: Sequence[RunConfig],
        corpora: Mapping[str, Corpus],
        readings: Mapping[str, DataConfig] | None = None,
    ) -> Engine:
        """From what people say.

        Parameters
        ----------
        given : a name, a mapping with the name and options, or an executor.
        jobs : how many side by side.
        configs : of the runs.
        corpora : key -> their data.
        readings : as above.

        Raises
        ------
        ConfigError : there is no such engine, or the jobs were started as several processes and are to be spread over more.
        """
        name, options, executor = _named(given)
        if jobs not in (None, "auto") and jobs < 1:
            raise ConfigError(f"jobs, how many run side by side, must be 1 or more, not {jobs}")
        settings = [c.training for c in configs]
        needs = Needs(
            cores=max((s.threads or cores() for s in settings), default=1),
            gpu=all(s.device in ("auto", "cuda") for s in settings),
        )
        workers = None if jobs == "auto" else jobs
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            if name != "local" or (workers or 1) > 1:
                raise ConfigError(
                    "runs side by side (--jobs) are spread over processes and GPUs here; start without `accelerate launch`"
                )
            workers = 1
        elif name == "local" and jobs == "auto":
            one_device = any(":" in s.device for s in settings)  # which takes one run at a time
            workers = 1 if one_device else room(needs, corpora)
        return cls(name, options, executor, workers, needs, readings or {})

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return os.environ.get("RANK", "0") == "0"

    @property
    def elsewhere(self) -> bool:
        """Whether jobs run on other machines, perhaps, which read their data for themselves."""
        return self.name != "local"

    def __str__(self) -> str:
        if self.elsewhere:
            return f"on {self.name}"
        return "one at a time" if (self.workers or 1) == 1 else f"{self.workers} at a time"

    def run(self, jobs: Sequence[Job], corpora: Mapping[str, Corpus], folder: Path) -> Ended:
        """Jobs and what came of them, as they end; closed before the end, it ends them.

        Parameters
        ----------
        jobs : what is done.
        corpora : key -> data.
        folder : for what the engine itself writes.
        """
        if not jobs:
            return
        if not self.elsewhere:
            workers = min(self.workers or 1, len(jobs))
            if workers == 1:
                yield from here(jobs, corpora)
            else:
                yield from in_processes(jobs, corpora, workers, gpus() if self.needs.gpu else [])
            return
        data: dict[str, Corpus | Reading] = {}
        for key in dict.fromkeys(job.data for job in jobs):
            corpus, where = corpora[key], self.readings.get(key)
            data[key] = corpus if where is None else Reading(where, corpus_sha256(corpus))
        calls = [Call(job, data[job.data]) for job in jobs]
        if self.executor is not None:
            opened: AbstractContextManager[Any] = nullcontext(self.executor)
        else:
            opened = _ELSEWHERE[self.name](dict(self.options), self.workers, self.needs, folder)
        with opened as executor:
            yield from on(executor, calls)


def _named(given: EngineLike) -> tuple[str, Options, Executor | None]:
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        if not callable(getattr(given, "submit", None)):
            raise ConfigError(f"engine {given!r} is no name and has no 'submit' as executors have")
        return "executor", {}, given
    options: dict[str, Any] = dict(given)
    name: Any = options.pop("name", None)
    known = ("local", *_ELSEWHERE)
    if name not in known:
        raise ConfigError(
            f"there is no engine {name!r}{close_matches_hint(str(name), known) or '.'} Engines: {', '.join(known)}"
        )
    if name == "local" and options:
        raise ConfigError(
            f"the engine local takes no options, not {', '.join(options)}; --jobs says how many processes"
        )
    return name, options, None
