"""The public functions."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fusionzoo._registry import registry
from fusionzoo.errors import OptionError
from fusionzoo.specs import check_kind
from fusionzoo.testing.results import CheckResults
from fusionzoo.testing.runner import Session

if TYPE_CHECKING:
    from fusionzoo._types import Adapter, OptionSets
    from fusionzoo.fusion import Dims, Fusion
    from fusionzoo.host import Host
    from fusionzoo.objective import Objective
    from fusionzoo.specs import Spec
    from fusionzoo.testing.checks.adapter import Example

Expected = Mapping[str, str] | None


def check_fusion(
    fusion: str | type[Fusion],
    dims: Dims | None = None,
    *,
    options: OptionSets = None,
    expected_failures: Expected = None,
    only: Iterable[str] | None = None,
    slow: bool = False,
    spec: Spec | None = None,
) -> CheckResults:
    """Run the conformance suite on a fusion.

    Parameters
    ----------
    fusion : a registered name or a class.
    dims : modality widths to check with, small; default three modalities (two where it takes no more).
    options : constructor options, or several sets of them, each of which must pass; default the class's own
        `test_params()` if it has one, else none.
    expected_failures : check name -> reason. Such a check is reported as `"expected-failure"`, and as failed once it passes.
    only : names of the checks to run.
    slow : run `compiles` and `exports` too.
    spec : the `Spec` of a class that is registered nowhere; default what its module's `fusionzoo_register` registers.

    Returns a list with one `CheckResult` a check; see `.ok`, `.failed`, `.raise_if_failed()`, and print it. Random
    states are left as they were.

    >>> check_fusion("sum", only=["padding_poison"]).ok
    True
    """
    return _check("fusion", fusion, options, expected_failures, only, slow, spec=spec, dims=dims)


def check_host(
    host: str | type[Host],
    dims: Dims | None = None,
    *,
    options: OptionSets = None,
    expected_failures: Expected = None,
    only: Iterable[str] | None = None,
    slow: bool = False,
    spec: Spec | None = None,
) -> CheckResults:
    """Run the conformance suite on a host; parameters as for `check_fusion`."""
    return _check("host", host, options, expected_failures, only, slow, spec=spec, dims=dims)


def check_objective(
    objective: str | type[Objective],
    *,
    options: OptionSets = None,
    expected_failures: Expected = None,
    only: Iterable[str] | None = None,
    slow: bool = False,
    spec: Spec | None = None,
) -> CheckResults:
    """Run the conformance suite on an objective; parameters as for `check_fusion`."""
    return _check("objective", objective, options, expected_failures, only, slow, spec=spec)


def check_adapter(
    adapter: str | Adapter | type[Adapter],
    *,
    example: Example | None = None,
    patch: Callable[..., object] | None = None,
    expected_failures: Expected = None,
    only: Iterable[str] | None = None,
    slow: bool = False,
) -> CheckResults:
    """Run the conformance suite on an adapter: patching its host changes nothing else, and removing leaves no trace.

    Parameters
    ----------
    adapter : a registered name, a class or an object.
    example : returns `(model, args, kwargs)`, a small model of the kind that it adapts and a call for it; built anew, with the
        same weights, each time. None takes the adapter's own `test_host`; where it has none, the checks that need a model
        are skipped and say so.
    patch : called as `patch(model, fusion)`; default `fusionzoo.patch`.
    expected_failures, only, slow : as for `check_fusion`.
    """
    return _check("adapter", adapter, None, expected_failures, only, slow, patch=patch, example=example)


def _check(
    kind: str, what: Any, options: OptionSets, expected: Expected, only: Iterable[str] | None, slow: bool, **more: Any
) -> CheckResults:
    return Session(make_subject(kind, what, options=options, **more), expected, slow).run(only)


#: Kind -> module of its subject, where that is one of its own.
_SUBJECTS = {kind: f"checks.{kind}" for kind in ("adapter", "dataset", "recipe", "reader", "encoder")}


def make_subject(kind: str, what: Any, **more: Any) -> Any:
    """The subject of a kind; `more` are its options."""
    check_kind(kind)
    module = importlib.import_module(f"fusionzoo.testing.{_SUBJECTS.get(kind, 'subjects')}")
    if kind == "adapter":
        more.pop("options", None)
    return getattr(module, f"{kind.title()}Subject")(what, **more)


def run(
    name: str,
    kind: str | None = None,
    *,
    slow: bool = False,
    expect: Iterable[str] = (),
    only: Iterable[str] | None = None,
    options: OptionSets = None,
    example: Example | None = None,
) -> CheckResults:
    """What `fusionzoo check NAME` does: find the kind, run its checks; `.table()`, `.to_json()` and `.exit_code` follow.

    Parameters
    ----------
    name : of a registered plugin; `kind:name` and `distribution:name` say which one where several have it.
    kind : of the plugin; default the fusion of that name where there is one, else the kind that has it.
    slow, only, options : as for `check_fusion`.
    expect : expected failures as `check=reason`.
    example : of an adapter, as for `check_adapter`.
    """
    kind, name = registry.resolve(name, kind)
    if example is not None and kind != "adapter":
        raise OptionError(f"an example is a model for an adapter to patch, and {name!r} is a {kind}; leave it out")
    expected: dict[str, str] = {}
    for entry in expect:
        check, equals, reason = entry.partition("=")
        if not equals or not reason.strip():
            raise OptionError(f"an expected failure is given as check=reason, not {entry!r}")
        expected[check.strip()] = reason.strip()
    more = {"example": example} if kind == "adapter" else {}
    return _check(kind, name, options, expected, only, slow, **more)
