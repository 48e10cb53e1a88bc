"""Every check of a fusion catches a fusion that breaks just its rule, and lets sound ones pass."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import fusion_breakers_calls  # noqa: F401
import fusion_breakers_gradients  # noqa: F401
import fusion_breakers_inputs  # noqa: F401
import fusion_breakers_padding  # noqa: F401
import fusion_breakers_sizes  # noqa: F401
import pytest
import torch
from sound_fusions import BREAKERS, SPEC, Sound, SoundLosses, SoundPool, SoundUnaligned

from fusionzoo.testing import all_checks, check_fusion

#: What does not apply to a fusion without dropout, auxiliary losses and maps that name modalities.
WITHOUT = {"dropout_drops", "maps_as_named", *(c.name for c in all_checks("fusion") if c.theme == "auxiliary losses")}
SLOW = [c.name for c in all_checks("fusion") if c.slow]


@pytest.mark.parametrize(
    ("cls", "handles", "skipped"),
    [
        (Sound, (), {"unaligned_lengths", *WITHOUT}),
        (SoundUnaligned, ("unaligned",), {"streams_as_named", *WITHOUT} - {"maps_as_named"}),
        (SoundPool, ("pools",), {"unaligned_lengths", "padding_output_zero", *WITHOUT}),
        (SoundLosses, ("losses",), {"unaligned_lengths", "maps_as_named"}),
    ],
)
def test_a_sound_fusion_passes(cls, handles, skipped):
    spec = replace(SPEC, target=f"sound_fusions:{cls.__name__}", handles=SPEC.handles | set(handles))
    results = check_fusion(cls, spec=spec)
    assert results.ok, str(results)
    untold = {"level_as_declared", "spec_variants", *SLOW}
    assert {r.check for r in results.skipped} == skipped | untold


@pytest.mark.parametrize("name", [name for name in BREAKERS if name not in SLOW])
def test_a_check_catches_its_breaker(name):
    breaker = BREAKERS[name]
    (result,) = check_fusion(breaker.cls, spec=breaker.spec, only=[name])
    assert result.status == "failed", f"{result.status}: {result.reason}"
    assert len(result.reason) > 30
    assert ";" in result.reason or ":" in result.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BREAKERS if name not in SLOW])
def test_no_other_check_catches_it(name):
    breaker = BREAKERS[name]
    results = check_fusion(breaker.cls, spec=breaker.spec)
    assert {r.check for r in results.failed} == {name, *breaker.also}, "\n".join(
        f"{r.check}: {r.reason}" for r in results.failed
    )


#: Without the extra `onnx` that check is skipped.
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(p) is None for p in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the extra onnx",
)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_slow_check_catches_its_breaker(name):
    breaker = BREAKERS[name]
    failed = check_fusion(breaker.cls, spec=breaker.spec, only=SLOW, slow=True).failed
    assert {r.check for r in failed} == {name, *breaker.also}, "\n".join(f"{r.check}: {r.reason}" for r in failed)


@needs_onnx
@pytest.mark.slow
def test_a_sound_fusion_passes_the_slow_checks():
    results = check_fusion(Sound, spec=SPEC, only=SLOW, slow=True)
    assert {r.status for r in results} == {"passed"}, str(results)


def test_every_check_has_a_breaker():
    assert {c.name for c in all_checks("fusion")} == set(BREAKERS)
    assert len(BREAKERS) >= 40


def test_checking_leaves_no_trace():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_fusion(Sound, spec=SPEC)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
