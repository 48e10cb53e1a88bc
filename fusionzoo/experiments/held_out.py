"""Folds as views of the data: a corpus with one part held out, and the configuration of a run that sees it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fusionzoo._files import write_json
from fusionzoo.data.folds import FoldPlan, check_speakers, fold_split, make_folds
from fusionzoo.data.leaks import Rows
from fusionzoo.errors import DataWarning

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.runs.config import RunConfig


@dataclass(frozen=True)
class HeldOut:
    """One fold: what a corpus looks like with it held out.

    Parameters
    ----------
    fold : its name.
    split : dialogue id -> split.
    leaks : what the held-out part has in common with the rest, in words.
    """

    fold: str
    split: Mapping[str, str]
    leaks: tuple[str, ...] = ()

    def __call__(self, corpus: Corpus) -> Corpus:
        """The corpus with this fold held out."""
        here = corpus.with_split(self.split, origin=f"fold {self.fold}")
        here.info = here.info | {"leaks": list(self.leaks)}
        return here

    def write(self, path: Path) -> None:
        """The split as a file that `data.split` can name."""
        content: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
        for dialogue, split in sorted(self.split.items()):
            content[split].append(dialogue)
        write_json(path, content)


def held_out(corpus: Corpus, plan: FoldPlan, dev_fraction: float, split_seed: int) -> list[HeldOut]:
    """The folds, with a warning for each that leaks.

    Parameters
    ----------
    corpus : what is parted.
    plan : what is held out together.
    dev_fraction, split_seed : of the dialogues of dev, drawn from what is not held out.

    Raises
    ------
    DataError : the data cannot be parted like this.
    """
    folds = make_folds(corpus, plan)
    check_speakers(corpus, plan)
    rows, out = Rows(corpus), []
    always_train = dict.fromkeys((d.id for d in corpus.dialogues()), "train")
    for name in folds:
        split = always_train | fold_split(folds, name, plan, dev_fraction, split_seed)
        leaks = rows.leaks(corpus.with_split(split, origin=f"fold {name}").split)
        for leak in leaks:
            warnings.warn(f"{corpus.source}, fold {name} held out: {leak}", DataWarning, stacklevel=3)
        out.append(HeldOut(name, split, tuple(leaks)))
    return out


def of_fold(config: RunConfig, split: Path) -> RunConfig:
    """The configuration of a run on one fold, whose split lies in a file."""
    data = {**config.data.to_dict(), "split": str(split.resolve()), "merge_dev": False, "dev_fraction": 0.0}
    return config.replaced(data=data)
