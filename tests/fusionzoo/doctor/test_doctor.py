"""The doctor: what it finds, and that it finds nothing where nothing is wrong."""

from __future__ import annotations

import importlib
import json
import sys
import types

import pytest
import torch

import fusionzoo
from fusionzoo import doctor
from fusionzoo.doctor import FAIL, OK, WARN, diagnose

BROKEN = "raise RuntimeError('no driver')\n"
NEEDY = "import fusionzoo\nraise fusionzoo.MissingDependency('some-package', extra='some-extra')\n"
GOOD = """
import fusionzoo
class Thing: pass
@fusionzoo.hookimpl
def fusionzoo_register(register):
    register(fusionzoo.Spec(name="{name}", kind="fusion", target=f"{{__name__}}:Thing", summary="a thing"))
"""


@pytest.fixture(autouse=True)
def no_switches(monkeypatch):
    for switch in ("DISABLE_PLUGINS", "LOAD_PLUGINS", "STRICT_PLUGINS", "PLUGINS"):
        monkeypatch.delenv(f"FUSIONZOO_{switch}", raising=False)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one fusion, editable if a source folder is given."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def add(dist, name, body, points=None, source=None, version="1.0"):
        module = f"doctored_{dist.replace('-', '_')}"
        info = site / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(points or f"[fusionzoo.fusions]\n{name} = {module}\n")
        if source is not None:
            record = {"url": source.as_uri(), "dir_info": {"editable": True}}
            (info / "direct_url.json").write_text(json.dumps(record))
        (site / f"{module}.py").write_text(body)
        importlib.invalidate_caches()
        return module

    yield add
    for name in [m for m in sys.modules if m.startswith("doctored_")]:
        del sys.modules[name]


def about(diagnosis, text):
    found = [c for c in diagnosis.checks if text in c.text]
    assert len(found) == 1, str(diagnosis)
    return found[0]


def test_a_sound_installation_has_nothing_wrong():
    diagnosis = diagnose()
    troubles = [c for c in diagnosis.checks if c.status == FAIL and c.name != "metadata"]
    assert not troubles, str(diagnosis)
    by_name = {c.name: c for c in diagnosis.checks}
    assert {"python", "fusionzoo", "packages", "optional", "devices", "plugins", "switch"} <= set(by_name)
    assert "torch " in by_name["packages"].text
    assert "cpu, " in by_name["devices"].text
    assert by_name["fusionzoo"].text == fusionzoo.__version__


@pytest.mark.parametrize("count", [0, 1, 4])
@pytest.mark.parametrize("built", [None, "13.0"])
def test_devices_are_listed_and_a_build_without_one_is_a_note(built, count, monkeypatch):
    about_one = types.SimpleNamespace(name="A GPU", total_memory=8 * 2**30)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(built and count))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count if built else 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: about_one)
    (check,) = doctor._devices()
    assert check.status == OK
    assert check.text.count("A GPU, 8 GiB") == (count if built else 0)
    assert bool(check.details) == (built is not None and count == 0)
    assert all("CUDA 13.0 and sees no device" in d for d in check.details)


def test_broken_plugins_come_with_their_traceback_and_spoil_nothing(install):
    install("fz-broken", "broken-one", BROKEN)
    install("fz-fine", "fine-one", GOOD.format(name="fine-one"))
    diagnosis = diagnose()
    check = about(
        diagnosis, "fusion broken-one of fz-broken 1.0 (doctored_fz_broken) is broken: RuntimeError: no driver"
    )
    assert check.status == FAIL
    assert "RuntimeError: no driver" in check.details[0]
    assert "doctored_fz_broken.py" in check.details[0]
    assert diagnosis.exit_code == 1
    assert "fine-one" not in str(diagnosis)
    assert diagnosis.checks == diagnose().checks  # looking changes nothing


def test_missing_dependencies_are_warnings_with_the_command(install):
    install("fz-needy", "needy-one", NEEDY)
    check = about(diagnose(), "needy-one of fz-needy")
    assert check.status == WARN
    assert 'pip install "fusionzoo[some-extra]"' in check.text


def test_collisions_are_told_apart_from_shadowing(install):
    install("fz-one", "twice", GOOD.format(name="twice"))
    install("fz-two", "twice", GOOD.format(name="twice"))
    install("fz-three", "concat", GOOD.format(name="concat"))
    diagnosis = diagnose()
    twice = about(diagnosis, "fusion twice is provided by 2 distributions and none wins")
    assert "get('fz-one:twice', kind='fusion')" in twice.details[0]
    assert about(diagnosis, "fusion concat of fusionzoo shadows fz-three:concat").status == WARN


def test_stale_editable_metadata_are_told_line_by_line(install, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    lines = '[project]\nname = "fz-stale"\n[project.entry-points."fusionzoo.fusions"]\n'
    (source / "pyproject.toml").write_text(lines + 'new-one = "a"\nmoved = "c"\n')
    install(
        "fz-stale", "", GOOD.format(name="gone"), "[fusionzoo.fusions]\ngone = doctored_fz_stale\nmoved = b\n", source
    )
    check = about(diagnose(), "the editable install of fz-stale is older than its pyproject.toml")
    assert check.status == FAIL
    assert check.details == [
        "fusionzoo.fusions: gone is installed and no longer declared",
        "fusionzoo.fusions: moved is c now, installed is b",
        "fusionzoo.fusions: new-one is declared and not installed",
        f"run: pip install -e {source}",
    ]


def test_editable_metadata_that_agree_are_listed(install, tmp_path):
    source = tmp_path / "with space"
    source.mkdir()
    lines = '[project]\nname = "fz-fresh"\n[project.entry-points."fusionzoo.fusions"]\nfresh = "doctored_fz_fresh"\n'
    (source / "pyproject.toml").write_text(lines)
    install("fz-fresh", "fresh", GOOD.format(name="fresh"), source=source)
    assert about(diagnose(), "fz-fresh").status == OK


def test_editable_installs_whose_folder_is_gone_are_told(install, tmp_path):
    install("fz-gone", "gone", GOOD.format(name="gone"), source=tmp_path / "nowhere")
    check = about(diagnose(), "which holds no pyproject.toml any more")
    assert check.status == WARN
    assert check.details == ["run: pip uninstall fz-gone"]


def test_two_metadata_folders_of_one_distribution_are_told(install):
    install("fz-left", "left", GOOD.format(name="left"))
    install("fz-left", "left", GOOD.format(name="left"), version="2.0")
    assert about(diagnose(), "fz-left is installed twice").status == WARN


def test_switches_in_force_and_typing_errors_in_them(monkeypatch):
    monkeypatch.setenv("FUSIONZOO_DISABLE_PLUGINS", "lmamm,concat")
    monkeypatch.setenv("FUSIONZOO_STRICT_PLUGINS", "1")
    diagnosis = diagnose()
    check = about(diagnosis, "FUSIONZOO_DISABLE_PLUGINS='lmamm,concat' is in force")
    assert check.status == WARN
    assert "did you mean 'lmam'" in check.text
    assert about(diagnosis, "FUSIONZOO_STRICT_PLUGINS='1'").status == OK
    assert "1 disabled" in about(diagnosis, "can be used").text
    monkeypatch.setenv("FUSIONZOO_LOAD_PLUGINS", "fusionzo")
    assert "did you mean 'fusionzoo'" in about(diagnose(), "FUSIONZOO_LOAD_PLUGINS").text


def test_modules_named_by_the_environment_that_fail_are_told(monkeypatch):
    monkeypatch.setenv("FUSIONZOO_PLUGINS", "no_such_module_at_all")
    assert about(diagnose(), "no_such_module_at_all', which failed to load").status == FAIL


def test_required_packages_that_are_missing_or_too_old_are_told(monkeypatch):
    monkeypatch.setattr(doctor, "_requirements", lambda own: [("no-such-package", ">=1"), ("torch", ">=999")])
    check = about(diagnose(), "2 of the required packages are wrong")
    assert check.status == FAIL
    assert "no-such-package is required and not installed; run: pip install no-such-package" in check.details
    assert any('run: pip install "torch>=999"' in d for d in check.details)


def test_requirements_are_read_without_extras():
    requires = ["torch>=2.6", "Foo_bar (>=1,<2)", "pytest>=8; extra == 'test'", "plain", "b[x]>=3 ; python_version>'3'"]
    found = doctor._requirements(types.SimpleNamespace(requires=requires))
    assert found == [("Foo_bar", ">=1,<2"), ("b", ">=3"), ("plain", ""), ("torch", ">=2.6")]


def test_a_section_that_dies_is_reported_and_does_not_stop_the_others(monkeypatch):
    def devices():
        raise OSError("libcuda is broken")

    monkeypatch.setattr(doctor, "_devices", devices)
    diagnosis = diagnose()
    check = about(diagnosis, "could not be checked: libcuda is broken")
    assert (check.name, check.status) == ("devices", FAIL)
    assert any(c.name == "switch" for c in diagnosis.checks)


def test_json_holds_everything():
    diagnosis = diagnose()
    document = json.loads(diagnosis.to_json())
    assert document["ok"] == (diagnosis.exit_code == 0)
    assert [c["text"] for c in document["checks"]] == [c.text for c in diagnosis.checks]


def test_the_command_ends_with_the_status(capsys, install):
    from fusionzoo.cli import main

    install("fz-broken", "broken-one", BROKEN)
    with pytest.raises(SystemExit) as done:
        main(["doctor", "--json"])
    assert done.value.code == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["ok"]
    assert any("broken-one" in c["text"] for c in document["checks"])
