"""One builder, in a process of its own: repositories have modules of the same names."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from fusionzoo import patching
from fusionzoo._machine import conditions
from fusionzoo.wild.devices import on
from fusionzoo.wild.removed import put_back
from fusionzoo.wild.stand_ins import Finder
from repositories.checks import examine


def run(name: str, clones: Path, fusions: Sequence[str], alone: bool, folder: Path) -> None:
    """Run one builder with each fusion; what it says goes to `log`, the records to `records.json`, both in a folder."""
    with (folder / "log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        os.chdir(folder)
        torch.set_num_threads(1)
        sys.dont_write_bytecode = True  # nothing is left in the clone
        sys.argv = [name]
        records = _records(name, clones, fusions, alone)
    (folder / "records.json").write_text(json.dumps(records))


def _records(name: str, clones: Path, fusions: Sequence[str], alone: bool) -> list[dict[str, Any]]:
    builder = importlib.import_module(f"repositories.builders.{name}")
    root = clones / builder.REPOSITORY.replace("/", "+")
    records = []
    with warnings.catch_warnings(record=True) as caught, ExitStack() as stack:
        warnings.simplefilter("always")
        if getattr(builder, "OLD", False):  # what `fusionzoo run --device cpu` puts in force
            stack.enter_context(put_back(torch.device("cpu")))
            stack.enter_context(on(torch.device("cpu")))
        finder = stack.enter_context(Finder(lambda message: None))
        for fusion in fusions:
            start = time.process_time()
            record = examine(builder, lambda: _built(builder, root), fusion, alone)
            record |= {"name": name, "repository": builder.REPOSITORY, "commit": builder.COMMIT}
            record |= {"stand_ins": finder.names, "seconds": round(time.process_time() - start, 1)}
            records.append(record)
    said = sorted({str(w.message) for w in caught if w.category.__name__.startswith("FusionZoo")})
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch-geometric", "transformers"))
    same = {"warnings": said, "conditions": f"{conditions()}, {packages}", "patcher": _patcher()}
    return [r | same for r in records]


def _patcher() -> str:
    """Which state of the patcher a record is of."""
    sources = sorted(Path(patching.__path__[0]).rglob("*.py"))
    return hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()[:8]


def _built(builder: ModuleType, root: Path) -> Any:
    if not root.is_dir():
        raise FileNotFoundError(f"no clone of {builder.REPOSITORY} at {root}")
    if (root / ".git").exists():
        asked = ["git", "-C", str(root), "rev-parse", "HEAD"]
        head = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
        if not head.startswith(builder.COMMIT):
            raise RuntimeError(f"the clone is at {head[:10]}, not at {builder.COMMIT}")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        return builder.build(root)
    except Exception:
        traceback.print_exc()
        raise
