"""The registry: lazy by name, isolated, loud, explicit about collisions, with switches and an API version."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
import types
import warnings

import pytest

import fusionzoo
from fusionzoo._registry import Registry
from fusionzoo.errors import (
    AmbiguousNameError,
    MissingDependency,
    PluginDisabledError,
    PluginError,
    PluginLoadError,
    UnknownNameError,
)
from fusionzoo.specs import Spec

GOOD = """
import fusionzoo
class Thing: pass
@fusionzoo.hookimpl
def fusionzoo_register(register):
    register(fusionzoo.Spec(name="{name}", kind="fusion", target=f"{{__name__}}:Thing", summary="a thing", api={api}))
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a fake distribution with one fusion; returns a fresh registry that sees it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("FUSIONZOO_LOAD_PLUGINS")

    def add(dist, name="thing", body=None, module=None, api=1, version="0.3"):
        module = module or f"mod_{dist.replace('-', '_')}_{name.replace('-', '_')}"
        info = tmp_path / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        points = info / "entry_points.txt"
        text = points.read_text() if points.exists() else "[fusionzoo.fusions]\n"
        points.write_text(text + f"{name} = {module}\n")
        source = GOOD.format(name=name, api=api) if body is None else textwrap.dedent(body)
        (tmp_path / f"{module}.py").write_text(source)
        return module

    yield add
    for name in [m for m in sys.modules if m.startswith("mod_")]:
        del sys.modules[name]


def test_builtins_come_through_entry_points_like_anybody_elses():
    assert {"concat", "sum", "gated", "self-attention", "cross-attention", "lmam"} <= set(fusionzoo.names())
    assert {"bc-lstm", "dialogue-gcn"} <= set(fusionzoo.names("host"))
    assert "demo" in fusionzoo.names("dataset")
    assert "cross-entropy" in fusionzoo.names("objective")
    assert fusionzoo.names(pattern="*attention") == ["co-attention", "cross-attention", "self-attention"]


def test_lookup_ignores_case_and_takes_underscores():
    assert fusionzoo.get("Cross_Attention") is fusionzoo.get("cross-attention")
    assert fusionzoo.get("fusionzoo:lmam") is fusionzoo.get("lmam")


def test_looking_imports_neither_torch_nor_a_plugin():
    code = """
    import sys, fusionzoo
    fusionzoo.names(); fusionzoo.names("host")
    try: fusionzoo.get("nonesuch")
    except fusionzoo.FusionZooError: pass
    heavy = [m for m in ("torch", "numpy", "transformers", "torch_geometric", "matplotlib", "sklearn", "accelerate")
             if m in sys.modules]
    heavy += [m for m in sys.modules if m.startswith(("fusionzoo_plugins", "fusionzoo_adapters"))]
    assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_unknown_name_gives_the_closest_match_and_the_list():
    with pytest.raises(UnknownNameError, match=r"did you mean 'lmam'.*Installed: .*, concat, "):
        fusionzoo.get("lman")
    with pytest.raises(UnknownNameError, match="there is a host of that name"):
        fusionzoo.get("bc-lstm")
    with pytest.raises(UnknownNameError, match=r"no kind of plugin called 'fusoin'.*'fusion'"):
        fusionzoo.get("lmam", kind="fusoin")


def test_a_third_party_plugin_is_found_and_loaded_once(install):
    install("fz-foo", "my-thing")
    registry = Registry()
    assert "my-thing" in registry.names()
    assert registry.get("My_Thing") is registry.get("fz-foo:my-thing")
    card = registry.card("my-thing")
    assert (card.distribution, card.version, card.summary) == ("fz-foo", "0.3", "a thing")


def test_a_broken_plugin_is_loud_and_hides_nobody(install, monkeypatch):
    install("fz-bad", "bad", body="raise RuntimeError('boom at import')")
    install("fz-good", "good")
    registry = Registry()
    with pytest.raises(
        PluginLoadError, match=r"'bad' from fz-bad 0\.3 .*boom at import.*others? .*unaffected"
    ) as caught:
        registry.get("bad")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert registry.get("good").__name__ == "Thing"
    with pytest.warns(UserWarning, match="boom at import"):
        rows = {r["name"]: r for r in registry.rows(("fusion",), long=True)}
    assert rows["bad"]["status"] == "broken"
    assert "boom at import" in rows["bad"]["traceback"]
    assert rows["good"]["status"] == "loaded"
    monkeypatch.setenv("FUSIONZOO_STRICT_PLUGINS", "1")
    with pytest.raises(PluginLoadError):
        registry.rows(("fusion",), long=True)


def test_a_hook_that_fails_half_way_leaves_nothing_behind(install):
    module = install(
        "fz-half",
        "half",
        body="""
        import fusionzoo
        @fusionzoo.hookimpl
        def fusionzoo_register(register):
            register(fusionzoo.Spec(name="half", kind="fusion", target="x:Y"))
            raise ValueError("half way")
        """,
    )
    registry = Registry()
    for _ in range(2):
        with pytest.raises(PluginLoadError, match="half way"):
            registry.get("half")
    assert not registry._manager.has_plugin(module)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import fusionzoo\n@fusionzoo.hookimpl\ndef fusionzoo_regsiter(register): pass\n", "unknown hook"),
        ("x = 1\n", "no fusionzoo_register hook"),
        ("import fusionzoo\n@fusionzoo.hookimpl\ndef fusionzoo_register(register, novelty): pass\n", "plugin newer"),
        (GOOD.format(name="other", api=1), "promises the fusion 'thing', but its module registers fusion 'other'"),
        (GOOD.format(name="thing", api=99), "plugin API 99.*update fusionzoo"),
        (GOOD.format(name="thing", api=0), "plugin API 0.*update fz-odd"),
        (GOOD.format(name="thing", api=1).replace(":Thing", ":Missing"), "has no attribute 'Missing'"),
    ],
    ids=["misspelt-hook", "no-hook", "newer-hook", "other-name", "newer-api", "older-api", "no-target"],
)
def test_what_is_wrong_with_a_plugin_is_said(install, body, message):
    install("fz-odd", "thing", body=body)
    registry = Registry()
    for _ in range(2):  # the second attempt must say the same: nothing half-registered stays behind
        with pytest.raises(PluginLoadError, match=message):
            registry.get("thing")


def test_a_missing_dependency_is_unavailable_not_broken(install):
    install("fz-dep", "dep", body="import fusionzoo\nraise fusionzoo.MissingDependency('torch-foo', extra='graph')")
    registry = Registry()
    with pytest.raises(MissingDependency, match=r"fusionzoo\[graph\]"):
        registry.get("dep")
    with pytest.warns(UserWarning, match="torch-foo"):
        rows = {r["name"]: r for r in registry.rows(("fusion",), long=True)}
    assert rows["dep"]["status"] == "unavailable"


def test_two_providers_must_be_told_apart(install):
    install("fz-foo", "twin")
    install("fz-bar", "twin")
    registry = Registry()
    with pytest.raises(AmbiguousNameError, match=r"get\('fz-(foo|bar):twin'\) or get\('fz-(foo|bar):twin'\)"):
        registry.get("twin")
    assert registry.get("fz-foo:twin").__module__ == "mod_fz_foo_twin"
    assert registry.get("fz-bar:twin").__module__ == "mod_fz_bar_twin"
    assert {r["status"] for r in registry.rows(("fusion",)) if r["name"] == "twin"} <= {"ambiguous", "loaded"}


def test_our_own_plugin_wins_with_one_warning(install):
    install("fz-foo", "lmam")
    registry = Registry()
    with pytest.warns(UserWarning, match="shadowed by it: fz-foo:lmam"):
        assert registry.get("lmam").__module__ == "fusionzoo_plugins.lmam"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.get("lmam")
    assert registry.get("fz-foo:lmam").__module__ == "mod_fz_foo_lmam"


def test_switches(install, monkeypatch):
    install("fz-foo", "one")
    install("fz-bar", "two")
    monkeypatch.setenv("FUSIONZOO_DISABLE_PLUGINS", "lmam, fz-foo:*")
    registry = Registry()
    assert not {"lmam", "one"} & set(registry.names())
    assert "two" in registry.names()
    with pytest.raises(PluginDisabledError, match="FUSIONZOO_DISABLE_PLUGINS=lmam"):
        registry.get("lmam")
    assert {r["status"] for r in registry.rows(("fusion",)) if r["name"] in ("one", "lmam")} == {"disabled"}
    monkeypatch.delenv("FUSIONZOO_DISABLE_PLUGINS")
    monkeypatch.setenv("FUSIONZOO_LOAD_PLUGINS", "")
    registry = Registry()
    assert "lmam" in registry.names()
    assert not {"one", "two"} & set(registry.names())
    monkeypatch.setenv("FUSIONZOO_LOAD_PLUGINS", "fz-bar")
    assert {"two", "lmam"} <= set(Registry().names())


def test_plugins_that_are_not_installed(install, tmp_path, monkeypatch):
    (tmp_path / "mod_wip.py").write_text(GOOD.format(name="wip", api=1))
    monkeypatch.setenv("FUSIONZOO_PLUGINS", "mod_wip")
    assert Registry().get("wip").__name__ == "Thing"
    monkeypatch.setenv("FUSIONZOO_PLUGINS", "mod_nowhere")
    with pytest.warns(UserWarning, match="mod_nowhere"):
        names = Registry().names()
    assert "lmam" in names


def test_register_a_module_made_in_a_notebook():
    registry = Registry()

    def module(name):
        made = types.ModuleType(f"notebook_{name}")
        exec(GOOD.format(name=name, api=1), made.__dict__)
        sys.modules[made.__name__] = made
        return made

    assert registry.register(module("scribble")) == ["scribble"]
    assert registry.get("scribble").__name__ == "Thing"
    with pytest.raises(PluginError, match="already provided by fusionzoo"):
        registry.register(module("lmam"))


def test_nothing_installed_says_how_to_install():
    registry = Registry()
    registry._index = {kind: {} for kind in registry.index()}
    with pytest.raises(UnknownNameError, match=r"pip install -e \."):
        registry.get("lmam")


@pytest.mark.parametrize("name", ["Camel", "under_score", "-x", "a--b", ""])
def test_spec_names_are_kebab_case(name):
    with pytest.raises(PluginError, match="kebab-case"):
        Spec(name=name, kind="fusion", target="a:B")


def test_every_hook_has_a_test():
    from fusionzoo import hookspecs

    hooks = [n for n in vars(hookspecs) if n.startswith("fusionzoo_")]
    assert hooks == ["fusionzoo_register"], "a new hook needs a test here and a line in docs/plugins.md"


def test_cards_and_editors_see_the_constructor():
    cls = fusionzoo.get("lmam")
    assert list(inspect.signature(cls).parameters)[:2] == ["dims", "out_dim"]
    assert "rank" in fusionzoo.card("lmam").signature
    assert "num_classes" in fusionzoo.card("bc-lstm", "host").signature
