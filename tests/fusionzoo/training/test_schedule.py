from __future__ import annotations

from itertools import pairwise

import pytest

from fusionzoo.training.schedule import best_epoch, lr_factor, out_of_patience, plateaus


def test_warmup_rises_to_one_and_cosine_falls_to_zero():
    factors = [lr_factor("cosine", s, 100, 0.1, []) for s in range(101)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0)
    assert all(a > b for a, b in pairwise(factors[10:]))


def test_linear_and_constant():
    assert [lr_factor("linear", s, 4, 0.0, []) for s in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert {lr_factor("constant", s, 4, 0.0, []) for s in range(5)} == {1.0}


def test_plateau_halves_after_five_epochs_without_a_best():
    scores = [0.1, 0.3, 0.2, 0.3, 0.2, 0.2]
    assert plateaus(scores) == 0
    assert lr_factor("plateau", 3, 9, 0.0, [*scores, 0.2]) == 0.5
    assert plateaus([*scores, 0.2, 0.4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) == 3


def test_decay_and_its_epochs_are_options():
    scores = [0.1] * 12  # one best and eleven without a new one: torch's patience of 10
    assert lr_factor("plateau", 3, 9, 0.0, scores[:-1], 0.95, 11) == 1.0
    assert lr_factor("plateau", 3, 9, 0.0, scores, 0.95, 11) == 0.95
    assert [lr_factor("step", 3, 9, 0.0, [0.0] * n, 0.1, 30) for n in (0, 29, 30, 60)] == pytest.approx(
        [1, 1, 0.1, 0.01]
    )


def test_the_earlier_of_equal_epochs_is_best_and_patience_counts_from_it():
    scores = [0.1, 0.5, 0.5, 0.4]
    assert best_epoch(scores) == 2
    assert out_of_patience(scores, 2)
    assert not out_of_patience(scores, 3)
    assert not out_of_patience(scores, 0)
    assert best_epoch([]) == 0
