"""Arguments stand in a docstring one per line, as numpydoc has them, so that tools and eyes find each."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("fusionzoo", "fusionzoo_plugins", "fusionzoo_adapters")
ENTRY = re.compile(r"[.;] (\w+(?:, \w+)*) : ")


def documented() -> Iterator[tuple[str, str, set[str]]]:
    """Place, docstring and argument names of every function and class."""
    for package in PACKAGES:
        home = Path(importlib.util.find_spec(package).origin).parent
        for path in home.rglob("*.py"):
            where = f"{package}/{path.relative_to(home)}"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (doc := ast.get_docstring(node)):
                    yield f"{where}:{node.lineno}", doc, names_of(node)


def names_of(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    functions = (
        [node] if isinstance(node, ast.FunctionDef) else [n for n in node.body if isinstance(n, ast.FunctionDef)]
    )
    names = {a.arg for f in functions for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)}
    fields = [n.target for n in node.body if isinstance(n, ast.AnnAssign)] if isinstance(node, ast.ClassDef) else []
    return names | {t.id for t in fields if isinstance(t, ast.Name)}


def crowded(doc: str, names: set[str]) -> list[str]:
    """The arguments that begin in the middle of a line of arguments."""
    lines = [line for line in doc.splitlines() if re.match(r"\s*\w+(?:, \w+)* : ", line)]
    found = [m[1] for line in lines for m in ENTRY.finditer(line)]
    return [entry for entry in found if set(entry.split(", ")) <= names]


def test_one_argument_a_line():
    found = [f"{where}: {', '.join(entries)}" for where, doc, names in documented() if (entries := crowded(doc, names))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "entries"),
    [
        ("a : one. b : two.", ["b"]),
        ("a : one; b, c : two.", ["b, c"]),
        ("a : see x. y : no argument", []),
        ("a : one.", []),
    ],
)
def test_it_is_seen(line: str, entries: list[str]):
    assert crowded(f"Text. b : not here.\n\n{line}", {"a", "b", "c"}) == entries
