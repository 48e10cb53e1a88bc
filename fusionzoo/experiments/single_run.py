"""Training one model: the loop, its folder and its report."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fusionzoo._file_schemas import EnvironmentFile, RecipeFacts, ResultFile
from fusionzoo._files import write_json
from fusionzoo._notebook import html_list, html_table
from fusionzoo._schema import read_json
from fusionzoo._types import Options, Scores
from fusionzoo.data.leaks import warn_of_leaks
from fusionzoo.errors import CheckpointError, FusionZooWarning
from fusionzoo.experiments.banner import about_data, about_models, introduce
from fusionzoo.reporting.run import write_run_report
from fusionzoo.runs import folder as runfolder
from fusionzoo.runs.card import write_card
from fusionzoo.runs.config import RunConfig, model_title
from fusionzoo.runs.data_section import anchor_paths, load_corpus
from fusionzoo.runs.models import count_parameters, settle_fusion
from fusionzoo.scoring.metrics import MAIN, METRICS
from fusionzoo.scoring.published import published_lines
from fusionzoo.scoring.regression import in_words
from fusionzoo.training.progress import Progress
from fusionzoo.training.setup import make_accelerator, torch_settings
from fusionzoo.training.trainer import Trainer

if TYPE_CHECKING:
    import numpy as np

    from fusionzoo.data.corpus import Corpus

SELECTED_ON_TEST = "THE EPOCH WAS SELECTED ON THE TEST SPLIT: the test score is too high"
DATA_CHANGED = (
    "THE DATA HAVE CHANGED SINCE THIS RUN FINISHED: these are its scores on the data as they were; "
    "train anew with another --out"
)


@dataclass(repr=False)
class RunResult:
    """A finished run.

    Parameters
    ----------
    folder : the run folder.
    result : the contents of its `result.json`.
    is_main : whether this process is the one that writes and speaks.
    """

    folder: Path
    result: ResultFile
    is_main: bool = True

    def __str__(self) -> str:
        r = self.result
        title = model_title(r["host"], r["fusion"])
        lines = [f"{title}, seed {r['seed']}: epoch {r['epoch']} of {r['epochs']}, {r['seconds']:.1f} s"]
        for split, scores in (("dev", self.dev), ("test", self.test)):
            if scores:
                values: Mapping[str, Any] = scores
                lines.append(f"{split:<5} " + "   ".join(f"{m.short} {m.show(values[k])}" for k, m in METRICS.items()))
                if regression := scores.get("regression"):
                    lines.append(f"{'':<5} {in_words(regression)}")
        if recipe := r.get("recipe"):
            lines += published_lines(recipe, self.test or self.dev)
        if r["selection"] == "test":
            lines.append(SELECTED_ON_TEST)
        if "data_now" in r:
            lines.append(DATA_CHANGED)
        return "\n".join([*lines, f"run folder: {self.folder}"])

    def __repr__(self) -> str:
        title = model_title(self.result["host"], self.result["fusion"])
        scores = self.test or self.dev
        main = METRICS[MAIN]
        said = f", {'test' if self.test else 'dev'} {main.short} {main.show(scores[MAIN])}" if scores else ""  # type: ignore[literal-required]
        return f"RunResult({title}, seed {self.result['seed']}{said}, {str(self.folder)!r})"

    def _repr_html_(self) -> str:
        result = self.result
        header = ["split", *(m.short for m in METRICS.values())]
        rows = [
            [split, *(m.show(scores[k]) for k, m in METRICS.items())]  # type: ignore[literal-required]
            for split, scores in (("dev", self.dev), ("test", self.test))
            if scores
        ]
        title = f"{model_title(result['host'], result['fusion'])}, seed {result['seed']}"
        red = [SELECTED_ON_TEST] if result["selection"] == "test" else []
        red += [DATA_CHANGED] if "data_now" in result else []
        about = [
            f"epoch {result['epoch']} of {result['epochs']}, {result['parameters']:,} parameters",
            str(self.folder),
        ]
        return html_table(title, header, rows) + html_list("", red, about)

    @property
    def test(self) -> Scores | None:
        """Scores on the test split, `None` where it has no labels."""
        return cast("Scores | None", self.result["test"])

    @property
    def dev(self) -> Scores | None:
        """Scores on the dev split."""
        return cast("Scores | None", self.result["dev"])


def train(
    config: RunConfig | Options | str | Path,
    out: str | Path,
    resume: bool = False,
    quiet: bool = False,
    corpus: Corpus | None = None,
    recipe: RecipeFacts | None = None,
) -> RunResult:
    """Train one model and leave a run folder.

    Parameters
    ----------
    config : a `RunConfig`, its sections as a mapping, or the path of a YAML file (such as a run's own `config.yaml`).
    out : the run folder. Without `resume` it must not hold a run.
    resume : continue from the newest whole checkpoint, to the numbers of an uninterrupted run; start where there is none;
        return the result of a run that has finished, with a warning and the key `data_now` (a SHA-256) in it where the
        data are not those that it was trained on any more.
    quiet : print nothing.
    corpus : data already in memory, instead of `config.data.source`.
    recipe : what reports say about the recipe that the configuration came from, see `fusionzoo.runs.recipes.Recipe.facts`.

    Raises
    ------
    ConfigError : a key, an option or the folder is not what it should be.
    DataError : the data cannot be read.
    CheckpointError : what is to be resumed had another configuration, model or data.
    TrainingError : a loss that is not finite, a split that is missing, a device that is not there.
    """
    if isinstance(config, RunConfig):
        config = copy.deepcopy(config)
        config.check_plugins()
    else:
        config = RunConfig.from_sources(config)
    folder = Path(out)
    anchor_paths(config.data)
    before = runfolder.claim(folder, config, resume)
    with torch_settings(config):
        accelerator = make_accelerator(config, folder)
        is_main = accelerator.is_main_process
        if corpus is None:
            corpus = load_corpus(config.data)
        settle_fusion(config, corpus)
        warn_of_leaks(corpus)
        trainer = Trainer(config, folder, corpus, accelerator, recipe)
        if before is not None:
            finished = runfolder.finished_as(folder, before, trainer.config, corpus)
            if finished is not None:
                return RunResult(folder, _as_of_now(finished, folder, trainer.data_sha256), is_main)
            trainer.restore()
        accelerator.wait_for_everyone()  # every process has looked at the folder before the first one writes to it
        if is_main:
            runfolder.write_start(folder, trainer.config, corpus, trainer.data_sha256, accelerator)
        if is_main and not quiet:
            about_device = f"device   {trainer.device}, precision {accelerator.mixed_precision}"
            models = about_models([(config.title, count_parameters(trainer.host))])
            introduce([*about_data(corpus), *models, about_device])
        with Progress(config, enabled=is_main and not quiet) as progress:
            trainer.fit(progress)
        result, predictions = trainer.finish()
        if is_main:
            _write_finish(trainer, result, predictions)
        accelerator.wait_for_everyone()
        return RunResult(folder, result, is_main)


def _as_of_now(finished: ResultFile, folder: Path, data_sha256: str) -> ResultFile:
    """The result of a run that was found finished; it says so where the data have changed since."""
    if finished["data"]["sha256"] != data_sha256:
        finished["data_now"] = data_sha256
        warnings.warn(f"{folder}: {DATA_CHANGED}", FusionZooWarning, stacklevel=3)
    return finished


def _write_finish(
    trainer: Trainer, result: ResultFile, predictions: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Predictions, report and card; `result.json` last, since its presence says that the run is whole."""
    folder, config = trainer.folder, trainer.config
    history: Sequence[Mapping[str, Any]] = trainer.history
    runfolder.write_predictions(folder, trainer.corpus, result, predictions)
    write_run_report(folder, config, history, result)
    environment = read_json(EnvironmentFile, folder / "environment.json", CheckpointError)
    write_card(folder, config, result, cast(Mapping[str, Any], environment))
    write_json(folder / "result.json", result)
    if not trainer.settings.keep:
        runfolder.remove_checkpoints(folder)
