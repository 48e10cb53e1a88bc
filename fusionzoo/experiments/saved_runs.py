"""Scores and predictions of a trained run on any data that fit it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fusionzoo._csv import csv_text
from fusionzoo._files import write_json, write_text
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.loading import split_of
from fusionzoo.errors import CheckpointError, DataError, ShapeError, TrainingError
from fusionzoo.runs.config import DataConfig, RunConfig
from fusionzoo.runs.data_section import absolute_source, corpus_sha256, load_corpus
from fusionzoo.runs.models import load_model
from fusionzoo.scoring.inference import prediction_header, prediction_rows, split_probabilities
from fusionzoo.scoring.metrics import evaluate_predictions
from fusionzoo.scoring.regression import regression_of

if TYPE_CHECKING:
    from fusionzoo._file_schemas import ModelFile
    from fusionzoo._types import Options, Scores
    from fusionzoo.host import Host


def evaluate(
    run: str | Path,
    data: str | Path | Corpus | None = None,
    split: str = "test",
    *,
    out: str | Path | None = None,
    allow_missing: bool = False,
    device: str | None = None,
    batch_size: int = 16,
    **options: object,
) -> Scores:
    """Scores of a trained run on one split of some data.

    Parameters
    ----------
    run : a run folder.
    data : what to score: a path, the name of a dataset, or a corpus; `None` for the data that it was trained on.
    split : `train`, `dev` or `test`.
    out : a JSON file to write the scores to.
    allow_missing : whether data may lack a modality that the model knows; the fusion's `missing=` then stands in for it.
    device : `None` or `auto` for a GPU where there is one.
    batch_size : dialogues at a time; rounding apart, no score depends on it.
    options : handed to the reader of `data`.

    Returns
    -------
    What `evaluate_predictions` returns, and `run`, `split`, `data`, `data_sha256`, `selection`.

    Raises
    ------
    CheckpointError : the folder holds no model, or a damaged one.
    ShapeError : the data have other widths.
    DataError : the data have other modalities, classes or speakers, or no labels.
    """
    host, meta, corpus = prepare(run, data, allow_missing, device, options)
    check_classes(corpus, meta, run)
    rows, probabilities = probabilities_of(host, corpus, split, batch_size)
    if not len(rows):
        raise DataError(f"{corpus.name!r} has no utterance in its {split} split; it has {_splits(corpus)}")
    scores = evaluate_predictions(corpus.label[rows], probabilities, meta["label_names"])
    if (regression := regression_of(corpus, rows, probabilities)) is not None:
        scores["regression"] = regression
    scores["run"] = str(run)
    scores["split"] = split
    scores["data"] = corpus.name
    scores["data_sha256"] = corpus_sha256(corpus)
    scores["selection"] = meta.get("selection")
    if out is not None:
        write_json(Path(out), scores)
    return scores


def predict(
    run: str | Path,
    data: str | Path | Corpus | None = None,
    out: str | Path = "predictions.csv",
    *,
    split: str | None = None,
    allow_missing: bool = False,
    device: str | None = None,
    batch_size: int = 16,
    **options: object,
) -> Path:
    """Write predicted class and probabilities of every utterance to a CSV file; the data need no labels.

    Parameters
    ----------
    run, data, allow_missing, device, batch_size, options : as for `evaluate`.
    out : the CSV file: split, dialogue, utterance, true (empty when unlabelled), predicted, `p_<class>`.
    split : only this split; `None` for all.

    Returns
    -------
    The path of the file.
    """
    host, meta, corpus = prepare(run, data, allow_missing, device, options)
    if (corpus.label >= 0).any():
        check_classes(corpus, meta, run)
    names = meta["label_names"]
    rows: list[list[Any]] = []
    for part in (split,) if split else ("train", "dev", "test"):
        if (corpus.split == part).any():
            which, probabilities = probabilities_of(host, corpus, part, batch_size)
            rows += prediction_rows(corpus, part, which, probabilities, names)
    if not rows:
        raise DataError(f"{corpus.name!r} has no utterance in its {split} split; it has {_splits(corpus)}")
    write_text(Path(out), csv_text(prediction_header(names), rows))
    return Path(out)


def load_run(run: str | Path, device: str | None) -> tuple[Host, ModelFile]:
    """The trained host of a run folder on a device, and the contents of its `model.json`."""
    if device in (None, "auto"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError(f"device={device!r}, but torch sees no CUDA device; use --device cpu")
    return load_model(run, device)


def prepare(
    run: str | Path, data: str | Path | Corpus | None, allow_missing: bool, device: str | None, options: Options
) -> tuple[Host, ModelFile, Corpus]:
    """A trained host in eval mode, the contents of its `model.json`, and the data with exactly its modalities; see `evaluate`."""
    host, meta = load_run(run, device)
    corpus = data if isinstance(data, Corpus) else load_corpus(_data_section(run, data, options))
    return host, meta, fit_modalities(corpus, meta, run, allow_missing)


def _data_section(run: str | Path, data: str | Path | None, options: Options) -> DataConfig:
    """How to read `data`: as the run did when it is the run's own data, else all of it."""
    stored = Path(run) / "config.yaml"
    own = RunConfig.load(stored).data if stored.exists() else None
    if data is None:
        if own is None:
            raise CheckpointError(f"{str(run)!r} has no config.yaml that names its data; give --data")
        return own
    if own is not None and not options and own.source == absolute_source(str(data)):
        return own
    if own is not None and own.options.get("media") and "media" not in options and Path(data).exists():
        # Another release is read as the one that it was trained on.
        options = {**own.options, **options}
    # Which modalities to take is the model's affair, and no dialogue is moved to a dev split that is not in the data.
    return DataConfig(source=str(data), dev_fraction=0.0, options=dict(options))


def fit_modalities(corpus: Corpus, meta: ModelFile, run: str | Path, allow_missing: bool) -> Corpus:
    """The corpus with exactly the model's modalities, or an error that says what does not fit."""
    wanted: dict[str, int] = meta["dims"]
    trained = f"the model in {str(run)!r} was trained on {_widths(wanted)}"
    absent = [m for m in wanted if m not in corpus.dims]
    if absent and (not allow_missing or len(absent) == len(wanted)):
        raise DataError(
            f"{corpus.name!r} has no modality {absent[0]!r}: it has {_widths(corpus.dims)}, and {trained}. "
            "Use data with the same modalities, or have the fusion stand in for it: --allow-missing (in Python "
            "allow_missing=True)."
        )
    for name, width in wanted.items():
        if name in corpus.dims and corpus.dims[name] != width:
            raise ShapeError(
                f"the features of {name!r} in {corpus.name!r} have width {corpus.dims[name]}, and {trained}. "
                "Use features made by the same extractor."
            )
    if corpus.num_speakers > meta["num_speakers"]:
        raise DataError(
            f"{corpus.name!r} has a dialogue with {corpus.num_speakers} speakers, and the model in {str(run)!r} was trained "
            f"for up to {meta['num_speakers']}; train it on data with as many speakers"
        )
    return corpus.subset([m for m in wanted if m in corpus.dims])


def check_classes(corpus: Corpus, meta: ModelFile, run: str | Path) -> None:
    """Raise `DataError` unless the data's classes are the model's, in the same order."""
    if list(corpus.label_names) != list(meta["label_names"]):
        raise DataError(
            f"the classes of {corpus.name!r} are {', '.join(corpus.label_names)}, and the model in {str(run)!r} was trained on "
            f"{', '.join(meta['label_names'])}, in this order; the labels would be compared wrongly"
        )


def probabilities_of(host: Host, corpus: Corpus, split: str, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a split and their probabilities."""
    corpus.dialogues(split)  # an unknown split is reported with the names of those there are
    if not (corpus.split == split).any():
        return np.zeros(0, int), np.zeros((0, host.num_classes), np.float32)
    resident = split_of(corpus, split, next(host.parameters()).device)
    return split_probabilities(host, corpus, resident, split, batch_size)


def _widths(dims: dict[str, int]) -> str:
    return ", ".join(f"{m} ({d})" for m, d in dims.items())


def _splits(corpus: Corpus) -> str:
    return ", ".join(sorted(set(corpus.split.tolist())))
