"""Checks, their registry, and the runner.

A check is one function with a one-sentence docstring, the rule. It receives a subject (what is checked, under one set
of options), raises `CheckFailure` when the rule is broken and calls `skip` when the card says that it does not apply.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import random
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from fusionzoo._installed import safe_text
from fusionzoo.errors import OptionError, close_matches_hint
from fusionzoo.testing.results import EXPECTED, FAILED, PASSED, SKIPPED, CheckFailure, CheckResult, CheckResults

if TYPE_CHECKING:
    from fusionzoo.testing.subjects import Subject


class CheckSkipped(Exception):
    """Raised by `skip`: the rule does not apply to this subject."""


def fail(seen: str, fix: str) -> NoReturn:
    """Raise `CheckFailure`: what was seen and expected, then what to do."""
    raise CheckFailure(f"{seen}; {fix}")


def skip(reason: str) -> NoReturn:
    """Leave the check: the rule does not apply."""
    raise CheckSkipped(reason)


@dataclass(frozen=True)
class Check:
    """One rule: its name, the kind of plugin that it is for, the sentence, and the function that tests it.

    slow : left out unless asked for.
    needs : checks that must pass first, or this one has nothing to say.
    """

    name: str
    kind: str
    theme: str
    rule: str
    function: Callable[..., None]
    slow: bool
    needs: tuple[str, ...]


#: What a check relies on unless it says otherwise.
DEFAULT_NEEDS = ("constructs", "runs", "eval_deterministic")

#: Kind -> modules with its checks, in the order in which they run.
_MODULES = {
    "fusion": (
        "registration",
        "fusion.construction",
        "fusion.inputs",
        "fusion.padding",
        "fusion.missing",
        "gradients",
        "fusion.gradients",
        "modes",
        "fusion.numerics",
        "persistence",
        "calls",
        "options",
        "fusion.sizes",
        "fusion.losses",
        "fusion.training",
        "fusion.maps",
        "fusion.torch_tools",
        "fusion.lengths",
    ),
    "host": (
        "registration",
        "host.construction",
        "host.batches",
        "gradients",
        "modes",
        "persistence",
        "calls",
        "options",
    ),
    "objective": (
        "registration",
        "objective",
        "objective_weights",
        "gradients",
        "modes",
        "persistence",
        "calls",
        "options",
    ),
    "dataset": ("dataset",),
    "adapter": ("adapter",),
    "recipe": ("recipe",),
    "reader": ("reader",),
    "encoder": ("encoder",),
}
KINDS = tuple(_MODULES)

_CHECKS: dict[tuple[str, str], Check] = {}


def rules(*kinds: str, theme: str, needs: tuple[str, ...] = DEFAULT_NEEDS) -> Callable[..., Any]:
    """Decorator factory for the checks of one module: `rule = rules("fusion", theme="padding")`, then `@rule()`.

    A check may narrow `kinds`, add to `needs` or be `slow`.
    """
    of_module, needed = kinds, needs

    def rule(
        *kinds: str, needs: tuple[str, ...] | None = None, slow: bool = False
    ) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
        def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
            sentence = inspect.getdoc(function)
            if not sentence:
                raise TypeError(f"the check {function.__name__} needs a docstring: its rule in one sentence")
            for kind in kinds or of_module:
                key = (kind, function.__name__)
                if key in _CHECKS:
                    raise TypeError(f"two {kind} checks are called {function.__name__}")
                _CHECKS[key] = Check(
                    name=function.__name__,
                    kind=kind,
                    theme=theme,
                    rule=" ".join(sentence.split()),
                    function=function,
                    slow=slow,
                    needs=needed if needs is None else needs,
                )
            return function

        return register

    return rule


def all_checks(kind: str = "fusion") -> list[Check]:
    """Every check for a kind of plugin, in the order in which they run."""
    if kind not in _MODULES:
        raise OptionError(
            f"there are no checks for plugins of kind {kind!r}{close_matches_hint(str(kind), KINDS)}; "
            f"kinds: {', '.join(KINDS)}"
        )
    order = [f"{__package__}.checks.{module}" for module in _MODULES[kind]]
    for module in order:
        importlib.import_module(module)
    mine = [c for c in _CHECKS.values() if c.kind == kind]
    return sorted(mine, key=lambda c: order.index(c.function.__module__))


def select_checks(kind: str, only: Iterable[str] | None = None) -> list[Check]:
    """The checks named in `only`, or all; an unknown name raises `OptionError` with the closest matches."""
    checks = all_checks(kind)
    if only is None:
        return checks
    wanted = [only] if isinstance(only, str) else list(only)
    check_names(kind, wanted)
    return [c for c in checks if c.name in wanted]


def check_names(kind: str, names: Iterable[str]) -> None:
    """Raise `OptionError` when a check of that name does not exist: a typing error must not hide a failure."""
    known = [c.name for c in all_checks(kind)]
    for name in names:
        if name not in known:
            raise OptionError(
                f"there is no {kind} check {name!r}{close_matches_hint(name, known) or '.'} "
                f"List them with: fusionzoo.testing.all_checks({kind!r})"
            )


class Session:
    """Runs the checks of one subject, each at most once, so that what a check needs is not run again.

    Parameters
    ----------
    subject : what is checked; `subject.variants()` gives it under each set of options.
    expected : check name -> reason, for checks that are known to fail. One that passes nevertheless is a failure.
    slow : run slow checks too; otherwise they are skipped and say so.
    """

    def __init__(self, subject: Subject, expected: Mapping[str, str] | None = None, slow: bool = False):
        self.subject, self.slow = subject, slow
        self.expected = dict(expected or {})
        self.checks = {c.name: c for c in all_checks(subject.kind)}
        check_names(subject.kind, self.expected)
        for name, reason in self.expected.items():
            if not isinstance(reason, str) or not reason.strip():
                raise OptionError(f"expected_failures: say why {name!r} is expected to fail, not {reason!r}")
        self._done: dict[str, CheckResult] = {}
        self._blocked: set[str] = set()

    def run(self, only: Iterable[str] | None = None) -> CheckResults:
        """The results of all checks, or of those named."""
        chosen = select_checks(self.subject.kind, only)
        return CheckResults([self.result(c.name) for c in chosen], self.subject.label, self.subject.kind)

    def result(self, name: str) -> CheckResult:
        """The result of one check."""
        if name not in self._done:
            self._done[name] = self._judge(self.checks[name])
        return self._done[name]

    def _judge(self, check: Check) -> CheckResult:
        outcome = CheckResult(check.name, PASSED, "", check.rule, check.theme)
        if check.slow and not self.slow:
            outcome.status, outcome.reason = SKIPPED, "slow; run with slow=True or --slow"
            return outcome
        for needed in check.needs:
            # Shared checks name prerequisites that not every kind has; one that does not apply stands in no one's way.
            if needed in self.checks and (self.result(needed).status in (FAILED, EXPECTED) or needed in self._blocked):
                outcome.status, outcome.reason = SKIPPED, f"needs {needed!r}, which did not pass"
                self._blocked.add(check.name)
                return outcome
        start = time.perf_counter()
        self._execute(check, outcome)
        outcome.seconds = time.perf_counter() - start
        reason = self.expected.get(check.name)
        if reason is not None and outcome.status == FAILED:
            outcome.status, outcome.reason = EXPECTED, f"{reason} (seen: {outcome.reason})"
        elif reason is not None and outcome.status == PASSED:
            outcome.status = FAILED
            outcome.reason = f"expected to fail ({reason}), but it passed; take it out of the expected failures"
            outcome.error = CheckFailure(outcome.reason)
        return outcome

    def _execute(self, check: Check, outcome: CheckResult) -> None:
        """Run under every set of options: failed when one fails, skipped when it applies to none."""
        skipped: list[str] = []
        variants = self.subject.variants()
        for variant in variants:
            where = f"with {variant.describe()}: " if variant.describe() else ""
            try:
                with isolated():
                    check.function(variant)
            except CheckSkipped as reason:
                skipped.append(f"{where}{reason}")
            except CheckFailure as error:
                outcome.status, outcome.reason, outcome.error = FAILED, f"{where}{error}", error
                return
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # whatever the plugin raises is a finding about it, not a crash of the suite
                outcome.status, outcome.reason, outcome.error = FAILED, f"{where}{describe_error(error)}", error
                return
        if len(skipped) == len(variants):
            outcome.status, outcome.reason = SKIPPED, skipped[0]


def describe_error(error: BaseException) -> str:
    """`TypeError: ... (my_fusion.py:41, in combine)`, the innermost frame outside torch."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    text = " ".join(safe_text(lambda: str(error)).split())
    text = f"{text[:400]}..." if len(text) > 400 else text
    where = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"


#: What of torch belongs to the user: how it is read, and how it is put back.
_SETTINGS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "anomaly detection": (lambda t: t.is_anomaly_enabled(), lambda t, on: t.autograd.set_detect_anomaly(on)),
    "deterministic algorithms": (
        lambda t: t.are_deterministic_algorithms_enabled(),
        lambda t, on: t.use_deterministic_algorithms(on),
    ),
    "the default dtype": (lambda t: t.get_default_dtype(), lambda t, dtype: t.set_default_dtype(dtype)),
    "the recording of gradients": (lambda t: t.is_grad_enabled(), lambda t, on: t.set_grad_enabled(on)),
    "the number of threads": (lambda t: t.get_num_threads(), lambda t, count: t.set_num_threads(count)),
    "the precision of float32 products": (
        lambda t: t.get_float32_matmul_precision(),
        lambda t, precision: t.set_float32_matmul_precision(precision),
    ),
    "cuDNN's benchmark switch": (
        lambda t: t.backends.cudnn.benchmark,
        lambda t, on: setattr(t.backends.cudnn, "benchmark", on),
    ),
    "cuDNN's deterministic switch": (
        lambda t: t.backends.cudnn.deterministic,
        lambda t, on: setattr(t.backends.cudnn, "deterministic", on),
    ),
}


def torch_settings() -> dict[str, Any]:
    """Torch's global settings by what they are."""
    import torch

    return {what: read(torch) for what, (read, _) in _SETTINGS.items()}


def put_back(settings: Mapping[str, Any]) -> None:
    """Set what is no longer as in `settings`."""
    import torch

    for what, value in torch_settings().items():
        if value != settings[what]:
            _SETTINGS[what][1](torch, settings[what])


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Leave no trace: the random states and torch's settings are as before, warnings are not shown."""
    import torch

    numpy = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy else None
    settings = torch_settings()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.set_grad_enabled(True)
            yield
    finally:
        put_back(settings)
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)
