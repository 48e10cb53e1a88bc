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
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fusionzoo
from fusionzoo._csv import csv_text, rows_of
from fusionzoo._file_schemas import EnvironmentFile, ResultFile
from fusionzoo._schema import read_json, shown, text_of
from fusionzoo.errors import CheckpointError, ConfigError, DataError
from fusionzoo.runs.config import INCIDENTAL, DataConfig, FusionConfig, RunConfig, flatten
from fusionzoo.runs.files import write_json, write_text
from fusionzoo.runs.options import NO_FUSION

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator

    from fusionzoo.data.corpus import Corpus


def anchor_paths(data: DataConfig) -> None:
    """Make the paths of section `data` absolute, so that a run's config.yaml works from anywhere."""
    data.source = absolute_source(data.source)
    if data.split is not None and Path(data.split).exists():
        data.split = str(Path(data.split).resolve())


def absolute_source(source: str) -> str:
    """A path that exists as an absolute one; names of datasets stay names."""
    if source in fusionzoo.names("dataset") or not Path(source).exists():
        return source
    return str(Path(source).resolve())


def load_corpus(data: DataConfig) -> Corpus:
    """The corpus of section `data`."""
    from fusionzoo.data import load

    return load(
        data.source,
        split=data.split,
        modalities=data.modalities,
        dev_fraction=data.dev_fraction,
        merge_dev=data.merge_dev,
        split_seed=data.split_seed,
        **data.options,
    )


def claim(folder: Path, config: RunConfig, resume: bool) -> RunConfig | None:
    """Check that this run may use the folder; the configuration of the run that lies there already, when resuming.

    Raises `ConfigError` for a folder that holds a run (without `resume`), `CheckpointError` when what is to be resumed
    was configured differently, as far as that can be told before anything is built: see `finished_as`.
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


def finished_as(folder: Path, before: RunConfig, now: RunConfig, corpus: Corpus) -> dict[str, Any] | None:
    """The result of the run in a folder, None where it has not finished. `now` has every option with its value.

    Raises `CheckpointError` when it was configured differently.
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


def kept(folder: Path, config: RunConfig, data_sha256: str) -> tuple[dict[str, Any] | None, str]:
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


def read_predictions(folder: Path, result: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of a finished run's `predictions.csv`; `CheckpointError` where they are not those of its classes."""
    path = folder / "predictions.csv"
    if not path.exists():
        raise CheckpointError(f"{str(folder)!r} lacks predictions.csv")
    try:
        rows = rows_of(text_of(path, CheckpointError, 1 << 30), path)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    names = {n for split in ("dev", "test") if result[split] for n in result[split]["per_class"]}
    for number, row in enumerate(rows, start=2):
        lacks = [c for c in ("split", "dialogue", "true", "predicted") if not isinstance(row.get(c), str)]
        if lacks:
            raise CheckpointError(f"{str(path)!r}, line {number}: lacks {', '.join(lacks)}")
        if names and not {row["predicted"], row["true"] or row["predicted"]} <= names:
            raise CheckpointError(
                f"{str(path)!r}, line {number}: {shown(row['predicted'])} or its label is no class of the run"
            )
    return rows


def read_result(folder: Path) -> dict[str, Any] | None:
    """`result.json` of a finished run, `None` where there is none; `CheckpointError` for one that is damaged."""
    path = folder / "result.json"
    if not path.exists():
        return None
    result: dict[str, Any] = {**read_json(ResultFile, path, CheckpointError)}
    for split in ("dev", "test"):
        scores = result[split]
        classes = len(scores["per_class"]) if scores else 0
        if scores and [len(row) for row in scores["confusion"]] != [classes] * classes:
            raise CheckpointError(f"{str(path)!r}: {split}.confusion: expected {classes} rows of {classes} counts")
    return result


def write_start(folder: Path, config: RunConfig, corpus: Corpus, data_sha256: str, accelerator: Accelerator) -> None:
    """What is known before the first epoch."""
    import torch

    from fusionzoo._machine import device_name

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", config.to_yaml())
    device = device_name(accelerator.device)
    write_json(
        folder / "environment.json",
        {
            "command": sys.argv,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": {"type": str(accelerator.device), "name": device, "processes": accelerator.num_processes},
            "threads": torch.get_num_threads(),
            "precision": accelerator.mixed_precision,
            "packages": package_versions(),
            "git": git_commit(),
            "seed": config.training.seed,
            "data": {"name": corpus.name, "sha256": data_sha256, "info": corpus.info, "summary": corpus.summary()},
        },
    )


def package_versions() -> dict[str, str]:
    """Versions of the distributions that decide a run's numbers, the providers of plugins included."""
    from fusionzoo._installed import versions
    from fusionzoo._registry import registry

    names = {"fusionzoo", "torch", "torch-geometric", "accelerate", "numpy", "scikit-learn", "safetensors"}
    offers = (p for kinds in registry.index().values() for providers in kinds.values() for p in providers)
    names |= {p.distribution for p in offers if p.version and not p.trouble}
    return dict(sorted(versions(names).items())) | {"fusionzoo": fusionzoo.__version__}


def git_commit() -> str | None:
    """Commit of the source tree that fusionzoo runs from, with `+changes` when it has any; None outside a checkout."""
    here = Path(fusionzoo.__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        ask = {"cwd": here, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **ask).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **ask).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """`metrics.csv`, written anew each epoch: a resumed run never leaves rows of epochs that it repeats."""
    header = list(history[0])
    write_text(folder / "metrics.csv", csv_text(header, ([row[k] for k in header] for row in history)))


def write_finish(
    folder: Path,
    config: RunConfig,
    corpus: Corpus,
    history: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    predictions: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    """Predictions, confusion matrix, plots, report; `result.json` last, since its presence says that the run is whole."""
    from fusionzoo.experiments.reproduction import write_card
    from fusionzoo.reporting.run import write_run_report
    from fusionzoo.scoring.inference import prediction_header, prediction_rows

    names = list(corpus.label_names)
    rows = [r for split, (which, p) in predictions.items() for r in prediction_rows(corpus, split, which, p, names)]
    write_text(folder / "predictions.csv", csv_text(prediction_header(names), rows))
    scored = result["test"] or result["dev"]
    if scored:
        matrix = zip(names, scored["confusion"], strict=True)
        write_text(folder / "confusion.csv", csv_text(["true \\ predicted", *names], ([n, *r] for n, r in matrix)))
    write_run_report(folder, config, history, result)
    environment = read_json(EnvironmentFile, folder / "environment.json", CheckpointError)
    write_card(folder, config, result, environment)
    write_json(folder / "result.json", result)


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a finished run."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def flops_per_utterance(meta: Mapping[str, Any], corpus: Corpus, split: str) -> float | None:
    """Floating-point operations of matrix products in one forward pass over some dialogues, divided by their utterances.

    Counted by torch on a CPU copy with fresh weights; None where the model does something that cannot be counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from fusionzoo.data.loading import split_of
    from fusionzoo.runs.models import build_host

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # oneDNN's fused recurrences hide their products from the counter, and switching it off warns about Intel GPUs.
        warnings.simplefilter("ignore")
        host = build_host(meta).eval()
        size = 8 if corpus.features else 1  # a recording may cost much
        batch = next(iter(split_of(corpus, split).batches(size, shuffle=False, seed=0, epoch=0)))
        try:
            with (
                torch.inference_mode(),
                torch.backends.mkldnn.flags(enabled=False),
                FlopCounterMode(display=False) as counter,
            ):
                host(batch)
        except (
            RuntimeError,
            AttributeError,
        ):  # the latter of parametrised weights, whose property hides what went wrong
            return None
    return counter.get_total_flops() / max(batch.num_utterances, 1)


def clear_run(folder: Path) -> None:
    """Remove a run that is to be made anew. Refuses a folder that is not a run's."""
    if not folder.exists():
        return
    known = (folder / "config.yaml").exists() or not any(os.scandir(folder))
    if not known:
        raise ConfigError(f"{str(folder)!r} is in the way: it is not the folder of a run, so it is left alone")
    shutil.rmtree(folder)
