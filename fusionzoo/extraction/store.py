"""Shards: the features of some utterances in a file that is either whole or not there, so that a killed run goes on.

A folder's name holds a hash of everything that decides what is in it (the model's files, the options, the words or the
recordings' sizes and times), so that another run never takes the shards of this one for its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionzoo._file_schemas import FailedRows
from fusionzoo._files import write_bytes, write_json
from fusionzoo._schema import check, parse_json, read_json
from fusionzoo._weights import read_tensors
from fusionzoo.errors import CheckpointError


@dataclass
class Shard:
    """The features of some rows of the corpus.

    rows : which rows have features.
    features : `(n, d)` float32.
    failed : those that have none, as (row, file, reason).
    """

    rows: list[int] = field(default_factory=list)
    features: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    failed: list[tuple[int, str, str]] = field(default_factory=list)


class Store:
    """The shards of one modality: `folder/<modality>-<hash>/00000.safetensors`.

    plan : the rows of each shard.
    identity : JSON-able, everything that decides the features.
    """

    def __init__(self, folder: Path, modality: str, identity: Any, plan: Sequence[Sequence[int]]):
        text = json.dumps([identity, [list(rows) for rows in plan]], sort_keys=True, default=str)
        self.folder = folder / f"{modality}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.plan = plan

    def path(self, index: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{index:05d}.safetensors"

    def write(self, index: int, shard: Shard) -> None:
        """Write a shard, whole or not at all."""
        from safetensors.numpy import save

        arrays = {"rows": np.asarray(shard.rows, np.int64), "features": np.ascontiguousarray(shard.features)}
        write_bytes(self.path(index), save(arrays, {"failed": json.dumps(shard.failed)}))

    def read(self, index: int) -> Shard | None:
        """A finished shard; None where there is none, or where the file is not what was written."""
        path = self.path(index)
        if not path.is_file():
            return None
        try:
            tensors, metadata = read_tensors(path)
            where = f"{path}: failed"
            found = check(
                FailedRows, parse_json(metadata.get("failed", ""), where, CheckpointError), where, CheckpointError
            )
        except CheckpointError:  # damaged in whatever way: it is made again
            return None
        rows, features = tensors.get("rows"), tensors.get("features")
        if rows is None or rows.dtype != torch.int64 or rows.dim() != 1:
            return None
        if features is None or features.dtype != torch.float32 or features.dim() != 2 or len(features) != len(rows):
            return None
        shard = Shard(rows.tolist(), features.numpy(), [(row, file, why) for row, file, why in found])
        done = sorted([*shard.rows, *(row for row, _, _ in shard.failed)])
        return shard if done == sorted(self.plan[index]) else None

    def unfinished(self) -> list[int]:
        """Numbers of the shards that are not there."""
        return [i for i in range(len(self.plan)) if self.read(i) is None]

    def write_facts(self, facts: dict[str, Any]) -> None:
        """What the card says about the model; written by whoever loaded it, before the first shard."""
        write_json(self.folder / "facts.json", facts)

    def facts(self) -> dict[str, Any]:
        """What `write_facts` wrote; empty where nobody has."""
        path = self.folder / "facts.json"
        return read_json(dict[str, Any], path, CheckpointError) if path.is_file() else {}


def plan_shards(sizes: Sequence[tuple[int, float]], per_shard: int) -> list[list[int]]:
    """Rows sorted by size, the largest first (so that memory runs out at once or not at all), cut into shards."""
    rows = [row for row, _ in sorted(sizes, key=lambda pair: (-pair[1], pair[0]))]
    return [rows[i : i + per_shard] for i in range(0, len(rows), per_shard)]
