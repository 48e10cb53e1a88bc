from __future__ import annotations

import numpy as np
import pytest
import torch

import fusionzoo
from fusionzoo.errors import DataError, MissingDependency, OptionError
from fusionzoo.scoring.diagnostics.inside import Attention, attention_over, flat_map, fused_vectors, in_the_plane


def host_of(corpus, fusion="gated"):
    torch.manual_seed(0)
    cls = fusionzoo.get("bc-lstm", kind="host")
    return cls(corpus.dims, corpus.num_classes, corpus.num_speakers, fusion, hidden=4, head_width=4).eval()


@pytest.mark.parametrize(
    ("shape", "flat"),
    [
        ((5,), (1, 5)),
        ((5, 3), (5, 3)),
        ((5, 5), (5, 5)),
        ((4, 5, 5), (5, 5)),  # heads
        ((5, 5, 5), (5, 5)),  # as many heads as utterances
        ((5, 8, 3), (5, 3)),  # a gate for every feature
        ((4, 5, 15), (5, 15)),  # heads over the utterances of three modalities
        ((5, 2, 6, 6), (6, 6)),  # tokens of every utterance
    ],
)
def test_maps_of_any_rank_are_pictures(shape, flat):
    weights = np.random.default_rng(0).random(shape)
    found = flat_map(weights, steps=5)
    assert found.shape == flat
    assert found.mean() == pytest.approx(weights.mean())


def test_attention_over_a_dialogue(corpus):
    host = host_of(corpus)
    name = corpus.dialogues("test")[0].id
    found = attention_over(host, corpus, name)
    length = len(corpus.dialogues("test")[0])
    assert found.dialogue == name
    assert found.maps["gate"].shape == (length, 3)
    np.testing.assert_allclose(found.maps["gate"].sum(1), 1, atol=1e-5)
    assert len(found.utterances) == length
    assert found.utterances[0].startswith("1 A ")
    assert not host.keep_attention


def test_a_dialogue_that_is_not_there_is_named_with_some_that_are(corpus):
    with pytest.raises(DataError, match=r"no dialogue 'demo-test-00' in its test split; did you mean 'demo-test-000"):
        attention_over(host_of(corpus), corpus, "demo-test-00")


def test_evenness_by_hand():
    maps = {"even": np.full((2, 4), 0.25), "one": np.eye(4), "half": np.array([[0.5, 0.5, 0, 0]])}
    found = Attention("d", maps, (), ()).evenness()
    assert found == {"even": pytest.approx(1.0), "one": pytest.approx(0.0, abs=1e-9), "half": pytest.approx(0.5)}


def test_fused_vectors_stand_at_their_rows(corpus):
    host = host_of(corpus)
    one, many = (fused_vectors(host, corpus, "test", batch_size=n) for n in (1, 6))
    assert sorted(many.rows.tolist()) == np.flatnonzero(corpus.split == "test").tolist()
    order = np.argsort(one.rows), np.argsort(many.rows)
    np.testing.assert_allclose(one.values[order[0]], many.values[order[1]], atol=1e-5)


def test_one_modality_has_no_fused_vectors(corpus):
    alone = corpus.subset(["text"])
    with pytest.raises(OptionError, match="with one modality nothing is fused"):
        fused_vectors(host_of(alone), alone)


@pytest.mark.slow
def test_two_clouds_stay_two_clouds():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, (20, 6)), rng.normal(12, 1, (20, 6))])
    plane = in_the_plane(values)
    distance = np.linalg.norm(plane[:, None] - plane[None], axis=-1) + 1e9 * np.eye(40)
    assert ((distance.argmin(1) < 20) == (np.arange(40) < 20)).all()


def test_what_cannot_be_mapped_says_why(monkeypatch):
    with pytest.raises(OptionError, match="did you mean 'tsne'"):
        in_the_plane(np.zeros((9, 2)), "t-sne")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="needs 5 vectors or more, not 3"):
        in_the_plane(np.zeros((3, 2)))
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(MissingDependency, match=r'pip install "fusionzoo\[umap\]"'):
        in_the_plane(np.zeros((9, 2)), "umap")


@pytest.mark.slow
def test_umap():
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, (30, 6)), rng.normal(12, 1, (30, 6))])
    assert in_the_plane(values, "umap").shape == (60, 2)
