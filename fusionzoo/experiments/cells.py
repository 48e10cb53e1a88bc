"""The rows of a comparison with their data, and the runs that they are made of."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionzoo.data.leaks import warn_of_leaks
from fusionzoo.errors import ConfigError
from fusionzoo.experiments.axes import Axes, Entrant, entrants
from fusionzoo.experiments.banner import about_data, about_device, about_models, introduce
from fusionzoo.experiments.engines import Engine
from fusionzoo.experiments.held_out import HeldOut, held_out, of_fold
from fusionzoo.experiments.runner import same_corpus
from fusionzoo.experiments.tuning import Study, with_values
from fusionzoo.runs.config import RunConfig, model_title
from fusionzoo.runs.data_section import anchor_paths, load_corpus
from fusionzoo.runs.models import built, count_parameters, settle_fusion

if TYPE_CHECKING:
    from fusionzoo.data.corpus import Corpus


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Parameters
    ----------
    entrant : the row that it belongs to.
    config : its configuration.
    folder : its run folder.
    fold : what is held out, None with the splits of the data.
    """

    entrant: Entrant
    config: RunConfig
    folder: Path
    fold: HeldOut | None = None

    @property
    def fold_name(self) -> str | None:
        """What is held out."""
        return None if self.fold is None else self.fold.fold

    @property
    def model(self) -> str:
        """What it has in common with its other seeds."""
        return self.entrant.name(self.fold_name)

    @property
    def view(self) -> Callable[[Corpus], Corpus]:
        """What it sees of its data."""
        return self.fold or same_corpus

    def study(self, folder: Path, trials: int) -> Study:
        """Of its model."""
        who = self.entrant
        return Study(self.config, folder / self.model, trials, {}, self.view, who.data, self.fold_name, who.fixed)

    def tuned(self, studies: Mapping[str, Mapping[str, Any]]) -> RunConfig:
        """Its configuration with what a study chose, if there was one."""
        return with_values(self.config, studies[self.model]["chosen"]) if self.model in studies else self.config

    def shown(self, studies: Mapping[str, Mapping[str, Any]]) -> RunConfig:
        """The configuration for the page: of a row with folds what they share."""
        seed = self.config.training.seed
        return self.tuned(studies) if self.fold is None else self.entrant.config.replaced(training__seed=seed)


@dataclass
class Grid:
    """The rows of a comparison, with their data."""

    entrants: list[Entrant]
    corpora: dict[str, Corpus]
    seeds: list[int]
    sizes: list[tuple[str, int]]

    @classmethod
    def of(cls, base: RunConfig, axes: Axes, seeds: list[int], corpus: Corpus | None = None) -> Grid:
        """Read the data and settle every configuration; all that can be refused is refused here.

        Parameters
        ----------
        base : what all share.
        axes : what is compared.
        seeds : of every row.
        corpus : data already in memory.

        Raises
        ------
        FusionZooError : what makes no sense, and data that cannot be read.
        """
        found = entrants(base, axes)
        for entrant in found:
            anchor_paths(entrant.config.data)
        if corpus is not None and len({e.data for e in found}) > 1:
            raise ConfigError("corpus= is one data set, and the comparison is of several; name all of them in data=")
        corpora: dict[str, Corpus] = {}
        for entrant in found:
            if entrant.data not in corpora:
                corpora[entrant.data] = load_corpus(entrant.config.data) if corpus is None else corpus
            if entrant.plan is None:
                warn_of_leaks(corpora[entrant.data])
        by_default = not axes.fusions and not base.fusion.asked
        settled, sizes = [], []
        for entrant in found:
            entrant, size = _settled(entrant, corpora[entrant.data], by_default)
            settled.append(entrant)
            sizes += [] if size is None else [(model_title(entrant.who.host, entrant.who.fusion), size)]
        return cls(settled, corpora, seeds, sizes)

    @property
    def configs(self) -> list[RunConfig]:
        """Of all rows."""
        return [e.config for e in self.entrants]

    @property
    def readings(self) -> dict[str, Any]:
        """Where workers find the data."""
        return {e.data: e.config.data for e in self.entrants}

    @property
    def labelled(self) -> dict[str, Corpus]:
        """Label of the data -> data."""
        return {dict(e.who.axes).get("data", self.corpora[e.data].name): self.corpora[e.data] for e in self.entrants}

    def cells(self, folder: Path) -> list[Cell]:
        """The runs, row by row, fold by fold, seeds outermost in a row; the splits of folds are written."""
        folds: dict[tuple[str, Any], list[HeldOut]] = {}
        cells = []
        for entrant in self.entrants:
            parts: list[HeldOut | None] = [None]
            if entrant.plan is not None:
                data = entrant.config.data
                key = (entrant.data, entrant.plan)
                if key not in folds:
                    corpus = self.corpora[entrant.data]
                    folds[key] = held_out(corpus, entrant.plan, data.dev_fraction, data.split_seed)
                parts = list(folds[key])
            for seed in self.seeds:
                cells += [_cell(entrant, seed, part, folder) for part in parts]
        return cells

    def introduce(self, cells: Sequence[Cell], where: Engine, trials: int | None = None) -> None:
        """Say what is about to be done."""
        lines = [line for c in self.labelled.values() for line in about_data(c)]
        lines += [*about_models(self.sizes), about_device(self.entrants[0].config)]
        if trials is not None:
            models = len({c.model for c in cells})
            lines.append(f"tuning   {_count(trials, 'trial')} for each of {_count(models, 'model')}, on dev")
        rows = f"{_count(len(self.entrants), 'row')} x {_count(len(self.seeds), 'seed')}"
        lines.append(f"runs     {rows}: {_count(len(cells), 'run')}, {where}")
        introduce(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _settled(entrant: Entrant, corpus: Corpus, by_default: bool) -> tuple[Entrant, int | None]:
    """An entrant with every option in its configuration, and its trained parameters.

    With one modality a default fusion is `none`, and one that was named is refused. A model that cannot be built is left
    for its run to say why.
    """
    config, who = entrant.config, entrant.who
    config.fusion.asked = not by_default
    settle_fusion(config, corpus)
    if by_default:
        who = dataclasses.replace(who, fusion=config.fusion.name)
    size = None
    with contextlib.suppress(Exception):
        config, host = built(config, corpus)
        size = count_parameters(host)
    return dataclasses.replace(entrant, who=who, config=config), size


def _cell(entrant: Entrant, seed: int, fold: HeldOut | None, folder: Path) -> Cell:
    config = entrant.config.replaced(training__seed=seed)
    name = entrant.name(None if fold is None else fold.fold)
    if fold is not None:
        path = folder / "splits" / f"{entrant.split_name(fold.fold)}.json"
        fold.write(path)
        config = of_fold(config, path)
    return Cell(entrant, config, folder / "runs" / f"{name}__seed{seed}", fold)
