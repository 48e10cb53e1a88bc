"""Checkpoints that survive `kill -9`.

A checkpoint is a folder `checkpoints/epoch-00012/`. It is written under a temporary name, every file flushed, then a
manifest with sizes and SHA-256 of all files, and renamed last. What is under a temporary name, or does not agree with
its manifest, never counts: the newest complete checkpoint is used.

    model.safetensors       weights
    average.safetensors     their moving average, where there is one
    optimizer.pt            optimizer (and gradient scaler), read with weights_only=True: nothing in it is executed
    state.json              epoch, history, best epoch, learning-rate state, seconds
    manifest.json           sizes and hashes of the above
"""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusionzoo._file_schemas import ManifestFile, StateFile
from fusionzoo._files import json_text, sha256_file, sync_file, sync_folder, write_json
from fusionzoo._schema import bytes_of, check_regular, read_json
from fusionzoo._weights import pack_weights, read_weights
from fusionzoo.errors import CheckpointError, FusionZooWarning

MANIFEST = "manifest.json"
_NAME = re.compile(r"epoch-(\d+)")


@dataclass
class Checkpoint:
    """Everything that training continues from. All tensors are on the CPU after loading."""

    model: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    state: dict[str, Any]

    @property
    def epoch(self) -> int:
        """Epochs completed, from 1."""
        return int(self.state["epoch"])


def checkpoint_folder(run: Path, epoch: int) -> Path:
    """`checkpoints/epoch-00012` of a run folder."""
    return run / "checkpoints" / f"epoch-{epoch:05d}"


def write_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint so that it is complete or absent whenever the process dies. Returns its folder."""
    final = checkpoint_folder(run, checkpoint.epoch)
    temporary = final.with_name(f".{final.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    buffer = io.BytesIO()
    torch.save(checkpoint.optimizer, buffer)
    contents = {
        "model.safetensors": pack_weights(checkpoint.model),
        "optimizer.pt": buffer.getvalue(),
        "state.json": json_text(checkpoint.state).encode(),
    }
    if checkpoint.average is not None:
        contents["average.safetensors"] = pack_weights(checkpoint.average)
    manifest: dict[str, Any] = {"format": 1, "epoch": checkpoint.epoch, "files": {}}
    for name, data in contents.items():
        path = temporary / name
        path.write_bytes(data)
        sync_file(path)
        manifest["files"][name] = {"bytes": len(data), "sha256": sha256_file(path)}
    write_json(temporary / MANIFEST, manifest)
    if final.exists():  # a resumed run repeats an epoch whose checkpoint was found damaged
        shutil.rmtree(final)
    os.replace(temporary, final)
    sync_folder(final.parent)
    return final


def list_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """`(epoch, folder)` of what is named as a checkpoint, oldest first; not yet verified."""
    folder = run / "checkpoints"
    found = ((m, p) for p in (folder.iterdir() if folder.is_dir() else ()) if (m := _NAME.fullmatch(p.name)))
    return sorted((int(m[1]), p) for m, p in found)


def verify_checkpoint(folder: Path) -> None:
    """Raise `CheckpointError` unless every file of the manifest is there, whole and unchanged."""
    try:
        files = read_json(ManifestFile, folder / MANIFEST, CheckpointError)["files"]
        for name, entry in files.items():
            path = folder / name
            size = check_regular(path, CheckpointError)
            if size != entry["bytes"]:
                raise CheckpointError(f"{name} has {size} bytes instead of {entry['bytes']}")
            if sha256_file(path) != entry["sha256"]:
                raise CheckpointError(f"{name} does not have the contents that were written")
        absent = {"model.safetensors", "optimizer.pt", "state.json"} - files.keys()
        if absent:
            raise CheckpointError(f"its manifest does not name {', '.join(sorted(absent))}")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"it is incomplete ({error})") from error


def read_checkpoint(folder: Path) -> Checkpoint:
    """Verify and read one checkpoint, or raise `CheckpointError`."""
    verify_checkpoint(folder)
    average = folder / "average.safetensors"
    return Checkpoint(
        model=read_weights(folder / "model.safetensors"),
        average=read_weights(average) if average.exists() else None,
        optimizer=_read_optimizer(folder / "optimizer.pt"),
        state=_read_state(folder),
    )


def _read_state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = {**read_json(StateFile, folder / "state.json", CheckpointError)}
    epoch, best, history = state["epoch"], state["best"]["epoch"], state["history"]
    if folder.name != checkpoint_folder(Path(), epoch).name or len(history) != epoch or best > epoch:
        raise CheckpointError(
            f"{str(folder / 'state.json')!r} contradicts itself: {len(history)} epochs of history, epoch {epoch}, best epoch "
            f"{best}, in the folder {folder.name!r}"
        )
    return state


def _read_optimizer(path: Path) -> dict[str, Any]:
    """Three state dicts of tensors and plain values."""
    data = bytes_of(path, CheckpointError, limit=check_regular(path, CheckpointError))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(m.file_size for m in archive.infolist()) > len(data):  # torch stores, it does not compress
                raise CheckpointError(
                    f"{str(path)!r} promises more data than it holds; it is damaged, or made to fill the memory"
                )
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises to switch the protection off.
        raise CheckpointError(
            f"{str(path)!r} holds something other than tensors and plain values; nothing was executed"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a file that somebody made can fail in any way, deep in zipfile or torch
        raise CheckpointError(f"{str(path)!r} cannot be read: {type(error).__name__}: {error}") from error
    parts = ("optimizer", "objective", "scaler")
    if not isinstance(found, dict) or any(not isinstance(found.get(k), (dict, type(None))) for k in parts):
        raise CheckpointError(f"{str(path)!r} does not hold the states of optimizer, objective and scaler")
    return {k: found.get(k) or {} for k in parts}


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole and whose best epoch is there too; a warning names each one passed over."""
    return next(_usable(run), None)


def _usable(run: Path) -> Iterator[Checkpoint]:
    for epoch, folder in reversed(list_checkpoints(run)):
        try:
            checkpoint = read_checkpoint(folder)
            best = checkpoint.state["best"]["epoch"]
            if best != epoch:
                verify_checkpoint(checkpoint_folder(run, best))
        except CheckpointError as error:
            warnings.warn(
                f"passing over the damaged checkpoint {str(folder)!r}: {error}", FusionZooWarning, stacklevel=3
            )
            continue
        yield checkpoint


def remove_old_checkpoints(run: Path, keep: int, best: int) -> None:
    """Keep the newest `keep` checkpoints and the best one; remove the others, and what was left half written."""
    checkpoints = list_checkpoints(run)
    newest = [epoch for epoch, _ in checkpoints][-keep:] if keep else []
    for epoch, folder in checkpoints:
        if epoch != best and epoch not in newest:
            # Renamed first: a removal that is cut short must not leave something that looks like a checkpoint.
            doomed = folder.with_name(f".{folder.name}.removed")
            os.replace(folder, doomed)
    for leftover in (run / "checkpoints").glob(".epoch-*"):
        shutil.rmtree(leftover, ignore_errors=True)
