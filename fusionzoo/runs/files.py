"""What a run writes: text, JSON and bytes, each by the one writer of `fusionzoo._files`, and checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusionzoo._files import sync_folder, write_bytes, write_text, writing

__all__ = ["sha256_file", "sync_file", "sync_folder", "write_bytes", "write_json", "write_text", "writing"]


def sync_file(path: Path) -> None:
    """Flush one file's contents to the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON atomically; NaN and infinity become null, so that every reader understands the file."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Strict JSON; NaN and infinity become null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
