from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fusionzoo.data import Batch, Corpus, ResidentSplit, feature_statistics
from fusionzoo.errors import DataError


def many(dialogues: int = 37, seed: int = 0) -> Corpus:
    """Dialogues of 1 to 30 utterances; the one feature of `row` is the row number."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 31, dialogues)
    rows = int(lengths.sum())
    return Corpus(
        "many",
        {"row": np.arange(rows, dtype=np.float32)[:, None], "text": rng.normal(size=(rows, 3))},
        np.repeat([f"d{i:03}" for i in rng.permutation(dialogues)], lengths),
        np.concatenate([np.arange(n) for n in lengths]),
        rng.integers(0, 4, rows).astype(str),
        rng.integers(0, 5, rows),
        (*"abcde",),
        np.full(rows, "train"),
        present={"text": rng.random(rows) < 0.8},
    ).validate()


def reference(corpus: Corpus, ids: list[str]) -> dict[str, Any]:
    """A batch built the slow way, one dialogue and step at a time."""
    dialogues = {d.id: d for d in corpus.dialogues()}
    local = corpus.speaker_index()
    longest = max(len(dialogues[i]) for i in ids)
    out: dict[str, Any] = {
        "mask": torch.zeros(len(ids), longest, dtype=torch.bool),
        "speakers": torch.zeros(len(ids), longest, dtype=torch.long),
        "labels": torch.full((len(ids), longest), -100),
    }
    out |= {m: torch.zeros(len(ids), longest, d) for m, d in corpus.dims.items()}
    out |= {f"{m} present": torch.zeros(len(ids), longest, dtype=torch.bool) for m in corpus.present}
    for b, i in enumerate(ids):
        for t, row in enumerate(range(dialogues[i].start, dialogues[i].stop)):
            out["mask"][b, t] = True
            out["speakers"][b, t] = int(local[row])
            out["labels"][b, t] = int(corpus.label[row])
            for m, x in corpus.features.items():
                seen = m not in corpus.present or corpus.present[m][row]
                out[m][b, t] = torch.from_numpy(x[row]) if seen else 0
                if m in corpus.present:
                    out[f"{m} present"][b, t] = bool(seen)
    return out


def check(corpus: Corpus, batch: Batch) -> None:
    expected = reference(corpus, batch.ids)
    assert torch.equal(batch.mask, expected["mask"])
    assert torch.equal(batch.speakers, expected["speakers"])
    assert torch.equal(batch.labels, expected["labels"])
    for m in corpus.features:
        assert torch.equal(batch.features[m], expected[m])
    for m in corpus.present:
        assert batch.present is not None
        assert torch.equal(batch.present[m], expected[f"{m} present"])
    assert batch.lengths == batch.mask.sum(1).tolist()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_equal_the_slow_way(shuffle: bool, resident: bool, batch_size: int):
    corpus = many()
    corpus.features["text"][~corpus.present["text"]] = np.nan
    data = ResidentSplit(corpus, "train", resident=resident)
    batches = data.batches(batch_size, shuffle=shuffle, seed=1, epoch=2)
    seen = []
    for batch in batches:
        check(corpus, batch)
        seen += batch.ids
    assert sorted(seen) == [d.id for d in corpus.dialogues()]
    assert len(batches) == -(-37 // batch_size) == len(list(batches))


def order(data: ResidentSplit, **options: Any) -> list[list[str]]:
    return [b.ids for b in data.batches(4, **options)]


def test_order_depends_on_seed_and_epoch_alone():
    data = ResidentSplit(many(), "train")
    first = order(data, shuffle=True, seed=1, epoch=2)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state()
    assert order(data, shuffle=True, seed=1, epoch=2) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert order(data, shuffle=True, seed=1, epoch=3) != first
    assert order(data, shuffle=True, seed=2, epoch=2) != first
    assert order(data, shuffle=False, seed=1, epoch=2) == order(data, shuffle=False, seed=9, epoch=7)


def test_the_order_of_the_file_changes_nothing():
    corpus = many()
    parts = sorted(corpus.dialogues(), key=lambda d: d.start, reverse=True)
    rows = np.concatenate([np.arange(d.start, d.stop) for d in parts])
    columns = {c: getattr(corpus, c)[rows] for c in ("dialogue_id", "utterance_index", "speaker", "label", "split")}
    features = {m: x[rows] for m, x in corpus.features.items()}
    turned = Corpus(
        "turned", features, label_names=corpus.label_names, present={"text": corpus.present["text"][rows]}, **columns
    ).validate()
    for shuffle in (True, False):
        pairs = zip(
            ResidentSplit(corpus, "train").batches(4, shuffle=shuffle),
            ResidentSplit(turned, "train").batches(4, shuffle=shuffle),
            strict=True,
        )
        for a, b in pairs:
            assert a.ids == b.ids
            assert torch.equal(a.features["row"], b.features["row"])


def test_buckets_save_padding_and_still_mix_dialogues():
    data = ResidentSplit(many(400), "train")

    def share(plan: list[list[str]]) -> float:
        length = {d.id: len(d) for d in data.dialogues}
        return sum(map(len, data.dialogues)) / sum(len(b) * max(length[i] for i in b) for b in plan)

    shuffled = order(data, shuffle=True)
    plain = np.random.default_rng(0).permutation([d.id for d in data.dialogues]).reshape(-1, 4).tolist()
    assert share(shuffled) > 0.9 > 0.75 > share(plain)
    assert share(order(data, shuffle=False)) > 0.97
    # The partners of a dialogue change from epoch to epoch, and short batches do not come first.
    partners = [{frozenset(b) for b in order(data, shuffle=True, epoch=e)} for e in range(2)]
    assert len(partners[0] & partners[1]) < 3
    width = {d.id: len(d) for d in data.dialogues}
    widths = [max(width[i] for i in b) for b in shuffled]
    assert abs(np.corrcoef(widths, range(len(widths)))[0, 1]) < 0.3


def test_a_small_corpus_is_not_sorted_as_a_whole():
    data = ResidentSplit(many(28), "train")
    partners = [{frozenset(b) for b in order(data, shuffle=True, epoch=e)} for e in range(20)]
    assert len(set().union(*partners)) > 100  # of at most 140


@pytest.mark.parametrize("world_size", [2, 3, 8, 64])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_get_equally_many_batches_that_cover_everything_once(world_size: int, shuffle: bool):
    data = ResidentSplit(many(), "train")
    per_rank = [
        data.batches(4, shuffle=shuffle, seed=3, epoch=1, rank=r, world_size=world_size) for r in range(world_size)
    ]
    assert len({len(b) for b in per_rank}) == 1
    counted = [
        i
        for batches in per_rank
        for batch, repeated in zip(batches, batches.repeated, strict=True)
        if not repeated
        for i in batch.ids
    ]
    assert sorted(counted) == [d.id for d in data.dialogues]
    alone = {frozenset(ids) for ids in order(data, shuffle=shuffle, seed=3, epoch=1)}
    together = {frozenset(b.ids) for batches in per_rank for b in batches}
    assert together == alone  # the same batches, whatever the number of ranks


def test_an_interrupted_epoch_goes_on_where_it_stopped():
    data = ResidentSplit(many(), "train")
    batches = data.batches(4, shuffle=True, seed=1, epoch=1)
    whole, rest = [b.ids for b in batches], [b.ids for b in batches.starting_at(6)]
    assert rest == whole[6:]
    assert list(batches.starting_at(len(batches))) == []


def test_the_memory_budget_decides_where_features_stay():
    corpus = many()
    data = ResidentSplit(corpus, "train", max_bytes=10)
    assert not data.resident
    assert ResidentSplit(corpus, "train", max_bytes=data.num_bytes).resident
    assert ResidentSplit(corpus, "train").resident
    assert data.num_bytes == sum((len(corpus) + 1) * d * 4 for d in corpus.dims.values())
    assert (len(data), data.num_utterances) == (37, len(corpus))


def test_a_split_holds_only_its_dialogues(corpus: Corpus):
    data = ResidentSplit(corpus, "test")
    batch = next(iter(data.batches(8, shuffle=False)))
    assert batch.ids == ["d4", "d5"]
    assert batch.present is None
    assert data.num_utterances == batch.num_utterances == 8


def test_wrong_calls_are_refused(corpus: Corpus):
    for options in ({"batch_size": 0}, {"batch_size": 2, "rank": 2, "world_size": 2}, {"batch_size": 2, "rank": -1}):
        with pytest.raises(DataError, match="expected a batch_size of 1 or more"):
            ResidentSplit(corpus, "train").batches(shuffle=False, **options)
    corpus.split[:] = "train"
    with pytest.raises(DataError, match=r"small.npz: the split 'dev' has no dialogue.*split="):
        ResidentSplit(corpus, "dev")


def test_statistics_are_of_present_train_rows_only(corpus: Corpus):
    train = corpus.split == "train"
    corpus.present = {"audio": np.arange(21) % 2 == 0, "visual": ~train}
    corpus.features["audio"][1] = np.nan
    corpus.features["text"][:, 2] = 1 / 3
    statistics = feature_statistics(corpus)
    rows = corpus.features["audio"][train & corpus.present["audio"]].astype(np.float64)
    np.testing.assert_allclose(statistics["audio"][0].numpy(), rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics["audio"][1].numpy(), rows.std(0), rtol=1e-6)
    assert statistics["text"][1][2] == 1  # a constant is not divided by its rounding error
    assert statistics["visual"][0].tolist() == [0, 0]
    assert statistics["visual"][1].tolist() == [1, 1]
    assert all(x.dtype == torch.float32 for pair in statistics.values() for x in pair)


def test_batch_knows_its_size_lengths_and_masks():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    zeros = torch.zeros(2, 3, dtype=torch.long)
    features = {"a": torch.zeros(2, 3, 2), "b": torch.zeros(2, 3, 1)}
    batch = Batch(features, mask, zeros, zeros, ["x", "y"])
    assert batch.size == (2, 3)
    assert batch.lengths_list() == [2, 1] == batch.lengths
    assert batch.num_utterances == 3
    assert batch.modality_masks() is mask
    batch.present = {"b": torch.tensor([[False, True, True], [True, True, True]])}
    masks = batch.modality_masks()
    assert isinstance(masks, dict)
    assert masks["a"] is mask
    assert masks["b"].tolist() == [[False, True, False], [True, False, False]]
    moved = batch.to("meta", non_blocking=True)
    assert {x.device.type for x in (*moved.features.values(), moved.mask, moved.speakers, moved.labels)} == {"meta"}
    assert moved.present is not None
    assert moved.present["b"].device.type == "meta"
    assert moved.num_utterances == 3
    assert batch.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: CUDA_VISIBLE_DEVICES=0 pytest -k gpu")
@pytest.mark.parametrize("resident", [True, False])
def test_on_a_gpu_batches_are_equal_and_nothing_waits(resident: bool):
    corpus = many()
    data = ResidentSplit(corpus, "train", "cuda", resident=resident)
    expected = list(ResidentSplit(corpus, "train").batches(4, shuffle=True))
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = list(data.batches(4, shuffle=True))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(expected, got, strict=True):
        assert b.device.type == "cuda"
        assert torch.equal(a.features["text"], b.to("cpu").features["text"])
    assert expected[0].pin_memory().mask.is_pinned()
