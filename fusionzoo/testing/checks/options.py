"""Checks of every kind: every option does something, and what cannot be is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from fusionzoo._variants import signature_of
from fusionzoo.testing.comparisons import in_dtype
from fusionzoo.testing.runner import fail, rules, skip

rule = rules("fusion", "host", "objective", theme="options", needs=("constructs",))


def without_effect(subject: Any) -> Mapping[str, str]:
    """Options that change no number under those of the subject, as its class (or its variant's) declares them: name -> why.

    An option that acts beside another option alone (`layers` where `form="transformer"`), or on memory and speed alone.
    """
    return getattr(type(subject.make()), "without_effect", None) or {}


_BASE = {"dims", "out_dim", "missing", "num_classes", "num_speakers", "class_counts", "fusion", "placement", "variant"}


def _own(subject) -> dict[str, Any]:
    """The options of the class, or of its variant under check, with their defaults; those that a variant fixes are none."""
    cls = type(subject.make())
    preset, fixed = getattr(cls, "preset", {}), getattr(cls, "fixed", {})
    return {
        n: preset.get(n, p.default)
        for n, p in signature_of(subject.cls).parameters.items()
        if n not in _BASE
        and n not in fixed
        and p.default is not p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def _impossible(name: str, default: Any) -> list[Any]:
    """Values that an option of that name and default cannot have."""
    if isinstance(default, bool):
        return []
    if name == "dropout" or name.endswith("_dropout"):
        return [-0.1, 1.5, float("nan")]
    if name in ("heads", "width", "layers", "hidden", "rank", "depth") or name.endswith(
        ("_width", "_layers", "_heads")
    ):
        return [-1, 2.5] if not isinstance(default, (tuple, list)) else []
    if isinstance(default, str):
        return ["no-such-choice"]
    return []


@rule()
def impossible_options_refused(subject):
    """A rate outside [0, 1], a size below one and an unknown choice are refused, at construction or at the first call."""
    looked = False
    for name, default in _own(subject).items():
        for value in _impossible(name, default):
            looked = True
            try:
                module = subject.make(**{name: value})
                subject.run(module, subject.inputs())
                subject.run(module.train(), subject.inputs())
            except Exception:
                continue  # in whatever words; those of the library are `OptionError`s that name the option
            fail(
                f"{name}={value!r} is accepted, and nothing is said",
                f"raise fusionzoo.errors.OptionError that says what {name} must be (check_positive, check_probability, "
                "check_choice)",
            )
    if not looked:
        skip("no option of a kind whose range is known")


@rule(needs=("constructs", "runs"))
def options_act(subject):
    """Every option that is a number or a switch changes something, unless `without_effect` of the class says why it does not."""
    excused = without_effect(subject)
    unknown = [n for n in excused if n not in _own(subject)]
    if unknown:
        fail(f"without_effect names {unknown[0]!r}, which is no option", "correct the name")
    before = _seen(subject, {})
    silent, looked = [], False
    for name, default in _own(subject).items():
        value = subject.options.get(name, default)
        if before is None or name in excused or not isinstance(value, (bool, int, float)):
            continue
        changed = (s for v in _others(name, value) if (s := _seen(subject, {name: v})) is not None)
        differences = _until_true(_differ(before, s) for s in changed)
        looked |= bool(differences)
        if differences and not differences[-1]:
            silent.append(f"{name} (now {value!r})")
    if silent:
        fail(
            f"these options change nothing, neither weights, outputs, losses nor gradients: {', '.join(silent)}",
            'use each, take it out, or say why in the class attribute without_effect = {"layers": "of form=\'deep\' alone"}',
        )
    if not looked:
        skip("no option is a number or a switch")


def _until_true(answers: Iterable[bool]) -> list[bool]:
    out = []
    for answer in answers:
        out.append(answer)
        if answer:
            break
    return out


def _others(name: str, value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if name == "dropout" or name.endswith("_dropout"):
        return [0.5 if value != 0.5 else 0.25]
    others = [value + 1, value * 2, 1] if isinstance(value, int) else [value * 0.5 + 0.01, value + 0.25]
    return [v for v in others if v != value]


def _seen(subject, options: dict[str, Any]) -> list[torch.Tensor] | None:
    """All that a user can see of an instance with these options; None where it cannot be built or run with them."""
    try:
        module = subject.make(**options)
        seen = [v.detach() for v in module.state_dict().values() if isinstance(v, torch.Tensor)]
        for training in (False, True):
            inputs = in_dtype(subject.inputs(steps=7), None, leaves=True)
            torch.manual_seed(9)
            loss = subject.loss(module.train(training), inputs)
            if loss.requires_grad:
                loss.backward()
            seen += [loss.detach(), subject.run(module, inputs).detach(), *_gradients(inputs)]
        seen += [p.grad for p in module.parameters() if p.grad is not None]
    except Exception:
        return None
    return seen


def _gradients(value: Any) -> list[torch.Tensor]:
    """Of the tensors in what a subject is called with."""
    if isinstance(value, torch.Tensor):
        return [] if value.grad is None else [value.grad]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, f.name) for f in dataclasses.fields(value)]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [g for part in parts for g in _gradients(part)]


def _differ(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) != len(b) or any(
        x.shape != y.shape or not torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(a, b, strict=True)
    )
