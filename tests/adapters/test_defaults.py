"""The defaults of hosts: none loses to a network that reads single utterances, on conversations where context helps."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from fusionzoo.data.demo import demo
from fusionzoo.experiments.single_run import train

#: Those whose defaults were chosen on `demo`; docs/results.md says which others lose there.
HOSTS = ["bc-lstm", "dialogue-gcn", "text-cnn"]


@pytest.fixture(scope="module")
def corpus():
    return demo()


@pytest.fixture(scope="module")
def without_context(corpus):
    """Weighted F1 on the test split of scikit-learn's network on an utterance's features side by side, mean of three."""
    features = np.concatenate([corpus.features[m] for m in corpus.dims], 1)
    train_split, test_split = corpus.split == "train", corpus.split == "test"
    features = StandardScaler().fit(features[train_split]).transform(features)
    scores = []
    for seed in range(3):
        network = MLPClassifier(early_stopping=True, random_state=seed)
        network.fit(features[train_split], corpus.label[train_split])
        guess = network.predict(features[test_split])
        scores.append(f1_score(corpus.label[test_split], guess, average="weighted"))
    return statistics.mean(scores)


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
def test_no_default_of_a_host_loses_to_a_network_without_context(host, corpus, without_context, tmp_path):
    run = train({"host": {"name": host}}, tmp_path / "run", quiet=True, corpus=corpus)
    assert run.test is not None
    assert run.test["weighted_f1"] > without_context
