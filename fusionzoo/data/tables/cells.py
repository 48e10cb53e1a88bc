"""What a cell means: a time, a split, a number."""

from __future__ import annotations

import math
import re
from typing import Any

from fusionzoo.data.conventions import SPLITS

_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)", re.ASCII)
_SPLIT_NAMES = {s: s for s in SPLITS} | {
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "development": "dev",
    "training": "train",
    "testing": "test",
}


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    try:
        found = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def seconds(value: Any) -> float | None:
    """Seconds of `12.5`, `12,5`, `1:02.5` or `00:01:02,500`; None for anything else."""
    text = str(value).strip()
    if match := _CLOCK.fullmatch(text):
        hours, minutes, rest = match.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
    found = number(text.replace(",", "."))
    return found if found is not None and found >= 0 else None


def split_name(value: Any) -> str | None:
    """train, dev or test, also under the names of other repositories; None for anything else."""
    return _SPLIT_NAMES.get(str(value).strip().lower())


def plain_text(value: Any) -> str:
    """A cell as text; whole numbers that pandas made floats of are whole again."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
