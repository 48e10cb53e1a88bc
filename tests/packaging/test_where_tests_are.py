"""Every reference host and every plugin has a file of tests under its own name."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = {"adapters/fusionzoo_adapters/hosts": "tests/adapters/hosts", "plugins/fusionzoo_plugins": "tests/plugins"}

pytestmark = pytest.mark.skipif(not (ROOT / "plugins").is_dir(), reason="needs the repository, not a wheel")


@pytest.mark.parametrize("source", PLACES)
def test_a_part_has_its_tests_where_one_looks_for_them(source):
    parts = {path.stem for path in (ROOT / source).glob("[!_]*.py")}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / PLACES[source]).glob("test_*.py")}
    assert len(parts) > 10
    assert not parts - tests
