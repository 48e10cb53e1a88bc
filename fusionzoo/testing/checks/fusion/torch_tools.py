"""Checks of a fusion: torch's own tools."""

from __future__ import annotations

import torch

from fusionzoo.testing.comparisons import close, ragged, tensor_state
from fusionzoo.testing.runner import describe_error, fail, rules

rule = rules("fusion", theme="torch's tools")


@rule()
def hooks_run(subject):
    """Forward hooks see the call: it goes through torch.nn.Module.__call__."""
    fusion, seen = subject.make(), []
    fusion.register_forward_hook(lambda module, args, out: seen.append(out))
    out = fusion(subject.streams())
    if len(seen) != 1 or seen[0] is not out:
        fail(f"a forward hook ran {len(seen)} times in one call", "do not override __call__, nor call forward yourself")


@rule()
def functional_call(subject):
    """torch.func.functional_call with other weights uses them."""
    fusion, other, x = subject.make(0), subject.make(1), subject.streams()
    out = torch.func.functional_call(fusion, tensor_state(other), (x, ragged()))
    close(
        out,
        other(x, ragged()),
        "between functional_call and an instance with those weights",
        "read weights in the call",
    )


@rule(slow=True)
def compiles(subject):
    """torch.compile gives the same (traced and functionalised, without code generation)."""
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    torch.compiler.reset()
    try:
        out = torch.compile(fusion, backend="aot_eager")(x, mask)
    except Exception as error:
        fail(f"torch.compile raises {describe_error(error)}", "no data-dependent Python control flow in combine")
    finally:
        torch.compiler.reset()
    close(out, fusion(x, mask), "under torch.compile", "do not depend on what a trace cannot see")


@rule(slow=True)
def exports(subject):
    """torch.export gives a program with the same output."""
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    try:
        program = torch.export.export(fusion, (x, mask))
    except Exception as error:
        fail(f"torch.export raises {describe_error(error)}", "no .item(), no data-dependent control flow in combine")
    close(
        program.module()(x, mask),
        fusion(x, mask),
        "in the exported program",
        "do not depend on what a trace cannot see",
    )
