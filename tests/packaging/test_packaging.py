"""The house as a distribution: entry points, layering, import budget, public surface."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.resources
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fusionzoo
from fusionzoo.errors import FusionZooWarning

ROOT = Path(__file__).resolve().parents[2]
CORE = Path(fusionzoo.__file__).parent
PYPROJECT = ROOT / "pyproject.toml"


def project():
    return tomllib.loads(PYPROJECT.read_text())["project"]


def test_installed_entry_points_are_those_of_pyproject():
    """An editable install freezes entry points when it is made."""
    for group, declared in project()["entry-points"].items():
        installed = {
            e.name: e.value
            for e in importlib.metadata.entry_points(group=group)
            if e.dist is not None and e.dist.name == "fusionzoo"
        }
        assert installed == declared, f"{group}: the install is older than pyproject.toml; run: pip install -e ."


def test_every_plugin_module_registers_exactly_the_names_that_point_to_it():
    from fusionzoo._registry import Registry

    registry = Registry()
    pointing: dict[str, set[tuple[str, str]]] = {}
    from fusionzoo.specs import GROUPS

    for kind, group in GROUPS.items():
        for name, module in project()["entry-points"].get(group, {}).items():
            pointing.setdefault(module, set()).add((kind, name))
    for module, names in pointing.items():
        specs = registry._specs_of(importlib.import_module(module), module)
        assert {(s.kind, s.under(name).name) for s in specs for _, name in names} == names


def test_core_never_names_a_plugin_or_adapter_package():
    offenders = []
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
                modules = [a.value for a in node.args if isinstance(a, ast.Constant)]
            else:
                continue
            offenders += [
                (path.name, m) for m in modules if str(m).startswith(("fusionzoo_plugins", "fusionzoo_adapters"))
            ]
    assert not offenders


def test_core_alone_imports_and_says_that_nothing_is_installed(tmp_path):
    """Take away plugins, adapters and the installed metadata: only the package folder, on a bare path."""
    (tmp_path / "fusionzoo").symlink_to(CORE)
    code = f"""
import sys
sys.path = [p for p in sys.path if "site-packages" not in p and p not in {[str(ROOT), str(ROOT / "plugins")]!r}]
sys.path.insert(0, {str(tmp_path)!r})
import importlib.util
pluggy = {importlib.util.find_spec("pluggy").origin!r}
spec = importlib.util.spec_from_file_location("pluggy", pluggy, submodule_search_locations=[pluggy.rsplit("/", 1)[0]])
module = importlib.util.module_from_spec(spec); sys.modules["pluggy"] = module; spec.loader.exec_module(module)
import fusionzoo
assert fusionzoo.names() == [] and fusionzoo.names("host") == []
try:
    fusionzoo.get("lmam")
except fusionzoo.FusionZooError as error:
    assert "no plugin at all is installed" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-S", "-c", code], check=True, cwd=tmp_path)


HEAVY = ("torch", "numpy", "accelerate", "matplotlib", "sklearn", "scipy", "transformers", "torch_geometric")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plugins"], ["plugins", "--json"], ["train", "--help"], ["--version"]]
)
def test_looking_commands_import_nothing_heavy(arguments):
    """What they cost in milliseconds is measured by benchmarks/import_time.py."""
    code = (
        "import sys; from fusionzoo.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        f"assert not [m for m in {HEAVY!r} if m in sys.modules]\n"
        "assert not [m for m in sys.modules if m.startswith(('fusionzoo_plugins', 'fusionzoo_adapters'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_import_alone_does_not_even_look():
    code = (
        "import sys; before = set(sys.modules); import fusionzoo\n"
        f"assert not {{*{HEAVY!r}, 'pluggy', 'importlib.metadata', 'typer', 'rich', 'yaml'}} & (set(sys.modules) - before)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", ["fusionzoo", "fusionzoo_plugins", "fusionzoo_adapters"])
def test_packages_are_typed(package):
    origin = importlib.util.find_spec(package).origin
    assert (Path(origin).parent / "py.typed").is_file()


@pytest.mark.parametrize("folder", ["plugins", "adapters", "tests", "docs"])
def test_rooms_are_not_packages(folder):
    """An __init__.py there would shadow other distributions' packages (adapters) whenever the repository is on the path."""
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("package", ["fusionzoo_plugins", "fusionzoo_adapters"])
def test_plugin_packages_are_empty(package):
    assert Path(importlib.util.find_spec(package).origin).read_text() == ""


def test_public_names_resolve():
    assert sorted(fusionzoo.__all__) == fusionzoo.__all__
    for name in fusionzoo.__all__:
        assert getattr(fusionzoo, name) is not None
    with pytest.raises(AttributeError, match="nonesuch"):
        fusionzoo.nonesuch  # noqa: B018


def test_no_device_is_hard_wired():
    pattern = re.compile(r"\.cuda\(|torch\.cuda\.FloatTensor|device=[\"']cuda")
    for package in ("fusionzoo", "fusionzoo_plugins", "fusionzoo_adapters"):
        for path in Path(importlib.util.find_spec(package).origin).parent.rglob("*.py"):
            assert not pattern.search(path.read_text()), path


def calls_of_warn(home):
    """Every `warnings.warn(...)` below a folder, with the module that it stands in."""
    for path in home.rglob("*.py"):
        module = ".".join([home.name, *path.relative_to(home).with_suffix("").parts]).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("warnings.warn", "warn"):
                yield module, node


def test_every_warning_of_ours_is_known_by_its_category():
    """The tests make errors of ours, and users silence ours, by the category alone: where one points to is the caller's code."""
    found = 0
    for package in ("fusionzoo", "fusionzoo_plugins", "fusionzoo_adapters"):
        for module, call in calls_of_warn(Path(importlib.util.find_spec(package).origin).parent):
            named = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "category")]
            assert len(named) == 1, f"{module}, line {call.lineno}: a warning without a category"
            category = getattr(importlib.import_module(module), ast.unparse(named[0]))
            assert issubclass(category, FusionZooWarning), f"{module}, line {call.lineno}: {category.__name__}"
            found += 1
    assert found


def test_lower_bounds_hold_in_constraints():
    from packaging.requirements import Requirement

    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and line[0] != "#"
    )
    pins = {k.lower().replace("_", "-"): v for k, v in pins.items()}
    for text in project()["dependencies"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[requirement.name.lower()]), text


def test_what_is_installed_holds_every_recipe():
    """CI runs this against the built wheel too."""
    files = importlib.resources.files("fusionzoo_adapters.recipes").iterdir()
    shipped = {f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml")}
    assert shipped == set(project()["entry-points"]["fusionzoo.recipes"])
