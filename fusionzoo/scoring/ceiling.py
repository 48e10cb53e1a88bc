"""What optimal readers reach on generated data, where the corpus knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusionzoo._file_schemas import Ceiling
from fusionzoo._schema import check
from fusionzoo.scoring.metrics import MAIN


def ceiling_readers(info: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """Names of the optimal readers that a corpus knows about, `full` first."""
    ceiling = ceiling_of(info)
    return list(dict.fromkeys(r for s in splits for r in ceiling.get(s, {})))


def ceiling_of(info: Mapping[str, Any]) -> Ceiling:
    """What a corpus says of it; nothing where it means something else by the word."""
    try:
        return check(Ceiling, info.get("ceiling") or {}, "ceiling", ValueError)
    except ValueError:
        return {}


def best_reachable(info: Mapping[str, Any], modalities: Sequence[str], split: str) -> float | None:
    """W-F1 of the optimal reader of these modalities on a split, where the corpus knows it."""
    readers = ceiling_of(info).get(split, {})
    every = [name.removeprefix("only_") for name in readers if name.startswith("only_")]
    absent = [m for m in every if m not in modalities]
    names = {0: "full", 1: f"without_{absent[0]}" if absent else ""}
    name = f"only_{modalities[0]}" if len(modalities) == 1 else names.get(len(absent), "")
    return readers.get(name, {}).get(MAIN)
