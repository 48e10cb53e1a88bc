"""`fusionzoo new`: what it writes, what it refuses, and that every package passes its own tests as generated."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import yaml

import fusionzoo
from fusionzoo import scaffold
from fusionzoo.errors import OptionError
from fusionzoo.specs import GROUPS

KINDS = scaffold.kinds()


def pretend_installed(package: Path, site: Path) -> dict[str, str]:
    """The environment in which a package counts as installed, by the metadata that an installer would write."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{g}]\n" + "".join(f"{n} = {v}\n" for n, v in points.items()) for g, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    here = str(Path(fusionzoo.__file__).parents[1])
    path = os.pathsep.join([str(site), str(package / "src"), here, os.environ.get("PYTHONPATH", "")])
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FUSIONZOO_", "PYTEST_"))}
    return env | {"PYTHONPATH": path.rstrip(os.pathsep), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_there_is_a_template_for_every_kind_that_is_code():
    # An encoder is little code around a model of somebody's, which no template can bring along.
    assert set(KINDS) == set(GROUPS) - {"recipe", "encoder"}


@pytest.mark.parametrize("kind", KINDS)
def test_package_passes_its_own_tests(kind, tmp_path):
    package = scaffold.create(kind, f"my-new-{kind}", tmp_path)
    env = pretend_installed(package, tmp_path / "site")
    out = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=package, env=env)
    assert " passed" in out


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed; CI has it")
@pytest.mark.parametrize("kind", KINDS)
def test_package_passes_ruff(kind, tmp_path):
    package = scaffold.create(kind, f"my-new-{kind}", tmp_path, author='Ada "O\'Neill" Łukasz')
    longest = scaffold.create(kind, "a-very-long-name-of-forty-nine-letters-exactly-so", tmp_path)
    ruff = [sys.executable, "-m", "ruff"]
    run([*ruff, "check", "--no-cache", package, longest])
    run([*ruff, "format", "--no-cache", "--check", package])


@pytest.mark.parametrize("kind", KINDS)
def test_package_is_complete(kind, tmp_path):
    package = scaffold.create(kind, "words-of-3", tmp_path, author="Ada {Lovelace}")
    files = {str(p.relative_to(package)) for p in package.rglob("*") if p.is_file()}
    module = "src/fusionzoo_words_of_3"
    expected = {"pyproject.toml", "README.md", "LICENSE", ".gitignore", ".github/workflows/ci.yml"}
    assert expected | {f"{module}/__init__.py", f"{module}/py.typed", "tests/test_fusionzoo_words_of_3.py"} <= files
    assert not [f for f in files if f.endswith(".tmpl") or "MODULE" in f]
    for path in package.rglob("*"):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        assert "@@" not in text, path
        if path.suffix == ".py":
            ast.parse(text)
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "fusionzoo-words-of-3"
    assert project["authors"] == [{"name": "Ada {Lovelace}"}]
    assert project["entry-points"] == {GROUPS[kind]: {"words-of-3": "fusionzoo_words_of_3"}}
    assert project["dependencies"] == ["fusionzoo>=0.1,<1"]
    readme = (package / "README.md").read_text(encoding="utf-8")
    assert "$" in readme
    assert "author = {Ada Lovelace}" in readme
    assert "Copyright Ada {Lovelace}" in (package / "LICENSE").read_text(encoding="utf-8")
    workflow = yaml.safe_load((package / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert set(workflow["jobs"]) == {"test", "wheel", "publish"}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MyFusion", "did you mean 'my-fusion'"),
        ("my_fusion", "did you mean 'my-fusion'"),
        ("my--fusion", "did you mean 'my-fusion'"),
        ("3-way", "did you mean 'way'"),
        ("../evil", "did you mean 'evil'"),
        ("a/b", "kebab-case"),
        ("", "kebab-case"),
        ("my-fusion\n", "kebab-case"),
        ("naïve", "kebab-case"),
        ("x" * 51, "at most 50"),
        ("fusionzoo-mine", "use 'mine'"),
        ("host", "is a kind of plugin"),
    ],
)
def test_names_are_refused_with_a_hint(name, hint, tmp_path):
    with pytest.raises(OptionError, match=hint):
        scaffold.create("fusion", name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_existing_folders_are_left_alone(tmp_path):
    (tmp_path / "fusionzoo-mine").mkdir()
    (tmp_path / "fusionzoo-mine" / "keep").write_text("me")
    with pytest.raises(OptionError, match="exists already"):
        scaffold.create("fusion", "mine", tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["fusionzoo-mine", "keep"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def half(kind, values):
        yield "pyproject.toml", "x"
        raise OSError("disk full")

    monkeypatch.setattr(scaffold, "_rendered", half)
    with pytest.raises(OSError, match="disk full"):
        scaffold.create("fusion", "mine", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("author", ["", "two\nlines", "tab\x00"])
def test_authors_are_one_line(author, tmp_path):
    with pytest.raises(OptionError, match="one line"):
        scaffold.create("fusion", "mine", tmp_path, author=author)


def test_taken_names_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="'lmam' exists already, in fusionzoo; .*'fusionzoo-lmam:lmam'"):
        scaffold.create("fusion", "lmam", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaffold.create("host", "lmam", tmp_path / "hosts")


def test_names_that_are_keywords_or_base_classes_become_classes(tmp_path):
    for name in ("true", "none", "class", "fused"):
        source = scaffold.create("fusion", name, tmp_path) / "src" / f"fusionzoo_{name}" / "__init__.py"
        assert f"class {name.capitalize()}Fusion(Fusion):" in source.read_text(encoding="utf-8")


@pytest.mark.parametrize(("words", "expected"), [(["mine"], ("fusion", "mine")), (["host", "mine"], ("host", "mine"))])
def test_words_of_the_command_line(words, expected):
    assert scaffold.read_words(words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "takes a kind and a name"),
        (["a", "b", "c"], "takes a kind and a name"),
        (["host"], "needs a name too"),
        (["fusin", "mine"], "did you mean 'fusion'"),
        (["recipe", "mine"], "no template"),
    ],
)
def test_wrong_words_are_refused(words, message):
    with pytest.raises(OptionError, match=message):
        scaffold.read_words(words)


def test_the_command_refuses_in_one_sentence(capsys, tmp_path, monkeypatch):
    from fusionzoo.cli import main

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["new", "MyFusion"])
    assert done.value.code == 2
    assert "did you mean 'my-fusion'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as done:
        main(["new", "host", "my-host", "--folder", "there"])
    assert not done.value.code
    assert "fusionzoo train --data demo --host my-host" in capsys.readouterr().out
    assert (tmp_path / "there" / "fusionzoo-my-host" / "pyproject.toml").is_file()
