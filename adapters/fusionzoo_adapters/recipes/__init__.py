"""Published training recipes, one YAML file each; see `fusionzoo.runs.recipes` for what stands in one."""

from __future__ import annotations

from pathlib import Path

from fusionzoo.hookspecs import hookimpl
from fusionzoo.runs.recipes import Recipe, recipe_of, register_folder

FOLDER = Path(__file__).parent


@hookimpl
def fusionzoo_register(register):
    """Register a recipe per YAML file of this folder."""
    register_folder(register, __name__, FOLDER)


def __getattr__(name: str) -> Recipe:
    return recipe_of(FOLDER, name)
