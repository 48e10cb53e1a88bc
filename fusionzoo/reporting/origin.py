"""Where a page's numbers come from: command, data, device, versions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusionzoo._file_schemas import ResultFile
from fusionzoo._schema import read_json
from fusionzoo.errors import CheckpointError


def read_environment(folder: Path) -> dict[str, Any]:
    """`environment.json` of a run, empty where there is none."""
    path = folder / "environment.json"
    return read_json(dict[str, Any], path, CheckpointError) if path.exists() else {}


def origin_text(command: Sequence[str], results: Sequence[ResultFile]) -> str:
    """The command, and name and SHA-256 of all data that these runs read."""
    data = {r["data"]["name"]: r["data"]["sha256"] for r in results}
    devices = list(dict.fromkeys(r["device"] for r in results))
    lines = [f"$ {shlex.join(map(str, command))}", ""] if command else []
    lines += [f"data {name}: SHA-256 {digest}" for name, digest in data.items()]
    return "\n".join([*lines, *([f"device: {', '.join(devices)}"] if devices else [])])


def versions_text(packages: Mapping[str, str]) -> str:
    """A line per package."""
    return "\n".join(f"{name} {version}" for name, version in packages.items())
