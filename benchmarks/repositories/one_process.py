"""One builder, in this process: its record as JSON in a file."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
import traceback
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from fusionzoo.wild.devices import on
from fusionzoo.wild.removed import put_back
from fusionzoo.wild.stand_ins import Finder
from repositories.checks import examine


def main(argv: list[str]) -> int:
    """Run one builder with each fusion."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--clones", type=Path, required=True)
    parser.add_argument("--fusions", required=True)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True  # nothing is left in the clone
    builder = importlib.import_module(f"repositories.builders.{given.name}")
    records = []
    with warnings.catch_warnings(record=True) as caught, ExitStack() as stack:
        warnings.simplefilter("always")
        if getattr(builder, "OLD", False):  # what `fusionzoo run --device cpu` puts in force
            stack.enter_context(put_back(torch.device("cpu")))
            stack.enter_context(on(torch.device("cpu")))
        finder = stack.enter_context(Finder(lambda message: None))
        root = given.clones / builder.REPOSITORY.replace("/", "+")
        for fusion in given.fusions.split(","):
            start = time.monotonic()
            record = examine(builder, lambda: _built(builder, root), fusion, given.alone)
            record |= {"name": given.name, "repository": builder.REPOSITORY, "commit": builder.COMMIT}
            record |= {"stand_ins": finder.names, "seconds": round(time.monotonic() - start, 1)}
            records.append(record)
    said = sorted({str(w.message) for w in caught if w.category.__name__.startswith("FusionZoo")})
    given.json.write_text(json.dumps([r | {"warnings": said} for r in records]))
    return 0


def _built(builder: ModuleType, root: Path) -> Any:
    if not root.is_dir():
        raise FileNotFoundError(f"no clone of {builder.REPOSITORY} at {root}")
    if (root / ".git").exists():
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
        if not head.startswith(builder.COMMIT):
            raise RuntimeError(f"the clone is at {head[:10]}, not at {builder.COMMIT}")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        return builder.build(root)
    except Exception:
        traceback.print_exc()
        raise
