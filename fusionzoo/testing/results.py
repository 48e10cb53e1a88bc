"""What running checks gives: one result per check, as a list, a table, text or JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusionzoo._text import visible
from fusionzoo._types import JSON
from fusionzoo.errors import FusionZooError

if TYPE_CHECKING:
    from rich.table import Table

PASSED, FAILED, SKIPPED, EXPECTED = "passed", "failed", "skipped", "expected-failure"
STATUSES = (PASSED, FAILED, SKIPPED, EXPECTED)
_STYLE = {PASSED: "green", FAILED: "bold red", SKIPPED: "dim", EXPECTED: "yellow"}


class CheckFailure(FusionZooError, AssertionError):
    """A rule of the contract is broken; the message says what was seen, what was expected and how to repair it."""


@dataclass
class CheckResult:
    """The outcome of one check.

    check : its name.
    status : `"passed"`, `"failed"`, `"skipped"` or `"expected-failure"`.
    reason : why, empty when it
    passed.
    rule : the rule in one sentence.
    seconds : wall time.
    error : the exception behind a failure.
    """

    check: str
    status: str
    reason: str = ""
    rule: str = ""
    theme: str = ""
    seconds: float = 0.0
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing has to be done about it."""
        return self.status != FAILED

    def to_dict(self) -> dict[str, JSON]:
        """Plain values only, ready for JSON."""
        return {
            "check": self.check,
            "status": self.status,
            "reason": self.reason,
            "rule": self.rule,
            "theme": self.theme,
            "seconds": round(self.seconds, 4),
        }


class CheckResults(list[CheckResult]):
    """The results of one subject: a list, with what a test or the command line asks of it.

    subject : what was checked, `"fusion lmam"`.
    kind : its kind.
    """

    def __init__(self, results: list[CheckResult], subject: str, kind: str):
        super().__init__(results)
        self.subject, self.kind = subject, kind

    def _of(self, status: str) -> list[CheckResult]:
        return [r for r in self if r.status == status]

    @property
    def ok(self) -> bool:
        """True when something was run and no check failed."""
        return bool(self.passed or self.expected) and not self.failed

    @property
    def failed(self) -> list[CheckResult]:
        """The checks that failed, an expected failure that passed included."""
        return self._of(FAILED)

    @property
    def passed(self) -> list[CheckResult]:
        """The checks that passed."""
        return self._of(PASSED)

    @property
    def skipped(self) -> list[CheckResult]:
        """The checks that do not apply or were not run, with the reason."""
        return self._of(SKIPPED)

    @property
    def expected(self) -> list[CheckResult]:
        """The checks that failed as announced."""
        return self._of(EXPECTED)

    @property
    def exit_code(self) -> int:
        """0 when all is well, else 1."""
        return 0 if self.ok else 1

    def by_name(self) -> dict[str, CheckResult]:
        """Check name -> result."""
        return {r.check: r for r in self}

    def summary(self) -> str:
        """One line."""
        counts = ", ".join(f"{n} {status}" for status in STATUSES if (n := len(self._of(status))))
        return f"{self.subject}: {counts or 'no check was run'} ({sum(r.seconds for r in self):.1f} s)"

    def to_dict(self) -> dict[str, JSON]:
        """Plain values only, ready for JSON."""
        return {
            "subject": self.subject,
            "kind": self.kind,
            "ok": self.ok,
            "counts": {status: len(self._of(status)) for status in STATUSES},
            "results": [r.to_dict() for r in self],
        }

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def table(self) -> Table:
        """A rich table: theme, check, status, and the reason or else the rule."""
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text(visible(self.summary())), title_justify="left", box=None, pad_edge=False, header_style="bold"
        )
        for column in ("theme", "check", "status"):
            table.add_column(column, no_wrap=True)
        table.add_column("reason (else the rule)", overflow="fold", ratio=1)
        theme = ""
        for r in self:
            table.add_row(
                r.theme if r.theme != theme else "",
                Text(visible(r.check)),
                Text(r.status, _STYLE[r.status]),
                Text(visible(r.reason, lines=True)) if r.reason else Text(r.rule, "dim"),
            )
            theme = r.theme
        return table

    def __str__(self) -> str:
        width = max((len(r.check) for r in self), default=0)
        lines = [f"{r.check:<{width}}  {r.status:<16}  {r.reason or r.rule}" for r in self]
        return "\n".join([*lines, self.summary()])

    def raise_if_failed(self) -> None:
        """Raise `CheckFailure` naming every check that failed; for a test that wants all checks in one."""
        if not self.ok:
            lines = [f"- {r.check}: {r.reason}" for r in self.failed] or ["- no check was run"]
            raise CheckFailure("\n".join([self.summary(), *lines]))
