"""The demo's generator does what it says, and its optimal reader is exact."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from fusionzoo.data._demo_bayes import DemoModel
from fusionzoo.data.corpus import Corpus
from fusionzoo.data.demo import DEFAULT_DIMS, IEMOCAP_LABELS, _scores, bayes_posterior, ceilings, demo
from fusionzoo.errors import DataError, OptionError


def model(**options: Any) -> DemoModel:
    given: dict[str, Any] = {
        "seed": 3, "num_classes": 3, "dims": {"text": 7, "audio": 8, "visual": 6}, "speakers": 2, "inertia": 0.5,
        "contagion": 0.2, "stay": 0.3, "imbalance": 3.0, "redundant": 1.0, "unique": 1.5, "synergy": 2.0, "noise": 0.8,
    }  # fmt: skip
    return DemoModel(**(given | options))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return demo()


@pytest.fixture(scope="module")
def large() -> Corpus:
    """Many short dialogues, so that frequencies settle."""
    return demo(seed=11, dialogues=(0, 0, 500), length=(6, 24), missing=0.15, missing_dialogues=0.1)


# -- the reader against sums over everything that is hidden -----------------------------------------------------------


def chance_of(m: DemoModel, emotions: tuple[int, ...], speakers: tuple[int, ...]) -> float:
    """P(emotions | speakers), spelt out from the definition."""
    p = 1.0
    for t, y in enumerate(emotions):
        own = [emotions[s] for s in range(t) if speakers[s] == speakers[t]]
        other = [emotions[s] for s in range(t) if speakers[s] != speakers[t]]
        keep, take = m.inertia * bool(own), m.contagion * bool(other)
        p *= keep * (own[-1:] == [y]) + take * (other[-1:] == [y]) + (1 - keep - take) * m.prior[y]
    return p


def chance_of_turns(m: DemoModel, speakers: tuple[int, ...]) -> float:
    moves = [m.stay if a == b else (1 - m.stay) / (m.speakers - 1) for a, b in itertools.pairwise(speakers)]
    return float(speakers[0] == 0) * float(np.prod(moves))


def enumerated(m: DemoModel, ll: np.ndarray, turns: list[tuple[tuple[int, ...], float]]) -> np.ndarray:
    out = np.zeros(ll.shape)
    for y in itertools.product(range(m.num_classes), repeat=len(ll)):
        evidence = np.exp(sum(ll[t, c] for t, c in enumerate(y)))
        out[np.arange(len(ll)), y] += evidence * sum(p * chance_of(m, y, s) for s, p in turns)
    return out / out.sum(-1, keepdims=True)


@pytest.mark.parametrize("speakers", [1, 2, 3])
def test_forward_backward_is_exact(speakers: int) -> None:
    m, rng = model(speakers=speakers), np.random.default_rng(0)
    ll = 2.0 * rng.standard_normal((4, 5, 3))
    who = [m.sample_emotions(rng, 5)[0] for _ in ll]
    assert speakers == 1 or any(len(set(w)) > 1 for w in who)
    ranks = np.stack([m.ranks(w) for w in who])
    full, past = m.posterior(ll, ranks), m.posterior(ll, ranks, causal=True)
    for b, w in enumerate(who):
        turns = [(tuple(w.tolist()), 1.0)]
        np.testing.assert_allclose(full[b], enumerated(m, ll[b], turns), atol=1e-12)
        for t in range(5):
            np.testing.assert_allclose(past[b, t], enumerated(m, ll[b, : t + 1], turns)[t], atol=1e-12)


@pytest.mark.parametrize("speakers", [2, 3])
def test_reader_who_does_not_know_the_speakers_averages_over_them(speakers: int) -> None:
    m = model(speakers=speakers)
    ll = 2.0 * np.random.default_rng(1).standard_normal((1, 4, 3))
    turns = [(s, chance_of_turns(m, s)) for s in itertools.product(range(speakers), repeat=4)]
    assert sum(p for _, p in turns) == pytest.approx(1.0)
    np.testing.assert_allclose(m.posterior(ll, None)[0], enumerated(m, ll[0], turns), atol=1e-12)


def test_padding_and_batch_mates_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    m, rng = model(), np.random.default_rng(2)
    ll, ranks = rng.standard_normal((6, 9, 3)), np.stack([m.ranks(m.sample_emotions(rng, 9)[0]) for _ in range(6)])
    ll[:, 5:], ranks[:, 5:] = 0.0, 0
    whole = m.posterior(ll, ranks)
    np.testing.assert_allclose(whole[:, :5], m.posterior(ll[:, :5], ranks[:, :5]), atol=1e-12)
    monkeypatch.setattr("fusionzoo.data._demo_bayes._CHUNK", 1)  # one dialogue at a time
    np.testing.assert_allclose(whole, m.posterior(ll, ranks), atol=1e-12)


def test_certain_evidence_stays_finite() -> None:
    m = model(inertia=0.9, contagion=0.099, imbalance=1000.0)
    ll = np.where(np.arange(3) == np.random.default_rng(3).integers(0, 3, (2, 300, 1)), 0.0, -5000.0)
    ranks = np.zeros((2, 300), np.int64)
    ranks[:, 150] = 1
    assert np.array_equal(m.posterior(ll, ranks).argmax(-1), ll.argmax(-1))


@pytest.mark.parametrize("absent", [(), ("audio",), ("text", "visual")])
def test_likelihood_is_the_sum_over_hidden_signs(absent: tuple[str, ...]) -> None:
    m = model()
    rng = np.random.default_rng(4)
    features = m.sample_features(rng, rng.integers(0, 3, 20))
    present = {n: np.full(20, n not in absent) for n in m.dims}
    for n in absent:
        features[n][:] = np.nan  # rows that are not there are never read
    got = m.log_likelihood(features, present)

    names = [n for n in m.dims if n not in absent]
    z = np.concatenate([((features[n] - m._maps[n][2]) / m._maps[n][1]) @ m._maps[n][0] for n in names], axis=1)
    start = dict(zip(names, np.cumsum([0] + [m.dims[n] for n in names[:-1]]), strict=True))
    covariance = np.eye(z.shape[1])
    for a, b in itertools.product(names, repeat=2):  # the cue's own noise is the same in all modalities
        covariance[start[a] + np.arange(3), start[b] + np.arange(3)] += 1.0
    precision = np.linalg.inv(m.noise**2 * covariance)
    want = np.full((20, 3), -np.inf)
    for c, signs in itertools.product(range(3), itertools.product((-1.0, 1.0), repeat=len(m.pairs))):
        mean = np.zeros(z.shape[1])
        for n in names:
            mean[start[n] + np.arange(3)] += m.redundant_means[c]
            mean[start[n] + 3] += m.unique_means(n)[c, 0]
        for p, ((first, second, code), sign) in enumerate(zip(m.pairs, signs, strict=True)):
            for n, value in ((first, sign), (second, sign * code[c])):
                if n in names:
                    mean[start[n] + m.sign_column(p, n)] += m.synergy / 2 * value
        gap = z - mean
        want[:, c] = np.logaddexp(want[:, c], -0.5 * np.einsum("nd,de,ne->n", gap, precision, gap))
    np.testing.assert_allclose(got - got[:, :1], want - want[:, :1], atol=1e-4)  # features are float32


def test_a_modality_alone_says_nothing_about_synergy() -> None:
    m = model(redundant=0.0, unique=0.0, synergy=6.0)
    rng = np.random.default_rng(5)
    emotions = rng.integers(0, 3, 500)
    features = m.sample_features(rng, emotions)
    present = {n: np.ones(500, bool) for n in m.dims}
    alone = m.log_likelihood(features, present, ["text"])
    assert np.ptp(alone, axis=1).max() == 0.0
    together = m.log_likelihood(features, present, ["text", "audio"])
    assert (together.argmax(-1) == 0)[emotions == 0].mean() > 0.95  # the pair's block is class 0
    assert (together.argmax(-1) == 0)[emotions != 0].mean() < 0.05


# -- the generator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speakers", [2, 3])
def test_emotions_follow_the_transition(speakers: int) -> None:
    m, rng = model(speakers=speakers), np.random.default_rng(6)
    counts = np.zeros((4, 4, 3))
    turns = []
    for _ in range(1500):
        who, emotions = m.sample_emotions(rng, 12)
        turns.append(m.ranks(who)[1:])
        for t in range(12):
            own = emotions[:t][who[:t] == who[t]]
            other = emotions[:t][who[:t] != who[t]]
            counts[own[-1] if len(own) else 3, other[-1] if len(other) else 3, emotions[t]] += 1
    n = counts.sum(-1, keepdims=True)
    error = np.sqrt(m.transition * (1 - m.transition) / np.maximum(n, 1))
    assert (np.abs(counts / np.maximum(n, 1) - m.transition) < 4.5 * error)[n[..., 0] > 0].all()
    assert np.mean(np.concatenate(turns) == 0) == pytest.approx(m.stay, abs=0.02)


def test_classes_are_as_unbalanced_as_asked(large: Corpus) -> None:
    share = np.bincount(large.label, minlength=6) / len(large.label)
    weights = 3.0 ** (np.arange(6) / 5)
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.035)  # copies within dialogues: a wide margin


def test_inertia_is_seen_in_the_labels(large: Corpus) -> None:
    calm = demo(seed=11, dialogues=(0, 0, 100), inertia=0.0, contagion=0.0)

    def kept(c: Corpus) -> float:
        same = (c.dialogue_id[1:] == c.dialogue_id[:-1]) & (c.speaker[1:] == c.speaker[:-1])
        return float((c.label[1:] == c.label[:-1])[same].mean())

    assert kept(large) > 0.7
    assert kept(calm) < 0.3


def test_missing_rates(large: Corpus) -> None:
    there = np.stack([large.present[m] for m in large.modalities], axis=1)
    assert there.any(1).all()
    whole = np.stack([there[d.start : d.stop].any(0) for d in large.dialogues("test")])
    np.testing.assert_allclose(1 - whole.mean(0), 0.1, atol=0.045)
    np.testing.assert_allclose(1 - there.mean(0), 1 - 0.85 * 0.9, atol=0.05)
    for j, m in enumerate(large.modalities):
        assert not large.features[m][~there[:, j]].any()
        assert large.features[m][there[:, j]].any(1).all()


def test_everything_missing_leaves_one_modality() -> None:
    corpus = demo(dialogues=(2, 1, 1), missing=1.0, missing_dialogues=1.0)
    assert (np.sum(list(corpus.present.values()), axis=0) == 1).all()


def test_same_seed_same_bits_and_splits_do_not_depend_on_each_other() -> None:
    one, two = demo(seed=5, dialogues=(6, 2, 3)), demo(seed=5, dialogues=(6, 2, 3))
    longer, other = demo(seed=5, dialogues=(9, 1, 3)), demo(seed=6, dialogues=(6, 2, 3))
    assert one.info == two.info
    for m in one.modalities:
        assert np.array_equal(one.features[m], two.features[m])
        assert np.array_equal(one.features[m][one.split == "test"], longer.features[m][longer.split == "test"])
        assert one.features[m].shape != other.features[m].shape or not np.array_equal(
            one.features[m], other.features[m]
        )
    first = one.split == "train"
    assert np.array_equal(one.label[first], longer.label[longer.split == "train"][: first.sum()])


def test_corpus_is_sound(corpus: Corpus) -> None:
    corpus.validate()
    assert corpus.dims == DEFAULT_DIMS
    assert corpus.label_names == IEMOCAP_LABELS
    assert corpus.num_speakers == 2
    assert [len(corpus.dialogues(s)) for s in ("train", "dev", "test")] == [200, 40, 110]
    assert {len(d) for d in corpus.dialogues()} <= set(range(8, 33))
    spread = {m: float(x[corpus.present[m]].std()) for m, x in corpus.features.items()}
    assert max(spread.values()) > 100 * min(spread.values())  # so that standardising matters


# -- how good is good -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [{}, {"context": "past"}, {"context": "none"}, {"speakers": False}, {"modalities": ["audio"]},
     {"modalities": ["visual", "text"]}],
)  # fmt: skip
def test_reader_is_calibrated(large: Corpus, given: dict[str, Any]) -> None:
    posterior = bayes_posterior(large, **given)
    np.testing.assert_allclose(posterior.sum(-1), 1.0)
    hit = posterior.argmax(-1) == large.label
    sure = posterior.max(-1)
    dialogues = [slice(d.start, d.stop) for d in large.dialogues()]
    # Utterances of a dialogue stand or fall together: the error of a mean is taken over dialogues.
    for rows in (np.ones(len(sure), bool), sure < 0.6, (sure >= 0.6) & (sure < 0.9), sure >= 0.9):
        gaps = np.array([((hit - sure.astype(float)) * rows)[d].sum() for d in dialogues])
        assert abs(gaps.sum()) < 4 * np.sqrt((gaps**2).sum())
    truth = np.eye(6)[large.label]
    gaps = np.stack([(truth - posterior)[d].sum(0) for d in dialogues])
    assert (np.abs(gaps.sum(0)) < 4 * np.sqrt((gaps**2).sum(0))).all()


def test_ceilings_say_what_each_ingredient_is_worth(corpus: Corpus) -> None:
    test = {reader: scores["weighted_f1"] for reader, scores in corpus.info["ceiling"]["test"].items()}
    best = test.pop("full")
    assert 0.88 < best < 0.95
    assert test.pop("majority") < 0.2
    assert best - 0.08 < test.pop("past") < best - 0.01
    assert best - 0.08 < test.pop("no_speakers") < best
    assert set(test) == {"no_context", "no_synergy"} | {f"{w}_{m}" for w in ("only", "without") for m in DEFAULT_DIMS}
    assert all(score < best - 0.07 for score in test.values()), test
    assert all(test[f"only_{m}"] < best - 0.2 for m in DEFAULT_DIMS)


def test_model_is_rebuilt_from_the_info(corpus: Corpus) -> None:
    info = json.loads(json.dumps(corpus.info, sort_keys=True))
    assert info == corpus.info
    parts = corpus.subset(["visual", "text"])
    parts.info = info
    np.testing.assert_array_equal(bayes_posterior(parts), bayes_posterior(corpus, modalities=["text", "visual"]))
    assert ceilings(parts)["test"]["full"] == corpus.info["ceiling"]["test"]["without_audio"]


def test_scores_are_scikit_learns() -> None:
    from sklearn.metrics import accuracy_score, f1_score

    rng = np.random.default_rng(7)
    truth, guess = rng.integers(0, 4, 60), rng.integers(0, 3, 60)  # class 3 never guessed, class 4 nowhere
    got = _scores(truth, guess, 5)
    assert got["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert got["weighted_f1"] == pytest.approx(f1_score(truth, guess, average="weighted"))
    assert got["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"))


# -- options ----------------------------------------------------------------------------------------------------------


def test_other_shapes_of_corpus() -> None:
    corpus = demo(
        dialogues=20, length=[3, 5], labels=["no", "yes"], dims={"face": 9, "voice": 5}, speakers=3, missing=0.0
    )
    corpus.validate()
    assert (corpus.num_classes, corpus.num_speakers, corpus.modalities) == (2, 3, ("face", "voice"))
    assert [len(corpus.dialogues(s)) for s in ("train", "dev", "test")] == [12, 2, 6]
    assert set(corpus.info["ceiling"]["test"]) >= {"full", "only_face", "without_voice"}
    assert "test" not in demo(dialogues=(3, 1, 0)).info["ceiling"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inertia": 0.7, "contagion": 0.4}, "inertia \\+ contagion = 1.1"),
        ({"inertia": -0.1}, "inertia must be a number from 0 to 1"),
        ({"noise": 0.0}, "noise must be a number of at least 0.001"),
        ({"unique": float("nan")}, "unique must be a number"),
        ({"missing": 1.5}, "missing must be a number from 0 to 1"),
        ({"speakers": 5}, "speakers must be a whole number from 1 to 4, not 5"),
        ({"speakers": 4, "labels": list("abcdefgh")}, "too many for the exact reader"),
        ({"dims": {"text": 8}}, "two or more modalities"),
        ({"dims": {"text": 8, "audio": 30}}, "'text' has 8 features, too few .* at least 10"),
        ({"labels": ["a", "a"]}, "different names"),
        ({"labels": "ab"}, "different names"),
        ({"dialogues": (3, 1)}, "dialogues takes 3 whole numbers"),
        ({"dialogues": (0, 0, 0)}, "none at all"),
        ({"dialogues": 2}, "dialogues must be a whole number of at least 3"),
        ({"length": (9, 4)}, "shortest, longest"),
        ({"length": (0, 4)}, "length must be a whole number of at least 1"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"seed": True}, "seed must be a whole number"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        demo(**options)


def test_reader_refuses_what_it_does_not_know() -> None:
    corpus = demo(dialogues=(1, 1, 1))
    with pytest.raises(OptionError, match="did you mean 'audio'"):
        bayes_posterior(corpus, modalities=["audo"])
    with pytest.raises(OptionError, match="context must be"):
        bayes_posterior(corpus, context="future")
    corpus.info = {}
    with pytest.raises(DataError, match="not generated by 'demo'"):
        bayes_posterior(corpus)
