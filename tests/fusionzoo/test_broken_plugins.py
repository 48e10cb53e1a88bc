"""Plugins and distributions that are broken in every way: the others are there, and the broken one is named."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import warnings

import pytest

import fusionzoo
from fusionzoo._registry import Registry, registry
from fusionzoo.doctor import diagnose
from fusionzoo.errors import PluginError, PluginLoadError
from fusionzoo.specs import Spec

META = b"Metadata-Version: 2.1\nName: broken-dist\nVersion: 1.0\n"
POINTS = b"[fusionzoo.fusions]\nbroken = broken_mod\n"
GOOD = """
import fusionzoo
class Thing:
    "a thing"
@fusionzoo.hookimpl
def fusionzoo_register(register):
    register(fusionzoo.Spec(name="broken", kind="fusion", target=f"{__name__}:Thing", summary="a thing"))
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Install a distribution with one fusion, its files as given; None leaves one out."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("FUSIONZOO_LOAD_PLUGINS", raising=False)
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")  # which a broken installation sets

    def add(body=GOOD, meta=META, points=POINTS, folder="broken_dist-1.0.dist-info"):
        info = tmp_path / folder
        info.mkdir()
        for name, data in (("METADATA", meta), ("entry_points.txt", points)):
            if data is not None:
                (info / name).write_bytes(data)
        (tmp_path / "broken_mod.py").write_text(body)
        importlib.invalidate_caches()
        return tmp_path

    yield add
    sys.modules.pop("broken_mod", None)
    registry.refresh()  # which may have been asked meanwhile


def rows_of(name):
    """A fresh registry's rows, with its built-ins in order, and the rows of one name."""
    registry = Registry()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = registry.rows(("fusion",), long=True)
        assert {"concat", "lmam"} <= set(registry.names())
        registry.card("concat")
    own = [r for r in rows if r["distribution"] == "fusionzoo" and r["module"] != "broken_mod"]
    assert len(own) >= 44
    assert {r["status"] for r in own} == {"loaded"}
    return registry, [r for r in rows if r["name"] == name]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("raise GeneratorExit", "GeneratorExit: no message"),
        ("class Odd(BaseException):\n    def __str__(self): raise Odd\nraise Odd", "Odd: no message"),
        (GOOD.replace("    register(", "    raise SystemExit(1)\n    register("), "SystemExit: 1"),
        (GOOD.replace('summary="a thing"', "summary=5"), "summary: expected a text, got 5"),
        (GOOD.replace('summary="a thing"', "modalities='ab'"), "modalities: expected a list"),
        (GOOD.replace('name="broken"', "name=None"), "plugin name None is not kebab-case"),
        (GOOD.replace('kind="fusion"', "kind=['fusion']"), "unknown kind"),
        (
            GOOD.replace(
                '    "a thing"', "    def __init__(self, x=type('X', (), {'__repr__': lambda s: 1 / 0})()): ..."
            ),
            "Zero",
        ),
        (GOOD.replace(":Thing", ":Other") + "def __getattr__(name): raise SystemExit(3)", "SystemExit: 3"),
        (
            GOOD.replace(
                "class Thing:", "class B:\n    def __init_subclass__(c): raise SystemExit(4)\nclass Thing(B):"
            ),
            ": 4",
        ),
    ],
)
def test_a_plugin_that_raises_anything_is_listed_as_broken(site, body, reason):
    site(body)
    registry, (row,) = rows_of("broken")
    assert row["status"] == "broken"
    assert reason in row["reason"]
    with pytest.raises(PluginLoadError, match="broken-dist"):
        registry.card("broken")


def test_ctrl_c_while_a_plugin_is_imported_is_the_users(site):
    site("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry().get("broken")


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        (None, "lacks Name"),
        (b"", "lacks Name"),
        (b"Metadata-Version: 2.1\n", "lacks Name"),
        (b"Name: broken-dist\n", "lacks Version"),
        (b"Name: br\xffken\nVersion: 1\n", "cannot be read: UnicodeDecodeError"),
    ],
)
def test_broken_metadata_are_said_and_hide_nothing(site, meta, reason):
    site(meta=meta)
    registry, (row,) = rows_of("broken")
    assert row["status"] == "broken"
    assert reason in row["reason"]
    assert "broken" not in registry.names()
    with pytest.warns(UserWarning, match="cannot be used"):
        Registry().names()
    with pytest.raises(PluginLoadError, match="METADATA"):
        registry.get("broken")
    assert any(reason in c.text and c.status == "fail" for c in diagnose().checks)


def test_broken_metadata_do_not_take_a_name_from_others(site):
    site(meta=b"", points=b"[fusionzoo.fusions]\nlmam = broken_mod\n", folder="fusionzoo-9.0.dist-info")
    registry, rows = rows_of("lmam")
    assert sorted(r["status"] for r in rows) == ["broken", "loaded"]
    assert registry.get("lmam").__module__ == "fusionzoo_plugins.lmam"


def test_lines_of_entry_points_that_say_nothing_are_broken_one_by_one(site):
    site(points=b"[fusionzoo.fusions]\nnothing\nodd = a b c\nhalf = :x\nbroken = broken_mod\nA/B = broken_mod\n")
    registry, (row,) = rows_of("broken")
    assert row["status"] == "loaded"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reasons = {r["name"]: r["reason"] for r in registry.rows(("fusion",)) if r["status"] == "broken"}
    assert "is not 'name = module'" in reasons["nothing"]
    assert "names no module" in reasons["odd"]
    assert "names no module" in reasons["half"]
    assert "is not kebab-case" in reasons["a/b"]


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (b"[some.other.group]\nx\xff = y\n", "cannot be read: UnicodeDecodeError"),
        (b"[some.other.group]\nx\n", "is not 'name = module'"),
        (
            b"[fusionzoo.fusion]\nx = y\n",
            "no group of entry points 'fusionzoo.fusion'; did you mean 'fusionzoo.fusions'",
        ),
    ],
)
def test_entry_points_that_cannot_be_told_are_reported_too(site, points, reason):
    site(points=points)
    registry, _ = rows_of("broken")
    assert any(reason in r["reason"] for r in registry.rows(("fusion",)) if r["distribution"].startswith("broken"))
    assert any(reason in c.text and c.status == "warn" for c in diagnose().checks)


def test_folders_that_are_files_and_distributions_of_one_name_hide_nothing(site, tmp_path):
    site()
    (tmp_path / "other-1.0.dist-info").write_text("a file")
    second = tmp_path / "broken_dist-2.0.dist-info"
    second.mkdir()
    (second / "METADATA").write_bytes(META)
    (second / "entry_points.txt").write_bytes(POINTS)
    _, rows = rows_of("broken")
    assert [r["status"] for r in rows] == ["loaded"]


def run(folder, *arguments):
    env = {k: v for k, v in os.environ.items() if not k.startswith("FUSIONZOO_")} | {"PYTHONPATH": str(folder)}
    env.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)


def test_torch_is_imported_although_a_distribution_is_not_utf8(site):
    """torch reads everybody's entry points when it is imported, and would raise."""
    folder = site(points=b"[some.other.group]\nx\xff = y\n")
    done = run(folder, "-c", "import fusionzoo; print(fusionzoo.get('concat')({'a': 2, 'b': 3}).out_dim)")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    done = run(folder, "-c", "import fusionzoo; print(fusionzoo.Batch.__name__)")
    assert (done.returncode, done.stdout) == (0, "Batch\n"), done.stderr


def test_what_a_plugin_prints_does_not_stand_in_json(site):
    folder = site("print('hello')\n" + GOOD)
    done = run(folder, "-m", "fusionzoo", "plugins", "--long", "--json", "--kind", "fusion")
    assert "broken" in {r["name"] for r in json.loads(done.stdout)}
    assert "hello" in done.stderr


def test_commands_that_take_everything_leave_the_broken_out(site):
    site("import sys\nsys.exit(0)")
    with pytest.warns(UserWarning, match="fusion 'broken' is left out"):
        names = Registry().usable()
    assert "concat" in names
    assert "broken" not in names


def test_an_adapter_that_exits_is_passed_over(monkeypatch):
    from torch import nn

    from fusionzoo.patching import repositories as adapters

    class Exits:
        def recognise(self, model):
            raise SystemExit

    monkeypatch.setattr(adapters.registry, "names", lambda kind: ["exits"])
    monkeypatch.setattr(adapters.registry, "get", lambda name, kind: Exits)
    with pytest.warns(UserWarning, match="the adapter 'exits' failed"):
        assert adapters.adapter_for(nn.Linear(1, 1)) is None


def test_a_spec_says_which_field_is_wrong():
    with pytest.raises(PluginError, match="plugin 'x': handles: expected a list"):
        Spec("x", "fusion", "m:X", handles=5)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="plugin 'x': defaults: n: expected null"):
        Spec("x", "fusion", "m:X", defaults={"n": object()})
    assert fusionzoo.card("concat").handles
