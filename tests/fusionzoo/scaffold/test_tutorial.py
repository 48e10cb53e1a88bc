"""The tutorial: what it shows is the package beside it, and every command of it runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = DOCS / "tutorial.md"
PACKAGE = DOCS / "tutorial" / "fusionzoo-modality-attention"
FENCE = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCE.findall(PAGE.read_text(encoding="utf-8"))


def test_shown_files_are_those_of_the_package():
    shown = {name: body for _, name, body in BLOCKS if name}
    for name, body in shown.items():
        text = (PACKAGE / name).read_text(encoding="utf-8")
        assert body == text if name.endswith(".py") else body in text, name
    written = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if "build" not in p.parts}
    assert written <= set(shown)


def test_the_package_is_what_new_writes_but_for_what_the_tutorial_changes(tmp_path):
    from fusionzoo import scaffold

    fresh = scaffold.create("fusion", "modality-attention", tmp_path, author="the fusionzoo authors")
    names = {p.relative_to(fresh).as_posix() for p in fresh.rglob("*") if p.is_file()}
    changed = {n for n in names if (PACKAGE / n).read_bytes() != (fresh / n).read_bytes()}
    shown = {name for _, name, _ in BLOCKS if name.endswith(".py")}
    assert changed == shown | {"README.md", "pyproject.toml"}  # the formula and the description


@pytest.mark.slow
def test_every_command_runs(environment, tmp_path):
    """In order, in one folder; the files are written where the tutorial shows them."""
    folder, ran = tmp_path / "work", []
    folder.mkdir()
    for language, name, body in BLOCKS:
        if name:
            target = folder / name
            assert target.is_file(), f"{name} is shown before `fusionzoo new` has written it"
            shutil.copyfile(PACKAGE / name, target)
        if language != "bash":
            continue
        for line in body.splitlines():
            ran.append(line)
            if line.startswith("cd "):
                folder = folder / line.removeprefix("cd ")
                continue
            out = environment(line, cwd=folder)
            if line.startswith("fusionzoo plugins"):
                assert "modality-attention" in out
            if line.startswith("fusionzoo check"):
                assert "padding_poison" in out
    assert sum(line.startswith("fusionzoo ") for line in ran) >= 6
    assert (folder / "runs/compare").is_dir()
