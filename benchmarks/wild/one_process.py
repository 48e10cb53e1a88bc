"""One run: a script in a copy of its folder, with one fusion and one seed, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import fusionzoo
from fusionzoo.wild.session import Result
from wild.evaluations import Epoch, Evaluations, by_rule, honest
from wild.table import Script, fusion_of

Record = dict[str, Any]


def run(script: Script, condition: str, seed: int, epochs: int, like: Record | None, clone: Path, data: Path, folder: Path) -> None:  # fmt: skip
    """Run it; what it says goes to `log`, what came of it to `record.json`, both in a folder."""
    os.setsid()  # the runner ends it with its workers
    with (folder / "log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        torch.set_num_threads(1)
        record: Record = {"script": script.name, "condition": condition, "seed": seed, "epochs": epochs}
        start = time.process_time()
        try:
            record |= _done(script, fusion_of(condition, like), seed, epochs, _copy(script, clone, data, folder), data)
        except Exception as error:
            traceback.print_exc()
            record["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
        record["seconds"] = round(time.process_time() - start, 1)
        sys.stdout.flush()
    (folder / "record.json").write_text(json.dumps(record))


def _copy(script: Script, clone: Path, data: Path, folder: Path) -> Path:
    """The script's folder with the features in it, to run in: scripts write beside themselves."""
    if (clone / ".git").exists():
        asked = ["git", "-C", str(clone), "rev-parse", "HEAD"]
        head = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
        if not head.startswith(script.commit):
            raise RuntimeError(f"the clone of {script.repository} is at {head[:10]}, not at {script.commit}")
    here = folder / "copy"
    shutil.copytree(clone / script.folder, here, ignore=shutil.ignore_patterns(".git"))
    place = here / script.data
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(data / "features", target_is_directory=(data / "features").is_dir())
    for name in script.folders:
        (here / name).mkdir(exist_ok=True)
    return here


def _done(script: Script, fusion: Any, seed: int, epochs: int, here: Path, data: Path) -> Record:
    sizes = json.loads((data / "sizes.json").read_text())
    os.chdir(here)
    told: dict[str, Any] = {} if script.input is None else {"input": script.input, "widths": script.join}
    with Evaluations(**sizes) as seen:
        done = fusionzoo.wild.run(
            script.file,
            script.arguments(epochs),
            fusion=fusion,
            device="cpu",
            seed=seed,
            prove=script.prove,
            **(told if fusion else {}),
        )
    if done.status != 0:
        raise RuntimeError(f"the script ended itself with status {done.status}")
    return _scores(script, seen.epochs(epochs), done) | _fusion(done)


def _scores(script: Script, epochs: Sequence[Epoch], done: Result) -> Record:
    chosen, sound = by_rule(script.rule, epochs, done.namespace), honest(epochs)
    printed = re.findall(script.printed, done.output) if script.printed else []
    rows = {part: [_round(e.f1(part)) for e in epochs] for part in ("test", "validation")}
    return {
        "test": rows["test"],
        "validation": rows["validation"] if None not in rows["validation"] else None,
        "by_rule": {"epoch": chosen + 1, "f1": rows["test"][chosen]},
        "honest": {"epoch": sound + 1, "f1": rows["test"][sound]},
        "printed": float(printed[-1]) if printed else None,
        "confusion": epochs[sound].matrices["test"].astype(int).tolist(),
    }


def _fusion(done: Result) -> Record:
    """What was put where, how large it is, and what came of it."""
    patch = done.patch
    if patch is None:
        return {}
    layer, measures = patch.layer, done.growth.measures
    fusion: Any = layer.fusion
    return {
        "dims": dict(fusion.dims),
        "out_dim": fusion.out_dim,
        "parameters": _count(fusion),
        "projection": _count(layer.out),
        "host": _count(patch.host) - _count(layer),
        "site": f"{patch.site.kind}, {Path(str(patch.site.where)).name}",
        "share": round(measures[-1].share, 4) if measures else None,
    }


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def failed(record: Mapping[str, Any]) -> bool:
    """Whether a run came to no score."""
    return "by_rule" not in record
