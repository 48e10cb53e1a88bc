"""What was done in a script, written to a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fusionzoo
from fusionzoo._files import write_text
from fusionzoo._machine import conditions
from fusionzoo._text import json_text

if TYPE_CHECKING:
    from fusionzoo.wild.session import Result


def write_report(folder: Path, done: Result, asked: dict[str, Any]) -> None:
    """Write `report.json`, `report.txt` and `output.txt`.

    Parameters
    ----------
    folder : made where it is not there.
    done : what came out.
    asked : the command, in plain values.
    """
    import torch

    patch = done.patch
    values = {
        "asked": asked,
        "fusionzoo": fusionzoo.__version__,
        "conditions": conditions(torch.device(asked.get("device") or "cpu")),
        "status": done.status,
        "patched": done.patched,
        "host": None if patch is None else type(patch.host).__name__,
        "site": None if patch is None else patch.site.to_dict(),
        "parameters": None if patch is None else sum(p.numel() for p in patch.parameters()),
        "growth": [asdict(m) for m in done.growth.measures],
        "stand_ins": done.stand_ins,
    }
    write_text(folder / "report.json", json_text(values) + "\n")
    write_text(folder / "report.txt", "\n".join(done.messages) + "\n")
    write_text(folder / "output.txt", done.output)
