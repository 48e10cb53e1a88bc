"""docs/architecture.md names places: each is there, and every room of the core is on the page."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.skipif(not (ROOT / "fusionzoo").is_dir(), reason="needs the repository, not a wheel")
PLACES = re.findall(r"`([\w/.]+\.py): (\w+)`", PAGE)


@pytest.mark.parametrize(("file", "name"), PLACES, ids=[f"{f}:{n}" for f, n in PLACES])
def test_a_place_of_a_walk_is_there(file: str, name: str):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))}


def test_every_room_is_on_the_page():
    core = ROOT / "fusionzoo"
    rooms = {p.name for p in core.iterdir() if (p / "__init__.py").exists()}
    assert len(PLACES) > 20
    assert {r for r in rooms if f"`{r}/`" not in PAGE} == set()
