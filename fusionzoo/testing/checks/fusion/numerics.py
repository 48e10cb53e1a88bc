"""Checks of a fusion: dtypes and devices."""

from __future__ import annotations

import torch

from fusionzoo.testing.comparisons import finite, ragged
from fusionzoo.testing.runner import describe_error, fail, rules, skip

rule = rules("fusion", theme="dtypes and devices")
_CONSTANTS = "make constants like the input: x.new_zeros(...), torch.full_like(x, v), or buffers"


def _near(low: torch.Tensor, exact: torch.Tensor, limit: float, what: str) -> None:
    error = float((low.double() - exact.double()).norm() / exact.double().norm().clamp(min=1e-6))
    if not error < limit:
        fail(f"{what} differs from float32 by {error:.0%}", "compute what needs precision in float32 and convert back")


def _in_dtype(subject, dtype: torch.dtype):
    fusion = subject.make().to(dtype)
    x = {m: v.to(dtype) for m, v in subject.streams().items()}
    try:
        out = fusion(x, ragged())
    except (RuntimeError, TypeError) as error:
        if "not implemented for" in str(error):
            skip(f"torch on this device cannot: {error}")
        fail(f"{dtype} raises {describe_error(error)}", _CONSTANTS)
    if out.dtype != dtype:
        fail(f"{dtype} input and weights give {out.dtype}", _CONSTANTS)
    finite(out, f"the {dtype} output", "a fill such as -1e9 overflows: use torch.finfo(scores.dtype).min")
    return fusion, x, out


@rule()
def float64(subject):
    """In float64 the output is float64, and more precise."""
    fusion, x, out = _in_dtype(subject, torch.float64)
    exact = fusion.float()({m: v.float() for m, v in x.items()}, ragged())
    _near(out, exact, 1e-3, "the float64 output")


@rule()
def bfloat16(subject):
    """In bfloat16 the output is bfloat16 and near the float32 one."""
    fusion, x, out = _in_dtype(subject, torch.bfloat16)
    exact = fusion.float()({m: v.float() for m, v in x.items()}, ragged())
    _near(out, exact, 0.1, "the bfloat16 output")


@rule()
def float16(subject):
    """In float16, whose largest number is 65504, the output is float16 and finite."""
    _in_dtype(subject, torch.float16)


@rule()
def autocast(subject):
    """Under bfloat16 autocast the output is near the float32 one."""
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    exact = fusion(x, mask)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            out = fusion(x, mask)
    except RuntimeError as error:
        fail(
            f"autocast raises {describe_error(error)}", "convert with .to(x.dtype) before in-place writes and index_put"
        )
    finite(out, "the output under autocast", "a fill such as -1e9 overflows: use torch.finfo(scores.dtype).min")
    _near(out, exact, 0.1, "the output under autocast")


@rule()
def device_agnostic(subject):
    """It runs on whatever device the input is on and never waits for a value (checked on the meta device)."""
    fusion = subject.make().to("meta")
    x = {m: v.to("meta") for m, v in subject.streams().items()}
    for mask in (None, ragged().to("meta")):
        try:
            out = fusion(x, mask)
        except Exception as error:
            fail(
                f"on the meta device a call {'with' if mask is not None else 'without'} mask raises {describe_error(error)}",
                "create tensors on x.device, and do not read values: no .item(), .tolist(), bool(tensor), nonzero, x[mask]",
            )
        if out.device.type != "meta":
            fail(f"input on the meta device gives output on {out.device}", "create tensors on x.device")
