"""The run folder: who may write to it, and what lies in it.

config.yaml         effective configuration, enough to run again
environment.json    versions, device, command, git commit, hash of the data
metrics.csv         one row an epoch
checkpoints/        see fusionzoo.training.checkpoint
model.safetensors, model.json     weights of the best epoch and what they belong to
predictions.csv     every utterance of dev and test: true, predicted, probabilities
confusion.csv       of the test split (dev where test has no labels); confusion.png, curves.png with matplotlib
result.json         scores, chosen epoch, parameters, seconds
report.html         all of it on one page
card.json           configuration, scores, data and versions: what `fusionzoo reproduce` does again and compares
"""

from __future__ import annotations

import json
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
from fusionzoo._csv import csv_text
from fusionzoo.errors import CheckpointError, ConfigError
from fusionzoo.training.config import INCIDENTAL, DataConfig, FusionConfig, RunConfig, flatten
from fusionzoo.training.files import write_json, write_text
from fusionzoo.training.options import NO_FUSION

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


def claim(folder: Path, config: RunConfig, resume: bool) -> dict[str, Any] | None:
    """Check that this run may use the folder; the result of a run that has finished already, when resuming.

    Raises `ConfigError` for a folder that holds a run (without `resume`), `CheckpointError` when what is to be resumed
    was configured differently.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"the run folder {str(folder)!r} is a file; choose another --out")
    stored = folder / "config.yaml"
    if not stored.exists():
        return None
    if not resume:
        raise ConfigError(f"{str(folder)!r} already holds a run; continue it with --resume or choose another --out")
    started = RunConfig.load(stored)
    if started.fusion.name == NO_FUSION and not config.fusion.asked:
        config.fusion = FusionConfig(NO_FUSION)  # a default, as it turned out with one modality
    before, now = (flatten(c.to_dict()) for c in (started, config))
    free = {*INCIDENTAL, "training.device"}
    if config.training.scheduler in ("constant", "plateau", "step") and not config.training.warmup:
        free |= {"training.epochs", "training.patience"}  # these schedules do not depend on how long the run is
    changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k) and k not in free)
    if changed:
        listing = "; ".join(f"{k} was {before.get(k)!r} and is {now.get(k)!r}" for k in changed)
        raise CheckpointError(
            f"the run in {str(folder)!r} was started with another configuration, so its checkpoints do not fit: {listing}. "
            "Resume with the configuration it was started with, or choose another --out."
        )
    result = read_result(folder)
    same = all(before.get(k) == now.get(k) for k in ("training.epochs", "training.patience"))
    return result if same else None


def read_result(folder: Path) -> dict[str, Any] | None:
    """`result.json` of a finished run, `None` where there is none."""
    try:
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def write_start(folder: Path, config: RunConfig, corpus: Corpus, data_sha256: str, accelerator: Accelerator) -> None:
    """What is known before the first epoch."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", config.to_yaml())
    device = (
        torch.cuda.get_device_name()
        if accelerator.device.type == "cuda"
        else platform.processor() or platform.machine()
    )
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
    from importlib.metadata import distributions, entry_points

    names = {"fusionzoo", "torch", "torch-geometric", "accelerate", "numpy", "scikit-learn", "safetensors"}
    from fusionzoo.specs import GROUPS

    names |= {e.dist.name for g in GROUPS.values() for e in entry_points(group=g) if e.dist is not None}
    found = {d.name: d.version for d in distributions() if d.name and d.name.lower() in {n.lower() for n in names}}
    return dict(sorted(found.items())) | {"fusionzoo": fusionzoo.__version__}


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
    from fusionzoo.evaluation.inference import prediction_header, prediction_rows
    from fusionzoo.evaluation.report import write_run_report
    from fusionzoo.evaluation.reproduce import write_card

    names = list(corpus.label_names)
    rows = [r for split, (which, p) in predictions.items() for r in prediction_rows(corpus, split, which, p, names)]
    write_text(folder / "predictions.csv", csv_text(prediction_header(names), rows))
    scored = result["test"] or result["dev"]
    if scored:
        matrix = zip(names, scored["confusion"], strict=True)
        write_text(folder / "confusion.csv", csv_text(["true \\ predicted", *names], ([n, *r] for n, r in matrix)))
    write_run_report(folder, config, history, result)
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
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
    from fusionzoo.training.models import build_host

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
