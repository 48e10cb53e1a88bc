"""Every adapter for a public repository passes the suite on a small model with the names and the join of the real one."""

from __future__ import annotations

import pytest
from stand_ins import EXAMPLES

import fusionzoo
from fusionzoo.testing import check_adapter, run


@pytest.mark.parametrize("name", fusionzoo.names("adapter"))
def test_adapter(name):
    results = check_adapter(name, example=EXAMPLES[name])
    results.raise_if_failed()
    assert not [r for r in results.skipped if r.check not in ("pickle_works",)], results


def test_the_installed_command_says_what_it_had_no_model_for():
    results = run("mmgcn", "adapter")
    assert results.ok
    assert {r.check for r in results if r.status == "passed"} == {"foreign_models_passed_over", "site_named"}
    assert all("--example script.py:function" in r.reason for r in results.skipped)
