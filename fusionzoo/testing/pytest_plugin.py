"""The checks as pytest tests, one test id a check. Nothing else in the package imports pytest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar, Unpack

import pytest

from fusionzoo.errors import OptionError
from fusionzoo.specs import normalise_name
from fusionzoo.testing.api import make_subject
from fusionzoo.testing.results import EXPECTED, FAILED, SKIPPED
from fusionzoo.testing.runner import CheckFailure, Session, check_names, select_checks

if TYPE_CHECKING:
    from fusionzoo._types import Adapter, OptionSets
    from fusionzoo.fusion import Dims
    from fusionzoo.specs import Spec
    from fusionzoo.testing.checks.adapter import Example

ExpectedFailures = Mapping[str, str] | Callable[..., Mapping[str, str] | None] | None

#: What is checked: a registered name, a class, or an adapter.
Subject: TypeAlias = "str | type | Adapter"

F = TypeVar("F", bound=Callable[..., object])


class More(TypedDict, total=False):
    """What the checks of some kinds take besides, as `check_fusion` and `check_adapter` do."""

    dims: Dims | None
    options: OptionSets
    spec: Spec | None
    patch: Callable[..., object] | None
    example: Example | None


class _Plan:
    """One subject, loaded when its first check runs and not when pytest collects."""

    def __init__(self, what: Any, kind: str, expected: ExpectedFailures, more: Mapping[str, Any]):
        self.what, self.kind, self.expected, self.more = what, kind, expected, more
        named = isinstance(what, str)
        self.name = normalise_name(what) if named else getattr(what, "__name__", type(what).__name__)

    @cached_property
    def session(self) -> Session:
        subject = make_subject(self.kind, self.what, **self.more)
        expected = self.expected(subject.cls) if callable(self.expected) else self.expected
        return Session(subject, expected, slow=True)


class BoundCheck:
    """A check bound to what it checks; call it in the test."""

    def __init__(self, plan: _Plan, name: str):
        self._plan, self.name = plan, name

    def __call__(self) -> None:
        result = self._plan.session.result(self.name)
        if result.status == SKIPPED:
            pytest.skip(result.reason)
        if result.status == EXPECTED:
            pytest.xfail(result.reason)
        if result.status == FAILED:
            raise CheckFailure(
                f"{self._plan.name}: {self.name}: {result.reason}\nThe rule: {result.rule}"
            ) from result.error

    def __repr__(self) -> str:
        return f"<check {self.name} of {self._plan.kind} {self._plan.name}>"


def parametrize_checks(
    *subjects: Subject | Iterable[Subject],
    kind: str = "fusion",
    expected_failures: ExpectedFailures = None,
    only: Iterable[str] | None = None,
    slow: bool | pytest.MarkDecorator | Collection[pytest.MarkDecorator] = False,
    **more: Unpack[More],
) -> Callable[[F], F]:
    """A pytest decorator: one test per check of every subject, `test_conformance[my-fusion-padding_poison]`.

    Parameters
    ----------
    subjects : names or classes, or lists of them.
    kind : "fusion", "host", "objective" or "adapter".
    expected_failures : check name -> reason, or a function of the class that returns such a mapping; such tests are
        xfailed with the reason, and fail once the check passes.
    only : names of checks.
    slow : False leaves slow checks out, True includes them; a mark such as
        `pytest.mark.slow` includes them with that mark.
    more : `dims`, `options`, `spec` (or `patch` of an adapter), as for `check_fusion`.

    The test takes one argument, `check`, and calls it:

    >>> @parametrize_checks("concat", only=["padding_poison"])
    ... def test_conformance(check):
    ...     check()
    """
    flat: list[Any] = []
    for subject in subjects:
        flat.extend(subject if isinstance(subject, (list, tuple, set, frozenset)) else [subject])
    if not flat:
        raise OptionError('parametrize_checks needs at least one name or class: @parametrize_checks("my-fusion")')
    checks = select_checks(kind, only)
    if isinstance(expected_failures, Mapping):
        check_names(kind, expected_failures)
    cases = []
    for what in flat:
        plan = _Plan(what, kind, expected_failures, more)
        for check in checks:
            if check.slow and slow is False:
                continue
            marks: Any = slow if check.slow and slow is not True else ()
            cases.append(pytest.param(BoundCheck(plan, check.name), id=f"{plan.name}-{check.name}", marks=marks))
    return pytest.mark.parametrize("check", cases)
