"""A job and the data that it needs, as they go to a worker and as what came of it comes back."""

from __future__ import annotations

import json
import pickle
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fusionzoo.errors import ConfigError, FusionZooError
from fusionzoo.runs.config import DataConfig
from fusionzoo.runs.data_section import corpus_sha256, load_corpus

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus

#: How often a job whose process died is tried, which then goes on from its checkpoint.
ATTEMPTS = 3


class Job(Protocol):
    """What an engine runs. It is pickled, and so is what it gives."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def data(self) -> str:
        """Which of the data it needs."""
        ...

    def run(self, corpus: Corpus) -> Any:
        """What came of it; an error is given and not raised."""
        ...

    def progress(self) -> float:
        """The share of it that is done, as its folder shows."""
        ...


#: Jobs and what came of them, as they end.
Ended = Generator[tuple[Any, Any], None, None]


@dataclass(frozen=True)
class Needs:
    """What every job takes of a machine: CPU cores, and whether a GPU."""

    cores: int = 1
    gpu: bool = False


@dataclass(frozen=True)
class Reading:
    """Data that a worker reads for itself, and what must come out."""

    config: DataConfig
    sha256: str

    def corpus(self) -> Corpus:
        """The corpus, read once per process.

        Raises
        ------
        ConfigError : there are other data at that place there.
        """
        key = json.dumps(self.config.to_dict(), sort_keys=True, default=str)
        if key not in _read:
            _read.clear()  # a worker has one data set in memory at a time
            _read[key] = load_corpus(self.config)
        if corpus_sha256(_read[key]) != self.sha256:
            raise ConfigError(
                f"{self.config.source!r} is not the same data on the worker as where the comparison was started; put the "
                "data where all machines see them under one path"
            )
        return _read[key]


_read: dict[str, Corpus] = {}


@dataclass(frozen=True)
class Call:
    """A job with its data, as it goes to a worker."""

    job: Job
    data: Corpus | Reading

    def __call__(self) -> Any:
        """What came of the job; errors in a form that survives the way back."""
        try:
            ended = self.job.run(self.data.corpus() if isinstance(self.data, Reading) else self.data)
        except FusionZooError as error:  # of the data; a job's own are given
            ended = error
        return ended if not isinstance(ended, Exception) or _survives_pickling(ended) else _plain(ended)

    def checkpoint(self) -> Any:
        """For submitit: hand it in again after a preemption or at the end of its time."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _survives_pickling(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # whatever a foreign exception's constructor may raise
        return False


def _plain(error: Exception) -> FusionZooError:
    return FusionZooError(f"{type(error).__name__}: {error}")
