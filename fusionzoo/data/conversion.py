"""Any readable source to the safe columnar file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionzoo.data.inspection import Inspection, inspect
from fusionzoo.data.npz import save_npz
from fusionzoo.data.scores import with_score_classes
from fusionzoo.data.sources import load
from fusionzoo.errors import DataError


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote, and what it left out."""

    source: str
    target: Path
    skipped: list[str]
    written: Inspection

    def __str__(self) -> str:
        left_out = [f"left out: {s}" for s in self.skipped] or ["nothing was left out"]
        return "\n".join([f"{self.source} -> {self.target}", *left_out, str(self.written)])


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    split: str | os.PathLike[str] | None = None,
    score_classes: Sequence[float] | None = None,
    **options: Any,
) -> Conversion:
    """Read `source` as `fusionzoo.data.load` does and write it to `target`, an `.npz` without pickled objects.

    The target appears whole or not at all; an existing one is replaced. A dev split that had to be drawn is written, so
    that it stays the same from then on. Columns that are no features (annotations, sentences) are carried along.

    score_classes : make these values the classes, each utterance's the one nearest to its score.

    Raises the errors of `load`, and `DataError` when the target is no `.npz` or cannot be written.
    """
    target = Path(target)
    if target.suffix.lower() != ".npz":
        raise DataError(f"{target}: expected a target that ends in .npz, the layout that is written.")
    corpus = load(source, split=split, **options)
    corpus = corpus if score_classes is None else with_score_classes(corpus, score_classes)
    save_npz(corpus, target)
    return Conversion(str(source), target, corpus.said("skipped"), inspect(target))
