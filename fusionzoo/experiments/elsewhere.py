"""Jobs on other machines: by Ray, by Slurm, by any executor that people have."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionzoo.errors import ConfigError, MissingDependency, TrainingError
from fusionzoo.experiments.jobs import ATTEMPTS, Call, Ended, Job, Needs, Reading
from fusionzoo.experiments.processes import cores

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus


def on(executor: Any, calls: Sequence[Call]) -> Ended:
    """Submit everything, ask who is done, and hand in again what was lost with its process."""
    batch: Callable[[], AbstractContextManager[Any]] = getattr(executor, "batch", nullcontext)
    with batch():  # submitit: one array of jobs
        running = [(_submitted(executor, call), call, 1) for call in calls]
    pause = 0.05
    try:
        while running:
            left = []
            for future, call, attempt in running:
                if not future.done():
                    left.append((future, call, attempt))
                    continue
                pause = 0.05
                try:
                    ended = future.result()
                except (Exception, CancelledError) as error:  # not the job's, which are given: its process is gone
                    if attempt < ATTEMPTS:
                        left.append((_submitted(executor, call), call, attempt + 1))
                        continue
                    ended = error if isinstance(error, Exception) else TrainingError("cancelled")
                yield call.job, ended
            running = left
            time.sleep(pause if running else 0.0)
            pause = min(2 * pause, 2.0)
    finally:
        for future, _, _ in running:
            if callable(getattr(future, "cancel", None)):
                future.cancel()


def _submitted(executor: Any, call: Call) -> Any:
    """A future; one that has failed where the executor takes nothing any more."""
    try:
        return executor.submit(call)
    except Exception as error:  # a broken pool, a cluster that is gone
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed


class _RayFuture:
    """A future out of Ray's reference."""

    def __init__(self, ray: Any, reference: Any):
        self.ray, self.reference = ray, reference

    def done(self) -> bool:
        return bool(self.ray.wait([self.reference], timeout=0)[0])

    def result(self) -> Any:
        return self.ray.get(self.reference)

    def cancel(self) -> None:
        if not self.done():
            self.ray.cancel(self.reference, force=True)


class _RayExecutor:
    """Tasks of Ray; its cores and GPUs are its own affair, and data that are sent along go to its store once."""

    def __init__(self, ray: Any, needs: Needs):
        self.ray = ray
        gpu = needs.gpu and ray.cluster_resources().get("GPU", 0) > 0
        # Tried again here, where it is the same for every engine.
        self.remote = ray.remote(num_cpus=needs.cores, num_gpus=int(gpu), max_retries=0)(_called)
        self.sent: dict[int, Any] = {}

    def submit(self, call: Call) -> _RayFuture:
        key = id(call.data)
        if key not in self.sent:
            self.sent[key] = self.ray.put(call.data)
        return _RayFuture(self.ray, self.remote.remote(call.job, self.sent[key]))


def _called(job: Job, data: Corpus | Reading) -> Any:
    return Call(job, data)()


@contextmanager
def ray_cluster(options: dict[str, Any], workers: int | None, needs: Needs, folder: Path) -> Iterator[_RayExecutor]:
    """The cluster that this program is connected to, one that runs or is named (`address`), or one on this machine."""
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("ray", extra="ray", purpose="--engine ray") from error
    ours = not ray.is_initialized()
    if ours:
        quiet = {"log_to_driver": False, "logging_level": "error"}
        try:
            ray.init(**{"address": "auto", **quiet, **options})
        except ConnectionError:
            if "address" in options:
                raise
            alone = {"num_cpus": (workers or cores()) * needs.cores, "include_dashboard": False}
            ray.init(**{**alone, **quiet, **options})
    try:
        yield _RayExecutor(ray, needs)
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def slurm(options: dict[str, Any], workers: int | None, needs: Needs, folder: Path) -> Iterator[Any]:
    """Jobs of Slurm by submitit; `cluster: local` tries the same on this machine."""
    try:
        import submitit
    except ImportError as error:
        raise MissingDependency("submitit", extra="slurm", purpose="--engine slurm") from error
    cluster = options.pop("cluster", "slurm")
    try:
        executor = submitit.AutoExecutor(folder=str(folder.resolve() / "slurm"), cluster=cluster)
        own = {"name": "fusionzoo", "timeout_min": 24 * 60, "cpus_per_task": needs.cores}
        if workers is not None and cluster == "slurm":
            own["slurm_array_parallelism"] = workers
        executor.update_parameters(**{**own, **options})
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        raise ConfigError(f"--engine slurm cannot be set up: {error}") from error
    yield executor
