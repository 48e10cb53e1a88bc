"""A recipe's published scores beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusionzoo.scoring.metrics import SHORT_NAMES


def beside(recipe: Mapping[str, Any], scores: Mapping[str, Any] | None) -> list[tuple[str, float, float | None]]:
    """`(metric, published, ours)` in percent, for every published score of a recipe's facts; scores are fractions."""
    rows = []
    for metric, published in (recipe["published"].get("scores") or {}).items():
        ours = None if scores is None else scores.get(metric)
        rows.append((SHORT_NAMES[metric], float(published), None if ours is None else 100 * float(ours)))
    return rows


def published_lines(recipe: Mapping[str, Any], scores: Mapping[str, Any] | None) -> list[str]:
    """The same for a terminal, with the recipe's name and protocol."""
    name = recipe["name"] + (f" ({recipe['variant']})" if recipe.get("variant") else "")
    rows = beside(recipe, scores)
    numbers = [f"{m}: published {p:.2f}, here {'-' if o is None else f'{o:.2f}'}" for m, p, o in rows]
    return [f"recipe {name}, protocol {recipe['protocol']}; " + ("; ".join(numbers) or "no published number is known")]
