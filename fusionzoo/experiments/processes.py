"""Jobs on this machine: one after the other in this process, or side by side in others."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from fusionzoo.errors import TrainingError
from fusionzoo.experiments.jobs import ATTEMPTS, Call, Ended, Job, Needs

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus


def cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def gpus() -> list[str]:
    """GPUs of this machine, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        return [v.strip() for v in named.split(",") if v.strip()]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def room(needs: Needs, corpora: Mapping[str, Corpus]) -> int:
    """How many jobs this machine takes side by side: one per GPU, or as its cores and half its memory allow."""
    if needs.gpu and (devices := gpus()):
        return len(devices)
    size = sum(x.nbytes for c in corpora.values() for x in c.features.values())
    each = 700 * 2**20 + 3 * size  # torch itself; the data, packed for the way, and a split as tensors
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        memory = 2 * each * cores()
    return max(1, min(cores() // max(needs.cores, 1), int(memory / 2 // each)))


def here(jobs: Sequence[Job], corpora: Mapping[str, Corpus]) -> Ended:
    """One after the other in this process."""
    for job in jobs:
        yield job, job.run(corpora[job.data])


def in_processes(jobs: Sequence[Job], corpora: Mapping[str, Corpus], workers: int, devices: Sequence[str]) -> Ended:
    """One process per slot: if it is killed, it is known whose job it had, and nobody else's is lost."""
    # Fresh interpreters: a forked child would inherit torch's threads and a CUDA context that it cannot use.
    context = multiprocessing.get_context("spawn")
    waiting, free = deque((job, 1) for job in jobs), deque(range(workers))
    slots: dict[int, ProcessPoolExecutor] = {}
    running: dict[Future[Any], tuple[int, Job, int]] = {}
    others = set(multiprocessing.active_children())
    try:
        while waiting or running:
            while waiting and free:
                slot, (job, attempt) = free.popleft(), waiting.popleft()
                if slot not in slots:
                    gpu = devices[slot % len(devices)] if len(devices) > 1 else None
                    slots[slot] = ProcessPoolExecutor(1, context, _start_worker, (dict(corpora), gpu))
                running[slots[slot].submit(_run_in_worker, job)] = slot, job, attempt
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                slot, job, attempt = running.pop(future)
                free.append(slot)
                died = isinstance(future.exception(), BrokenProcessPool)
                if died:
                    slots.pop(slot).shutdown(wait=False)
                if died and attempt < ATTEMPTS:
                    waiting.appendleft((job, attempt + 1))
                else:
                    yield job, _dead(job) if died else future.exception() or future.result()
    except BaseException:
        # Nobody waits for them: their checkpoints are whole, and the same command goes on from there.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        for pool in slots.values():
            pool.shutdown(wait=not running, cancel_futures=True)


def _dead(job: Job) -> TrainingError:
    return TrainingError(
        f"the process of {job.name} ended without a word {ATTEMPTS} times (killed, perhaps for want of memory): run fewer "
        "side by side (--jobs), or with smaller batches"
    )


_corpora: Mapping[str, Corpus] = {}


def _start_worker(corpora: Mapping[str, Corpus], gpu: str | None) -> None:
    global _corpora
    _corpora = corpora
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the first one decides
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def _run_in_worker(job: Job) -> Any:
    return Call(job, _corpora[job.data])()
