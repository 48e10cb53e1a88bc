"""The conformance suite: one named check a rule of the contract, for fusions, hosts, objectives and adapters.

>>> from fusionzoo.testing import check_fusion
>>> results = check_fusion("concat")
>>> results.ok
True

`check_fusion`, `check_host`, `check_objective` and `check_adapter` return one result a check; `parametrize_checks` makes
one pytest test of each; `run` is what `fusionzoo check NAME` calls. Every built-in plugin passes the same checks.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionzoo.testing._api import check_adapter as check_adapter
    from fusionzoo.testing._api import check_fusion as check_fusion
    from fusionzoo.testing._api import check_host as check_host
    from fusionzoo.testing._api import check_objective as check_objective
    from fusionzoo.testing._api import run as run
    from fusionzoo.testing._pytest import parametrize_checks as parametrize_checks
    from fusionzoo.testing._results import CheckResult as CheckResult
    from fusionzoo.testing._results import CheckResults as CheckResults
    from fusionzoo.testing._suite import Check as Check
    from fusionzoo.testing._suite import CheckFailure as CheckFailure
    from fusionzoo.testing._suite import all_checks as all_checks

# Public name -> module that defines it (PEP 562): looking at the package imports neither torch nor pytest.
_LAZY = {
    "Check": "_suite",
    "CheckFailure": "_suite",
    "CheckResult": "_results",
    "CheckResults": "_results",
    "all_checks": "_suite",
    "check_adapter": "_api",
    "check_fusion": "_api",
    "check_host": "_api",
    "check_objective": "_api",
    "parametrize_checks": "_pytest",
    "run": "_api",
}

__all__ = [
    "Check",
    "CheckFailure",
    "CheckResult",
    "CheckResults",
    "all_checks",
    "check_adapter",
    "check_fusion",
    "check_host",
    "check_objective",
    "parametrize_checks",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
