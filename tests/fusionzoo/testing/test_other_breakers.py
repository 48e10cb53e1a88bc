"""Every check of a host and of an objective catches one that breaks just its rule, and lets a sound one pass."""

from __future__ import annotations

import host_breakers as hosts
import objective_breakers as objectives
import pytest

from fusionzoo.testing import all_checks, check_host, check_objective

OWN = {
    kind: {c.name for c in all_checks(kind) if f".checks.{kind}" in c.function.__module__}
    for kind in ("host", "objective")
}


def told(results):
    return "\n".join(f"{r.check}: {r.reason}" for r in results.failed)


def test_a_sound_host_passes():
    results = check_host(hosts.SoundHost, spec=hosts.SPEC)
    assert results.ok, told(results)
    assert {r.check for r in results.skipped} == {"spec_variants"}


@pytest.mark.parametrize("name", hosts.BREAKERS)
def test_a_host_check_catches_its_breaker_and_no_other_does(name):
    cls, spec, also = hosts.BREAKERS[name]
    results = check_host(cls, spec=spec)
    assert {r.check for r in results.failed} == {name, *also}, told(results)


def test_a_sound_objective_passes():
    results = check_objective(objectives.SoundObjective, spec=objectives.SPEC)
    assert results.ok, told(results)
    assert {r.check for r in results.skipped} == {"spec_variants"}


@pytest.mark.parametrize("name", objectives.BREAKERS)
def test_an_objective_check_catches_its_breaker_and_no_other_does(name):
    cls, also, _ = objectives.BREAKERS[name]
    results = check_objective(cls)
    assert {r.check for r in results.failed} == {name, *also}, told(results)


def test_every_own_check_has_a_breaker():
    # The shared checks have theirs among the fusions.
    assert OWN["host"] == set(hosts.BREAKERS)
    assert OWN["objective"] == set(objectives.BREAKERS)
