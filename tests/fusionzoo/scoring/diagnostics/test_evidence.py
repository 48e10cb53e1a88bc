"""The shares are those of readers for whom they are known: the optimal one, and those that leave evidence out."""

from __future__ import annotations

import numpy as np
import pytest

from fusionzoo.data.demo import bayes_posterior, demo, evidence
from fusionzoo.scoring.diagnostics.evidence import evidence_use, is_demo, predictions_needed
from fusionzoo.scoring.diagnostics.predicted import Predicted


@pytest.fixture(scope="module")
def generated():
    return demo(dialogues=(0, 0, 50), length=(6, 14))


def use_of(corpus, **reader):
    asked = []

    def predict(altered):
        asked.append(altered)
        return Predicted(altered, "test", np.arange(len(altered)), bayes_posterior(altered, **reader))

    found = evidence_use(predict(corpus), predict)
    assert len(asked) == 1 + predictions_needed()
    return found


def test_the_parts_sum_up_to_the_posterior(generated):
    total = np.sum(list(evidence(generated).values()), axis=0)
    p = np.exp(total - total.max(1, keepdims=True))
    np.testing.assert_allclose(p / p.sum(1, keepdims=True), bayes_posterior(generated), atol=1e-9)


@pytest.mark.parametrize("context", ["none", pytest.param("dialogue", marks=pytest.mark.slow)])
def test_the_optimal_reader_recovers_everything(context, generated):
    found = use_of(generated, context=context)
    assert [r.kind for r in found.kinds] == ["redundant", "unique", "synergistic", "context"]
    *own, rest = found.kinds
    assert all(r.share > 0.93 for r in own)
    assert rest.share > 0.93 if context == "dialogue" else rest.share == pytest.approx(0, abs=1e-6)
    assert all("context" in f.words for f in found.findings() if f.grave)


def test_a_reader_that_adds_modalities_up_does_not_see_what_two_show_together(generated):
    found = use_of(generated, synergy=False, context="none")
    share = {r.kind: r.share for r in found.kinds}
    assert share["redundant"] > 0.93
    assert share["unique"] > 0.93
    assert share["synergistic"] == pytest.approx(0, abs=1e-6)
    assert share["context"] == pytest.approx(0, abs=1e-6)
    grave = [f.words for f in found.findings() if f.grave]
    assert "does not see what only two modalities together show: it recovers 0 % of the synergistic evidence" in grave


def test_a_reader_of_one_modality_recovers_a_part(generated):
    share = {r.kind: r.share for r in use_of(generated, modalities=["text"], context="none").kinds}
    assert 0.3 < share["redundant"] < 0.9
    assert 0.15 < share["unique"] < 0.7
    assert share["synergistic"] == pytest.approx(0, abs=1e-6)


def test_a_kind_that_is_not_in_the_data_is_left_out():
    corpus = demo(dialogues=(0, 0, 10), length=(3, 6), redundant=0.0)
    assert "redundant" not in {r.kind for r in use_of(corpus, context="none").kinds}


def test_only_demo_knows(corpus):
    assert is_demo(corpus)
    assert not is_demo(_forgetful(corpus))


def _forgetful(corpus):
    from dataclasses import replace

    return replace(corpus, info={})
