"""`extract`: batches by length, shards as it goes, any number of processes, and the columnar file at the end."""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionzoo._files import write_json
from fusionzoo._options import check_choice, check_positive
from fusionzoo._processes import forget_accelerate, several_processes
from fusionzoo._progress import Bar
from fusionzoo._types import Options
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.npz import save_npz
from fusionzoo.data.raw import RawCorpus, RawUtterance, read_raw
from fusionzoo.errors import DataError, MediaError, OptionError, OutputError, TrainingError
from fusionzoo.extraction.features import Feature, make_features
from fusionzoo.extraction.store import Shard, Store, plan_shards

PRECISIONS = ("no", "bf16", "fp16")


@dataclass
class Extraction:
    """What was made.

    path : the columnar file, for `--data`.
    card : the JSON file that says how.
    widths : modality -> width.
    utterances : rows of the file.
    failed : modality -> what could not be read, each `{"utterance", "file", "reason"}`.
    absent : modality -> utterances that have no such recording.
    dropped : utterances left out, which had nothing at all.
    reused : shards that an earlier run had finished.
    is_main : False in all processes but the first.
    """

    path: Path
    card: Path
    widths: dict[str, int] = field(default_factory=dict)
    utterances: int = 0
    failed: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    absent: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    reused: int = 0
    notes: list[str] = field(default_factory=list)
    is_main: bool = True

    def __str__(self) -> str:
        made = ", ".join(f"{m} {d}" for m, d in self.widths.items())
        lines = [f"wrote {self.path}: {self.utterances} utterances, {made}", f"how it was made: {self.card}"]
        for modality, rows in self.failed.items():
            if rows:
                lines.append(f"{modality}: {len(rows)} could not be read and were skipped, e.g. {rows[0]['reason']}")
        lines += [f"{m}: {n} utterances have no recording" for m, n in self.absent.items() if n]
        if self.dropped:
            lines.append(f"{self.dropped} utterances were left out: nothing of them could be read")
        return "\n".join(lines + self.notes)


def extract(
    corpus: RawCorpus | str | os.PathLike[str],
    text: str | os.PathLike[str] | None = None,
    audio: str | os.PathLike[str] | None = None,
    video: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] = "features",
    name: str | None = None,
    kind: str | None = None,
    reader: Options | None = None,
    layer: str | int | Mapping[str, str | int] | None = None,
    pooling: str | Mapping[str, str] | None = None,
    normalise: bool | str | Mapping[str, bool | str] | None = None,
    revision: str | Mapping[str, str] | None = None,
    batch_size: int | Mapping[str, int] | None = None,
    max_length: int | None = None,
    seconds: float | None = None,
    scale: str | None = None,
    frames: int | None = None,
    picture: str | None = None,
    shard_size: int = 256,
    precision: str | None = None,
    device: str = "auto",
    workers: int = 2,
    quiet: bool = False,
) -> Extraction:
    """Run pretrained encoders over a release and write one vector per utterance and modality.

    Parameters
    ----------
    corpus : the release's folder, or a `RawCorpus` (see `fusionzoo.data.raw`).
    text, audio, video : models, each a local folder or a name of the hub; the modalities are text, audio and visual.
    out : a folder; the file is `out/<name>.npz`, its card `out/<name>.card.json`, the shards are in `out/.shards`.
    name : of the file; None for the corpus's.
    kind : the release's name, where its layout does not say which one it is.
    reader : options of its reader, such as `{"classes": 4}`.
    layer, pooling, normalise, revision, batch_size : a value for all media, or `{"text": ..., "audio": ...}`; see
        `fusionzoo.extraction.features.Feature`.
    max_length : of text, in tokens.
    seconds, scale : of audio.
    frames, picture : of video.
    shard_size : utterances per shard: what a killed run has to do again at most.
    precision : `"no"`, `"bf16"`, `"fp16"`; None is what `accelerate launch` says, else `"no"`.
    device : auto, cpu, cuda, cuda:N.
    workers : threads that read files ahead.
    quiet : show no progress.

    Started again after whatever ended it, with the same options, it goes on where it was. Several processes
    (`accelerate launch -m fusionzoo extract ...`) share the shards; the first one writes the file.

    Raises
    ------
    ModelError : a model cannot be had.
    DataError : the release cannot be read, or nothing of it could.
    """
    check_positive(shard_size, "shard_size", extract)
    check_positive(workers, "workers", extract)
    options = {
        "layer": layer,
        "pooling": pooling,
        "normalise": normalise,
        "revision": revision,
        "batch_size": batch_size,
        "max_length": max_length,
        "seconds": seconds,
        "scale": scale,
        "frames": frames,
        "picture": picture,
    }
    features = make_features({"text": text, "audio": audio, "video": video}, options)
    precision = check_choice(
        precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no"), PRECISIONS, "precision", extract
    )
    raw = corpus if isinstance(corpus, RawCorpus) else read_raw(corpus, kind, **dict(reader or {}))
    if not raw.utterances:
        raise DataError(f"{raw.root}: {raw.name} has no utterance that can be used; see `fusionzoo data inspect`.")
    for feature in features:
        raw.require(feature.medium)  # says what there is where there is none at all
        feature.find()

    state = _processes(device)
    if precision == "fp16" and state.device.type == "cpu":
        raise OptionError("precision='fp16' needs a GPU; on a CPU take bf16 or no")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is no folder, and features are written to one; choose another --out")
    result = Extraction(folder / f"{name or raw.name}.npz", folder / f"{name or raw.name}.card.json")
    result.is_main = state.is_main_process
    stores = []
    with Bar(not quiet and state.is_main_process, "utterances") as bar:
        for feature in features:
            store, reused = _run(feature, raw, folder, shard_size, precision, state, workers, bar)
            stores.append(store)
            result.reused += reused
    state.wait_for_everyone()
    if state.is_main_process:
        _assemble(raw, features, stores, result, precision)
    state.wait_for_everyone()
    return result


# ---------------------------------------------------------------------- running


def _processes(device: str) -> Any:
    """Accelerate's view of the processes, with the device of this one."""
    from accelerate.state import PartialState

    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not index.isdigit()):
        raise OptionError(f"device={device!r} is not one of auto, cpu, cuda, cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device=cuda, but torch sees no CUDA device; use device=auto or cpu")
    if not several_processes():
        forget_accelerate()
    state = PartialState(cpu=kind == "cpu")
    if index:
        if int(index) >= torch.cuda.device_count():
            raise TrainingError(f"device={device!r}, but torch sees {torch.cuda.device_count()} CUDA devices")
        state.device = torch.device(device)
    return state


def _run(
    feature: Feature,
    raw: RawCorpus,
    folder: Path,
    shard_size: int,
    precision: str,
    state: Any,
    workers: int,
    bar: Bar,
) -> tuple[Store, int]:
    """Make this process's share of a modality's shards; returns where all of them are and how many were there before."""
    rows = [i for i, u in enumerate(raw.utterances) if u.has(feature.medium)]
    plan = plan_shards([(i, feature.size(raw.utterances[i])) for i in rows], shard_size)
    assert feature.files is not None
    identity = {
        "model": feature.files.fingerprint(),
        "settings": feature.settings(),
        "precision": precision,
        "utterances": [feature.identity(raw.utterances[i]) for i in rows],
    }
    store = Store(folder / ".shards", feature.modality, identity, plan)
    store.folder.mkdir(parents=True, exist_ok=True)
    unfinished = set(store.unfinished())
    mine = [i for i in sorted(unfinished) if i % state.num_processes == state.process_index]
    done = sum(len(plan[i]) for i in range(len(plan)) if i not in unfinished)
    total = done + sum(len(plan[i]) for i in mine) if state.num_processes > 1 else len(rows)
    what = f"{feature.modality}: {Path(feature.model).name}"
    bar.start(what, total, done)
    if not bar.on_terminal:
        bar.line(f"{what}: {total} utterances" + (f", {done} done before" if done else ""))
    if mine:
        feature.load(state.device)
        if not store.facts():
            store.write_facts(feature.facts() | {"device": state.device.type})
        with ThreadPoolExecutor(max_workers=workers) as pool:
            for index in mine:
                store.write(
                    index, _shard(feature, raw.utterances, plan[index], precision, state.device, pool, workers, bar)
                )
        feature.encoder = None
    return store, len(plan) - len(unfinished)


def _shard(
    feature: Feature,
    utterances: Sequence[RawUtterance],
    rows: Sequence[int],
    precision: str,
    device: torch.device,
    pool: ThreadPoolExecutor,
    workers: int,
    bar: Bar,
) -> Shard:
    shard, made = Shard(), []
    batches = [rows[i : i + feature.batch_size] for i in range(0, len(rows), feature.batch_size)]
    for batch, read in _ahead(feature, utterances, batches, pool, workers):
        good, inputs = [], []
        for row, future in zip(batch, read, strict=True):
            try:
                inputs.append(future.result())
                good.append(row)
            except MediaError as error:
                shard.failed.append((row, feature.source(utterances[row]), str(error)))
                bar.line(f"skipped: {error}")
        if good:
            vectors = _encode(feature, inputs, precision, device)
            for row, vector in zip(good, vectors, strict=True):
                if np.isfinite(vector).all():
                    shard.rows.append(row)
                    made.append(vector)
                else:
                    why = f"{feature.source(utterances[row])}: the model gave values that are not finite"
                    shard.failed.append((row, feature.source(utterances[row]), why))
                    bar.line(f"skipped: {why}")
        bar.advance(len(batch))
    if made:
        shard.features = np.stack(made)
    return shard


def _ahead(
    feature: Feature,
    utterances: Sequence[RawUtterance],
    batches: Sequence[Sequence[int]],
    pool: ThreadPoolExecutor,
    workers: int,
) -> Iterator[tuple[Sequence[int], list[Future[Any]]]]:
    """Batches with what is read of them; the next one is read while this one is in the model."""
    waiting: deque[tuple[Sequence[int], list[Future[Any]]]] = deque()
    for batch in batches:
        waiting.append((batch, [pool.submit(feature.read, utterances[row]) for row in batch]))
        if len(waiting) > 1:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


@torch.no_grad()
def _encode(feature: Feature, inputs: list[Any], precision: str, device: torch.device) -> np.ndarray:
    """`(B, width)` float32; a batch that the device's memory does not hold is cut in half."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    try:
        with torch.autocast(device.type, kinds.get(precision, torch.bfloat16), enabled=precision != "no"):
            return feature.encode(inputs).float().cpu().numpy()
    except torch.OutOfMemoryError:
        if len(inputs) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(inputs) // 2
    parts = [_encode(feature, part, precision, device) for part in (inputs[:half], inputs[half:])]
    return np.concatenate(parts)


# ---------------------------------------------------------------------- putting together


def _assemble(
    raw: RawCorpus, features: Sequence[Feature], stores: Sequence[Store], result: Extraction, precision: str
) -> None:
    """The columnar file and its card from all shards."""
    made = {f.modality: _matrix(raw, f, store, result) for f, store in zip(features, stores, strict=True)}
    keep = np.any([mask for _, mask in made.values()], axis=0)
    rows = [u for u, k in zip(raw.utterances, keep, strict=True) if k]
    result.dropped, result.utterances = len(raw.utterances) - len(rows), len(rows)
    result.widths = {m: int(x.shape[1]) for m, (x, _) in made.items()}
    result.notes = _split_notes(raw)

    card = _card(raw, features, stores, result, precision)
    corpus = Corpus(
        name=result.path.stem,
        features={m: x[keep] for m, (x, _) in made.items()},
        dialogue_id=np.array([u.dialogue_id for u in rows], dtype=str),
        utterance_index=np.array([u.index for u in rows]),
        speaker=np.array([u.speaker for u in rows], dtype=str),
        label=np.array([u.label for u in rows]),
        label_names=raw.label_names,
        split=np.array([u.split or "train" for u in rows], dtype=str),
        present={m: mask[keep] for m, (_, mask) in made.items() if not mask[keep].all()},
        utterance_id=np.array([u.id for u in rows], dtype=str),
        info={"extraction": card, **_views(features)},
        extras=_extras(rows),
    )
    result.path.parent.mkdir(parents=True, exist_ok=True)
    save_npz(corpus, result.path)
    write_json(result.card, card | {"failed": result.failed})


def _matrix(raw: RawCorpus, feature: Feature, store: Store, result: Extraction) -> tuple[np.ndarray, np.ndarray]:
    """All rows of a modality and which of them there are, from its shards; what failed goes into `result`."""
    count = len(raw.utterances)
    shards = [shard for i in range(len(store.plan)) if (shard := store.read(i)) is not None]
    if len(shards) < len(store.plan):
        raise DataError(f"{store.folder}: a shard that was written is gone or damaged; run the command again.")
    good = [s for s in shards if s.rows]
    failed = sorted(f for s in shards for f in s.failed)
    result.failed[feature.modality] = [
        {"utterance": raw.utterances[row].id, "file": file, "reason": why} for row, file, why in failed
    ]
    result.absent[feature.modality] = count - sum(len(rows) for rows in store.plan)
    if not good:
        raise DataError(
            f"{raw.root}: nothing of {feature.medium} could be read; the first of {len(failed)} problems: {failed[0][2]}"
        )
    matrix = np.zeros((count, good[0].features.shape[1]), np.float32)
    mask = np.zeros(count, bool)
    for shard in good:
        matrix[shard.rows], mask[shard.rows] = shard.features, True
    return matrix, mask


def _views(features: Sequence[Feature]) -> dict[str, int]:
    """That text is four layers side by side, so that a host can take them apart."""
    return {"text_views": 4} if any(f.modality == "text" and f.layer == "views" for f in features) else {}


def _split_notes(raw: RawCorpus) -> list[str]:
    if raw.has_splits:
        return []
    return [
        f"{raw.name} comes without splits: every dialogue is in train; its folds are in the column 'fold', "
        f"and --split FILE gives a split when training"
        if raw.folds
        else f"{raw.name} comes without splits: every dialogue is in train; --split FILE gives one when training"
    ]


def _extras(rows: Sequence[RawUtterance]) -> dict[str, np.ndarray]:
    """Annotations as columns: those that every utterance has, of numbers, of texts, or of as many numbers."""
    known = {c: [getattr(u, c) or "" for u in rows] for c in ("fold", "gender")}
    columns = {c: np.array(values, dtype=str) for c, values in known.items() if any(values)}
    for key in sorted(set(rows[0].extras) if rows else ()):
        column = _column([u.extras.get(key) for u in rows])
        columns |= {key: column} if column is not None else {}
    reserved = {"text", "audio", "visual", "label", "speaker", "split"}
    return {k if k not in reserved else f"raw_{k}": v for k, v in columns.items()}


def _column(values: Sequence[Any]) -> np.ndarray | None:
    """Texts, numbers, or as many numbers in each, as an array; None for anything else."""
    if all(isinstance(v, str) for v in values):
        return np.array(values, dtype=str)
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    vectors = all(isinstance(v, (list, tuple)) and all(isinstance(x, (int, float)) for x in v) for v in values)
    if numbers or (vectors and len({len(v) for v in values}) == 1):
        return np.array(values, dtype=float)
    return None


def _card(
    raw: RawCorpus, features: Sequence[Feature], stores: Sequence[Store], result: Extraction, precision: str
) -> dict[str, Any]:
    """How each modality was made. No path of the machine, so that it can be handed on with the file."""
    made = {}
    for feature, store in zip(features, stores, strict=True):
        assert feature.files is not None
        local = feature.files.folder.name if Path(feature.model).expanduser().is_dir() else feature.model
        failed = len(result.failed[feature.modality])
        made[feature.modality] = {
            "model": local,
            "revision": feature.files.revision,
            "sha256": feature.files.fingerprint(),
            **feature.settings(),
            **store.facts(),
            "width": result.widths[feature.modality],
            "utterances": sum(map(len, store.plan)) - failed,
            "failed": failed,
            "absent": result.absent[feature.modality],
        }
    return {
        "corpus": {
            "name": raw.name,
            "utterances": result.utterances,
            "dropped": result.dropped,
            "skipped": raw.skipped(),
        },
        "features": made,
        "precision": precision,
        "versions": _versions(features),
    }


def _versions(features: Sequence[Feature]) -> dict[str, str]:
    import importlib.metadata as metadata

    import fusionzoo
    from fusionzoo.media import versions

    found = {"fusionzoo": fusionzoo.__version__, "python": platform.python_version(), "torch": torch.__version__}
    for package in ("transformers", "tokenizers", "safetensors", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found | (versions() if any(f.medium != "text" for f in features) else {})
