"""A recipe's published scores beside ours."""

from __future__ import annotations

from collections.abc import Mapping

from fusionzoo._file_schemas import RecipeFacts
from fusionzoo.scoring.metrics import short_name


def recipe_name(recipe: RecipeFacts) -> str:
    """The recipe's name, with its variant."""
    return recipe["name"] + (f" ({recipe['variant']})" if recipe.get("variant") else "")


def beside(recipe: RecipeFacts, scores: Mapping[str, object] | None) -> list[tuple[str, float, float | None]]:
    """`(metric, published, ours)` in percent, for every published score of a recipe's facts; scores are fractions."""
    rows = []
    for metric, published in (recipe["published"].get("scores") or {}).items():
        ours = None if scores is None else scores.get(metric)
        rows.append((short_name(metric), float(published), 100 * ours if isinstance(ours, float) else None))
    return rows


def published_lines(recipe: RecipeFacts, scores: Mapping[str, object] | None) -> list[str]:
    """The same for a terminal, with the recipe's name and protocol."""
    rows = beside(recipe, scores)
    numbers = [f"{m}: published {p:.2f}, here {'-' if o is None else f'{o:.2f}'}" for m, p, o in rows]
    known = "; ".join(numbers) or "no published number is known"
    return [f"recipe {recipe_name(recipe)}, protocol {recipe['protocol']}; {known}"]
