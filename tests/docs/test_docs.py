"""The documentation is run, not believed: Python blocks execute, tables of numbers are recomputed, links lead somewhere."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path

import pytest

import fusionzoo
from fusionzoo._registry import registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "fusions").glob("*.md"),
        *(ROOT / "docs" / "decisions").glob("*.md"),
    ]
)
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(path.read_text(encoding="utf-8")) if kind == language]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType(f"docs_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "_local", list(registry._local))  # what a page registers is gone with its module
    request.addfinalizer(registry.refresh)
    for i, body in enumerate(blocks(page, "python")):
        exec(compile(body, f"{page.name}[{i}]", "exec"), module.__dict__)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target and (ROOT / ".git").exists():
            assert (page.parent / target).exists(), target


def test_the_gallery_is_what_its_generator_writes():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import gallery

        stale = [p.name for p, text in gallery.contents().items() if not p.exists() or p.read_text("utf-8") != text]
    finally:
        sys.path.remove(str(ROOT / "docs"))
    assert not stale, "run python docs/gallery.py"
    assert {p.stem for p in (ROOT / "docs" / "fusions").glob("*.md")} == set(fusionzoo.names())


def test_every_fusion_has_a_diagram_and_a_measured_cost():
    costs = json.loads((ROOT / "docs" / "fusions" / "cost.json").read_text("utf-8"))
    assert set(costs) == set(fusionzoo.names())
    assert [n for n in fusionzoo.names() if "-->" not in fusionzoo.card(n).diagram] == []


def test_commands_in_the_docs_exist():
    """Every `fusionzoo ...` line of a bash block parses: the command and its options exist."""
    from typer.main import get_command

    from fusionzoo.cli.app import app

    root = get_command(app)
    for page in PAGES:
        for body in blocks(page, "bash"):
            for line in body.replace("\\\n", " ").splitlines():
                found = re.search(r"(?:^|bin/|-m |&& )fusionzoo ([a-z].*)", line.split("#")[0])
                if not found:
                    continue
                words = found.group(1).split()
                if words[0] == "run":  # what follows the script's name is the script's
                    words = words[: next(i for i, w in enumerate(words) if w.endswith(".py")) + 1]
                command = root
                while hasattr(command, "commands") and words and words[0] in command.commands:
                    command = command.commands[words.pop(0)]
                assert not hasattr(command, "commands"), f"{page.name}: {line}"
                known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
                unknown = [w for w in words if w.startswith("--") and w.split("=")[0] not in {*known, "--debug"}]
                assert not unknown, f"{page.name}: {line}: {unknown}"
