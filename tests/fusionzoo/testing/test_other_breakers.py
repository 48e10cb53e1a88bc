"""Every check of a host and of an objective catches one that breaks just its rule, and lets a sound one pass."""

from __future__ import annotations

import host_breakers as hosts
import objective_breakers as objectives
import objective_weight_breakers  # noqa: F401 - adds to BREAKERS
import pytest

from fusionzoo.testing import all_checks, check_host, check_objective

OWN = {
    kind: {c.name for c in all_checks(kind) if f".checks.{kind}" in c.function.__module__}
    for kind in ("host", "objective")
}


#: The host's only option is excused; the objective has none, reads labels, and has one tensor.
WITHOUT_OPTIONS = {"options_act"}
LABELLED = {"impossible_options_refused", "unlabelled_is_true", "reference_refuses_parts"}


def told(results):
    return "\n".join(f"{r.check}: {r.reason}" for r in results.failed)


def test_a_sound_host_passes():
    results = check_host(hosts.SoundHost, spec=hosts.SPEC)
    assert results.ok, told(results)
    assert {r.check for r in results.skipped} == {"spec_variants", "dropout_drops", *WITHOUT_OPTIONS}


@pytest.mark.parametrize("name", hosts.BREAKERS)
def test_a_host_check_catches_its_breaker(name):
    cls, spec, _ = hosts.BREAKERS[name]
    assert [r.status for r in check_host(cls, spec=spec, only=[name])] == ["failed"]


@pytest.mark.parametrize("name", objectives.BREAKERS)
def test_an_objective_check_catches_its_breaker(name):
    cls, _, _ = objectives.BREAKERS[name]
    assert [r.status for r in check_objective(cls, only=[name])] == ["failed"]


@pytest.mark.slow
@pytest.mark.parametrize("name", hosts.BREAKERS)
def test_no_other_check_catches_the_host(name):
    cls, spec, also = hosts.BREAKERS[name]
    results = check_host(cls, spec=spec)
    assert {r.check for r in results.failed} == {name, *also}, told(results)


def test_a_sound_objective_passes():
    results = check_objective(objectives.SoundObjective, spec=objectives.SPEC)
    assert results.ok, told(results)
    assert {r.check for r in results.skipped} == {"spec_variants", "dropout_drops", *WITHOUT_OPTIONS, *LABELLED}


@pytest.mark.slow
@pytest.mark.parametrize("name", objectives.BREAKERS)
def test_no_other_check_catches_the_objective(name):
    cls, also, _ = objectives.BREAKERS[name]
    results = check_objective(cls)
    assert {r.check for r in results.failed} == {name, *also}, told(results)


def test_every_own_check_has_a_breaker():
    # The shared checks have theirs among the fusions.
    assert OWN["host"] == set(hosts.BREAKERS)
    assert OWN["objective"] == set(objectives.BREAKERS)
