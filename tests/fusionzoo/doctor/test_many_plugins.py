"""200 installed plugins, one broken at import and one colliding: looking imports nothing, both are reported, the rest works."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "plugins.py"
pytestmark = pytest.mark.skipif(not BENCHMARK.exists(), reason="the benchmarks are not part of this copy of the tests")


@pytest.fixture(scope="module")
def fakes():
    spec = importlib.util.spec_from_file_location("benchmark_plugins", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def env(fakes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    assert len(fakes.make_distributions(folder)) == 200
    return fakes.environment(folder)


def test_listing_is_complete_and_imports_no_plugin(env):
    """How quick it is, benchmarks/plugins.py measures."""
    code = (
        "import sys; from fusionzoo.cli import main\n"
        "try: main(['plugins'])\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert not [m for m in sys.modules if m.startswith(('fusionzoo_fake', 'torch', 'numpy'))]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fusionzoo-fake-") == 200


def test_one_broken_and_one_colliding_are_reported_and_the_rest_works(fakes, env):
    statuses = fakes.statuses(env)
    special = {f"fusionzoo-fake-{i:03}": s for i, s in ((0, "ambiguous"), (198, "ambiguous"), (199, "broken"))}
    assert {d: s for d, s in statuses.items() if s != "loaded"} == special
    assert len(statuses) == 200
    code = """
    import fusionzoo
    assert len(fusionzoo.names(pattern="fake-*")) == 199
    assert fusionzoo.get("fake-007")([3, 2]).out_dim == 3
    for name, error in (("fake-199", "the wrong CUDA"), ("fake-000", "fusionzoo-fake-198:fake-000")):
        try:
            fusionzoo.get(name)
        except fusionzoo.FusionZooError as found:
            assert error in str(found), found
        else:
            raise AssertionError(name)
    assert fusionzoo.get("fusionzoo-fake-198:fake-000") is not fusionzoo.get("fusionzoo-fake-000:fake-000")
    """
    lines = "\n".join(line[4:] for line in code.splitlines())
    subprocess.run([sys.executable, "-c", lines], env=env, check=True)


def test_the_doctor_names_both(env):
    done = subprocess.run([sys.executable, "-m", "fusionzoo", "doctor"], env=env, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert (
        "fusion fake-199 of fusionzoo-fake-199 1.0 (fusionzoo_fake_199) is broken: ImportError: the wrong CUDA"
        in done.stdout
    )
    assert "raise ImportError('the wrong CUDA')" in done.stdout  # the traceback, down to the line
    assert "fusion fake-000 is provided by 2 distributions and none wins" in done.stdout
    assert "1 failed, 1 warnings" in done.stdout
