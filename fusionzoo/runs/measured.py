"""Finished runs as they are found in folders: one by itself, or all of a comparison, by model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusionzoo.errors import CheckpointError
from fusionzoo.runs.config import model_title
from fusionzoo.runs.folder import read_result
from fusionzoo.scoring.metrics import MAIN

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ResultFile

#: Folders that hold no run of their own: a run's checkpoints and pictures, and the trials of tuning.
_NO_RUNS = frozenset({"checkpoints", "diagnosis", "tune", "trials"})
_SEED = re.compile(r"__seed\d+$")


@dataclass(frozen=True)
class Measured:
    """One model, and its finished runs by seed.

    Parameters
    ----------
    name : what it is called.
    runs : their folders and results, the lowest seed first.
    """

    name: str
    runs: tuple[tuple[Path, ResultFile], ...]

    @property
    def scores(self) -> list[float]:
        """Main test score of every seed that has one."""
        return [float(s[MAIN]) for _, r in self.runs if (s := r["test"])]  # type: ignore[literal-required]

    @property
    def mean(self) -> float | None:
        """Mean of `scores`, None without any."""
        return self.mean_of(MAIN)

    def mean_of(self, metric: str) -> float | None:
        """Mean test score over the seeds, of any metric; None without any."""
        found = [float(s[metric]) for _, r in self.runs if (s := r["test"])]  # type: ignore[literal-required]
        return float(np.mean(found)) if found else None


def is_run(folder: Path) -> bool:
    """Whether this is the folder of one run, finished or not."""
    return (folder / "result.json").exists() or (folder / "model.json").exists()


def find_runs(folder: Path) -> list[Path]:
    """Folders of finished runs in and below a folder, in order of their names."""
    return holding("result.json", folder)


def holding(name: str, folder: Path) -> list[Path]:
    """Folders in and below a folder that hold a file of this name; links are not followed, trials and the like left out."""
    found = []
    for here, inner, files in os.walk(folder):
        inner[:] = sorted(d for d in inner if d not in _NO_RUNS and not d.startswith("."))
        if name in files:
            found.append(Path(here))
    return found


def measured(folders: Iterable[str | Path]) -> list[Measured]:
    """The models in some folders, of runs or of comparisons, in the order in which they are found.

    Raises
    ------
    CheckpointError : a folder holds no finished run, or a damaged one.
    """
    found = []
    for given in map(Path, folders):
        runs = find_runs(given)
        if not runs:
            raise CheckpointError(
                f"{str(given)!r} holds no finished run (no result.json in it or below it); give the --out folder of "
                "`fusionzoo train` or `fusionzoo compare`"
            )
        found += [(run, result) for run in runs if (result := read_result(run)) is not None]
    return by_model(found)


def by_model(runs: Iterable[tuple[Path, ResultFile]]) -> list[Measured]:
    """Runs that differ in their seed alone, as their folders' names say, put together."""
    groups: dict[tuple[Path, str], list[tuple[Path, ResultFile]]] = {}
    for folder, result in runs:
        at = folder.resolve()
        groups.setdefault((at.parent, _SEED.sub("", at.name)), []).append((folder, result))
    names = [_shown(name, of[0][1]) for (_, name), of in groups.items()]
    out = []
    for ((parent, _), of), name in zip(groups.items(), names, strict=True):
        shown = name if names.count(name) == 1 else f"{parent.name}/{name}"
        out.append(Measured(shown, tuple(sorted(of, key=lambda r: r[1]["seed"]))))
    return out


def _shown(folder: str, result: ResultFile) -> str:
    """`bc-lstm + gated` of a folder that is named for its model, as a comparison's are, else with the folder's name."""
    if "__" in folder:
        return folder.replace("__", " + ")
    return f"{model_title(result['host'], result['fusion'])} ({folder})"
