"""The run folder: who may write to it, and what lies in it.

config.yaml         effective configuration, enough to run again
environment.json    versions, device, command, git commit, hash of the data
metrics.csv         one row per epoch
checkpoints/        see fusionzoo.runs.checkpoint
model.safetensors, model.json     weights of the best epoch and what they belong to
predictions.csv     every utterance of dev and test: true, predicted, probabilities
confusion.csv       of the test split (dev where test has no labels); confusion.png, curves.png with matplotlib
result.json         scores, chosen epoch, parameters, seconds
report.html         all of it on one page
card.json           configuration, scores, data and versions: what `fusionzoo reproduce` does again and compares
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fusionzoo._csv import csv_text, rows_of
from fusionzoo._file_schemas import ResultFile
from fusionzoo._files import write_json, write_text
from fusionzoo._schema import read_json, shown, text_of
from fusionzoo.errors import CheckpointError, ConfigError, DataError
from fusionzoo.runs.config import INCIDENTAL, FusionConfig, RunConfig, flatten
from fusionzoo.runs.environment import environment_of
from fusionzoo.runs.options import NO_FUSION
from fusionzoo.scoring.inference import prediction_header, prediction_rows
from fusionzoo.scoring.metrics import METRICS, scores_from_confusion

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator

    from fusionzoo.data.corpus import Corpus


def claim(folder: Path, config: RunConfig, resume: bool) -> RunConfig | None:
    """Check that this run may use the folder; the configuration of the run that lies there already, when resuming.

    Raises
    ------
    ConfigError : the folder holds a run, without `resume`.
    CheckpointError : what is to be resumed was configured differently, as far as that can be told before anything is
        built: see `finished_as`.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"the run folder {str(folder)!r} is a file; choose another --out")
    stored = folder / "config.yaml"
    if not stored.exists():
        return None
    if not resume:
        raise ConfigError(f"{str(folder)!r} already holds a run; continue it with --resume or choose another --out")
    before = RunConfig.load(stored)
    if before.fusion.name == NO_FUSION and not config.fusion.asked:
        config.fusion = FusionConfig(NO_FUSION)  # a default, as it turned out with one modality
    known, now = flatten(before.to_dict()), flatten(config.to_dict())
    # Its own holds options that nobody gave, with their defaults; this one's defaults are known when it is built.
    both = {k: (known[k], now[k]) for k in known.keys() & now.keys() if now[k] is not None}
    _refuse_changes(folder, config, {k: v for k, v in both.items() if v[0] != v[1]})
    return before


def finished_as(folder: Path, before: RunConfig, now: RunConfig, corpus: Corpus) -> ResultFile | None:
    """The result of the run in a folder, None where it has not finished. `now` has every option with its value.

    Raises
    ------
    CheckpointError : it was configured differently.
    """
    changes = differences(before, now, corpus)
    _refuse_changes(folder, now, changes)
    return None if changes.keys() & {"training.epochs", "training.patience"} else read_result(folder)


def differences(before: RunConfig, now: RunConfig, corpus: Corpus) -> dict[str, tuple[Any, Any]]:
    """Key -> its two values, of two configurations of which the second has every option with its value."""
    from fusionzoo.runs.models import resolved

    if flatten(before.to_dict()).keys() != flatten(now.to_dict()).keys():  # written by hand, or by another version
        before.check_plugins()
        before = resolved(before, corpus)
    a, b = flatten(before.to_dict()), flatten(now.to_dict())
    return {k: (a.get(k), b.get(k)) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)}


def _refuse_changes(folder: Path, config: RunConfig, changes: Mapping[str, tuple[Any, Any]]) -> None:
    free = {*INCIDENTAL, "training.device"}
    if config.training.scheduler in ("constant", "plateau", "step") and not config.training.warmup:
        free |= {"training.epochs", "training.patience"}  # these schedules do not depend on how long the run is
    listing = "; ".join(f"{k} was {was!r} and is {now!r}" for k, (was, now) in sorted(changes.items()) if k not in free)
    if listing:
        raise CheckpointError(
            f"the run in {str(folder)!r} was started with another configuration, so its checkpoints do not fit: {listing}. "
            "Resume with the configuration it was started with, or choose another --out."
        )


def check_data(folder: Path, before: str, now: str, name: str) -> None:
    """Raise `CheckpointError` unless the data are those that the run in a folder was made with, by their SHA-256."""
    if before != now:
        raise CheckpointError(
            f"the run in {str(folder)!r} was trained on other data than {name!r} as it is now "
            "(features, labels or split differ), so it cannot be resumed; start a new run with another --out"
        )


def kept(folder: Path, config: RunConfig, data_sha256: str) -> tuple[ResultFile | None, str]:
    """The result of a finished run with this configuration, every option in it, on these data; else None and why not.

    The reason is empty where nothing has finished.
    """
    try:
        result = read_result(folder)
        if result is not None:
            read_predictions(folder, result)
    except CheckpointError as error:
        return None, f"damaged ({error})"
    if result is None or (result["fingerprint"] == config.fingerprint() and result["data"]["sha256"] == data_sha256):
        return result, ""
    return None, "made with another configuration or other data"


def read_predictions(folder: Path, result: ResultFile) -> list[dict[str, str]]:
    """The rows of a finished run's `predictions.csv`; `CheckpointError` where they are not those of its classes."""
    path = folder / "predictions.csv"
    if not path.exists():
        raise CheckpointError(f"{str(folder)!r} lacks predictions.csv")
    try:
        rows = rows_of(text_of(path, CheckpointError, 1 << 30), path)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    names = {n for scores in (result["dev"], result["test"]) if scores for n in scores["per_class"]}
    for number, row in enumerate(rows, start=2):
        lacks = [c for c in ("split", "dialogue", "true", "predicted") if not isinstance(row.get(c), str)]
        if lacks:
            raise CheckpointError(f"{str(path)!r}, line {number}: lacks {', '.join(lacks)}")
        if names and not {row["predicted"], row["true"] or row["predicted"]} <= names:
            raise CheckpointError(
                f"{str(path)!r}, line {number}: {shown(row['predicted'])} or its label is no class of the run"
            )
    return rows


def read_result(folder: Path) -> ResultFile | None:
    """`result.json` of a finished run, None where there is none. Metrics that are newer than the run are added.

    Raises
    ------
    CheckpointError : it is damaged.
    """
    path = folder / "result.json"
    if not path.exists():
        return None
    result = read_json(ResultFile, path, CheckpointError)
    if result["metric"] not in METRICS:
        raise CheckpointError(
            f"{str(path)!r}: metric: expected one of {', '.join(METRICS)}, got {shown(result['metric'])}"
        )
    for split, scores in (("dev", result["dev"]), ("test", result["test"])):
        if not scores:
            continue
        classes = len(scores["per_class"])
        if [len(row) for row in scores["confusion"]] != [classes] * classes:
            raise CheckpointError(f"{str(path)!r}: {split}.confusion: expected {classes} rows of {classes} counts")
        newer = {k: float(v) for k, v in scores_from_confusion(scores["confusion"]).items() if k not in scores}
        cast(dict[str, Any], scores).update(newer)
    return result


def write_start(folder: Path, config: RunConfig, corpus: Corpus, data_sha256: str, accelerator: Accelerator) -> None:
    """What is known before the first epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", config.to_yaml())
    data = {"name": corpus.name, "sha256": data_sha256, "info": corpus.info, "summary": corpus.summary()}
    facts = {**environment_of(accelerator), "seed": config.training.seed, "data": data}
    write_json(folder / "environment.json", facts)


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """`metrics.csv`, written anew each epoch: a resumed run never leaves rows of epochs that it repeats."""
    header = list(history[0])
    write_text(folder / "metrics.csv", csv_text(header, ([row[k] for k in header] for row in history)))


def write_predictions(
    folder: Path, corpus: Corpus, result: ResultFile, predictions: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """`predictions.csv` and `confusion.csv`.

    Parameters
    ----------
    folder : the run folder.
    corpus : what was predicted.
    result : the contents of `result.json`.
    predictions : split -> rows of the corpus, and probabilities for them.
    """
    names = list(corpus.label_names)
    rows = [r for split, (which, p) in predictions.items() for r in prediction_rows(corpus, split, which, p, names)]
    write_text(folder / "predictions.csv", csv_text(prediction_header(names), rows))
    if scored := result["test"] or result["dev"]:
        matrix = zip(names, scored["confusion"], strict=True)
        write_text(folder / "confusion.csv", csv_text(["true \\ predicted", *names], ([n, *r] for n, r in matrix)))


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a finished run."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def clear_run(folder: Path) -> None:
    """Remove a run that is to be made anew. Refuses a folder that is not a run's."""
    if not folder.exists():
        return
    known = (folder / "config.yaml").exists() or not any(os.scandir(folder))
    if not known:
        raise ConfigError(f"{str(folder)!r} is in the way: it is not the folder of a run, so it is left alone")
    shutil.rmtree(folder)
