"""The conformance suite: one named check a rule of the contract, for fusions, hosts, objectives and adapters.

>>> from fusionzoo.testing import check_fusion
>>> results = check_fusion("concat")
>>> results.ok
True

`check_fusion`, `check_host`, `check_objective` and `check_adapter` return one result per check; `parametrize_checks` makes
one pytest test of each; `run` is what `fusionzoo check NAME` calls. Every built-in plugin passes the same checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusionzoo._lazy import attach

if TYPE_CHECKING:
    from fusionzoo.testing.api import check_adapter as check_adapter
    from fusionzoo.testing.api import check_fusion as check_fusion
    from fusionzoo.testing.api import check_host as check_host
    from fusionzoo.testing.api import check_objective as check_objective
    from fusionzoo.testing.api import run as run
    from fusionzoo.testing.pytest_plugin import parametrize_checks as parametrize_checks
    from fusionzoo.testing.results import CheckResult as CheckResult
    from fusionzoo.testing.results import CheckResults as CheckResults
    from fusionzoo.testing.runner import Check as Check
    from fusionzoo.testing.runner import CheckFailure as CheckFailure
    from fusionzoo.testing.runner import all_checks as all_checks

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Check": "fusionzoo.testing.runner",
        "CheckFailure": "fusionzoo.testing.runner",
        "CheckResult": "fusionzoo.testing.results",
        "CheckResults": "fusionzoo.testing.results",
        "all_checks": "fusionzoo.testing.runner",
        "check_adapter": "fusionzoo.testing.api",
        "check_fusion": "fusionzoo.testing.api",
        "check_host": "fusionzoo.testing.api",
        "check_objective": "fusionzoo.testing.api",
        "parametrize_checks": "fusionzoo.testing.pytest_plugin",
        "run": "fusionzoo.testing.api",
    },
)
