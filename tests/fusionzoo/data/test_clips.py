"""Releases as clips: what is read of a recording, batches that are the same however they are read, and refusals."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionzoo.data import load
from fusionzoo.data.clips import ClipSplit, read_clips
from fusionzoo.data.clips.media import Features, Frames, Mfcc, Wave, Words, read_landmarks, read_media
from fusionzoo.data.loading import class_weights, split_of
from fusionzoo.data.raw import RawUtterance
from fusionzoo.errors import ConfigError, DataError, MediaError, OptionError
from fusionzoo.training import RunConfig

RATE = 8000


def write_wav(path: Path, seconds: float, hertz: float = 300.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
    with wave.open(str(path), "wb") as stream:
        stream.setparams((1, 2, RATE, 0, "NONE", ""))
        stream.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def write_video(path: Path, frames: int = 6, size=(40, 24)) -> Path:
    """Frame n is as red as 40 n; ten frames a second."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        for n in range(frames):
            picture = np.zeros((size[1], size[0], 3), np.uint8)
            picture[..., 0] = 40 * n
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
    return path


def utterance(**given) -> RawUtterance:
    return RawUtterance(**{"id": "u", "dialogue_id": "d", "index": 0, "speaker": "s", "label": 0, **given})


@pytest.fixture(scope="module")
def esd(tmp_path_factory) -> Path:
    """Three speakers, five emotions of unequal numbers; wavs of different lengths."""
    root = tmp_path_factory.mktemp("esd") / "ESD"
    for s, speaker in enumerate(("0011", "0012", "0013")):
        lines = []
        for i, emotion in enumerate(("Neutral", "Angry", "Happy", "Sad", "Surprise")):
            for sentence in (1, 21, 51, 52, 53)[: 3 + (emotion == "Sad") * 2]:
                name = f"{speaker}_{i * 350 + sentence:06d}"
                write_wav(root / speaker / emotion / f"{name}.wav", 0.02 + 0.01 * ((i + s + sentence) % 4))
                lines.append(f"{name}\tI (cough)  know\tthe coffee.\t{emotion}".replace("know\t", "know "))
        (root / speaker / f"{speaker}.txt").write_text("\n".join(lines))
    return root


MEDIA = {"text": "words", "audio": {"rate": RATE}}


# ---------------------------------------------------------------------- one medium


def test_words_as_memocmt_cleans_them():
    assert Words().read(utterance(text="I [LAUGH]  know"), None) == "I [LAUGH]  know"
    clean = Words(clean=True, empty="NULL")
    assert clean.read(utterance(text=" I [LAUGH]  know (cough) you. "), None) == "I know you."
    assert clean.read(utterance(text="[BREATHING]"), None) == "NULL"
    assert clean.read(utterance(text=None), None) == "NULL"


def test_sound_is_cut_and_mfccs_have_a_fixed_number_of_steps(tmp_path):
    u = utterance(audio=write_wav(tmp_path / "a.wav", 1.0))
    assert len(Wave(rate=RATE).read(u, None)) == RATE
    assert len(Wave(rate=RATE, start=0.25, seconds=0.5).read(u, None)) == RATE // 2
    spanned = utterance(audio=u.audio, audio_start=0.5, audio_end=0.75)
    assert len(Wave(rate=RATE, seconds=6).read(spanned, None)) == RATE // 4
    medium = Mfcc()
    assert medium.width(u) == 13
    assert medium.read(u, None).shape == (212, 13)  # half a second of sound, then silence
    assert np.isfinite(medium.read(u, None)).all()


def test_pictures_are_chosen_cut_and_resized(tmp_path):
    u = utterance(video=write_video(tmp_path / "v.mp4"))
    frames = Frames(frames=3, size=16).read(u, None)
    assert frames.shape == (3, 3, 16, 16)
    assert frames.dtype == np.uint8
    red = frames[:, 0].mean((1, 2))
    assert (np.diff(red) > 40).all()
    assert abs(red[0] - 40) < 12
    swapped = Frames(frames=3, size=16, colours="bgr").read(u, None)
    assert np.array_equal(swapped, frames[:, ::-1])
    assert Frames(frames=None, size=None).read(u, None).shape == (6, 3, 24, 40)
    assert Frames(frames=None, seconds=0.3, size=16).read(u, None).shape[0] == 3
    half = Frames(frames=2, size=None, crop="speaker").read(utterance(video=u.video, crop=(0.5, 0.0, 1.0, 1.0)), None)
    assert half.shape == (2, 3, 24, 20)


def test_pictures_are_cropped_to_the_landmarks(tmp_path):
    pytest.importorskip("av")
    names = ",".join(["frame", *(f" {a}_{i}" for a in "xy" for i in range(68))])
    rows = [names]
    for n in range(6):  # the box moves by one of forty columns a frame; the last frame was not tracked
        xs = np.linspace(n, n + 20, 68) * 32 if n < 5 else np.zeros(68)
        rows.append(",".join(map(str, [n, *xs, *(np.linspace(6, 18, 68) * 30)])))
    (tmp_path / "v.csv").write_text("\n".join(rows))
    u = utterance(video=write_video(tmp_path / "v.mp4"), landmarks=tmp_path / "v.csv")
    boxes = read_landmarks(u, (1280, 720))
    assert boxes[2] == pytest.approx((2 / 40, 6 / 24, 22 / 40, 18 / 24))
    assert boxes[5] is None
    assert Frames(frames=None, size=16, crop="landmarks").read(u, None).shape == (6, 3, 16, 16)
    with pytest.raises(MediaError, match="crop=none"):
        Frames(crop="landmarks").read(utterance(video=u.video), None)
    (tmp_path / "v.csv").write_text("frame,x\n1,2\n")
    with pytest.raises(MediaError, match="x_0"):
        read_landmarks(u, (1280, 720))


@pytest.mark.parametrize("how", ["frame", "clip", "none"])
def test_augmentation_is_drawn_from_its_generator_alone(tmp_path, how):
    u = utterance(video=write_video(tmp_path / "v.mp4", frames=4, size=(64, 48)))
    medium = Frames(frames=None, size=32, augment=how)

    def read(seed):
        return medium.read(u, None if seed is None else np.random.default_rng(seed))

    assert np.array_equal(read(3), read(3))
    plain = read(None)
    assert read(3).shape == plain.shape
    if how == "none":
        assert np.array_equal(read(3), plain)


def test_ready_features(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((5, 7), np.float16))
    u = utterance(features={"video": tmp_path / "a.npy"})
    assert Features().width(u) == 7
    assert Features(frames=3).read(u, None).shape == (3, 7)
    assert Features().read(u, None).dtype == np.float32
    with pytest.raises(MediaError, match="has no ready features"):
        Features(of="face").read(u, None)
    (tmp_path / "a.npy").write_bytes(b"rubbish")
    with pytest.raises(MediaError, match=r"a\.npy"):
        Features().read(u, None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"audio": {"kind": "wav"}}, "did you mean 'wave'"),
        ({"audio": {"rat": 3}}, "did you mean 'rate'"),
        ({"smell": {}}, "there is no kind"),
        ({"visual": {"crop": "face"}}, "crop"),
        ({"visual": {"augment": "always"}}, "augment"),
        ({"audio": {"seconds": 0}}, "seconds"),
        ("audio", "maps modalities"),
        ({}, "maps modalities"),
    ],
)
def test_media_that_do_not_exist(given, words):
    with pytest.raises(OptionError, match=words):
        read_media(given)


# ---------------------------------------------------------------------- a corpus


def test_a_release_is_a_corpus_with_clips(esd):
    corpus = load(esd, media=MEDIA, classes=4)
    assert corpus.dims == {"text": 1, "audio": 1}
    assert corpus.label_names == ("angry", "happy", "sad", "neutral")
    assert set(corpus.extras["fold"]) == {"0011", "0012", "0013"}
    assert corpus.num_speakers == 1
    assert corpus.validate() is corpus
    only = load(esd, media=MEDIA, modalities=["audio"])
    assert only.modalities == ("audio",)
    assert only.sha256() != load(esd, media=MEDIA).sha256()
    assert corpus.sha256() == load(esd, media=MEDIA, classes=4).sha256()
    assert corpus.summary()["splits"]["train"]["utterances"] == 18
    speakers = load(esd, media=MEDIA, split="speakers")
    assert set(speakers.speaker[speakers.split == "test"]) == {"0013"}
    drawn = load(esd, media=MEDIA, random={"test": 0.2, "dev": 0.1})
    assert {s: int((drawn.split == s).sum()) for s in ("train", "dev", "test")} == {"train": 37, "dev": 4, "test": 10}
    grouped = read_clips(esd, MEDIA, groups={"k": 2, "published": True})
    assert set(grouped.extras["group"]) == {"group1", "group2", ""}  # 0013 is in no group of int(3 / 2)


def test_some_utterances_alone_have_their_own_recordings(esd):
    corpus = read_clips(esd, MEDIA)
    rows = corpus.speaker == "0012"
    some = corpus.at(rows)
    assert len(some) == len(some.clips) == rows.sum() > 0
    assert list(some.clips) == [clip for clip, kept in zip(corpus.clips, rows, strict=True) if kept]


def test_utterances_without_a_medium_are_left_out_or_kept(esd, tmp_path):
    import shutil

    root = tmp_path / "ESD"
    shutil.copytree(esd, root)
    (root / "0011/0011.txt").unlink()
    whole, part = read_clips(root, MEDIA), read_clips(root, MEDIA, partial=True)
    assert len(part) == 51
    assert len(whole) == 34
    assert whole.info["skipped"]["without text"] == 17
    assert int((~part.present["text"]).sum()) == 17
    batch = next(iter(split_of(part, "train").batches(27, shuffle=False)))
    assert [t == "" for t in batch.clips["text"].values] == (~batch.present["text"]).flatten().tolist()


def test_refusals_name_what_to_do(esd, tmp_path):
    with pytest.raises(DataError, match=r"data\.media"):
        load(esd)
    with pytest.raises(OptionError, match="dataset of features"):
        load("demo", media=MEDIA)
    with pytest.raises(DataError, match="has video"):
        read_clips(esd, {"visual": "frames"})
    with pytest.raises(OptionError, match="did you mean 'text'"):
        read_clips(esd, MEDIA, modalities=["txt"])
    with pytest.raises(OptionError, match=r"data\.random"):
        read_clips(esd, MEDIA, random={"tset": 0.1})
    with pytest.raises(ConfigError, match="did you mean 'classes'"):
        RunConfig.from_sources({"data": {"media": MEDIA, "kind": "esd", "clases": 4}, "host": {"name": "memo-cmt"}})
    with pytest.raises(ConfigError, match="did you mean 'esd'"):
        RunConfig.from_sources({"data": {"media": MEDIA, "kind": "esdd"}, "host": {"name": "memo-cmt"}})


# ---------------------------------------------------------------------- batches


def same(a, b) -> bool:
    return all(
        x.ids == y.ids
        and torch.equal(x.labels, y.labels)
        and all(
            torch.equal(x.clips[m].values, y.clips[m].values) and torch.equal(x.clips[m].mask, y.clips[m].mask)
            for m in x.clips
            if isinstance(x.clips[m].values, torch.Tensor)
        )
        for x, y in zip(a, b, strict=True)
    )


def test_batches_are_padded_with_masks_and_the_same_with_threads_and_memory(esd):
    split = ClipSplit(read_clips(esd, MEDIA), "train")
    batches = list(split.batches(4, shuffle=True, seed=1, epoch=2))
    assert len(batches) == len(split.batches(4, shuffle=True, seed=1, epoch=2)) == 6
    first = batches[0]
    assert first.size == (4, 1)
    assert first.clips["audio"].values.shape == first.clips["audio"].mask.shape
    lengths = first.clips["audio"].mask.sum(1)
    assert len(set(lengths.tolist())) > 1
    assert not first.clips["audio"].values[~first.clips["audio"].mask].any()
    for options in ({"workers": 3}, {"keep": True}):
        other = ClipSplit(read_clips(esd, MEDIA, **options), "train")
        for _ in range(2):
            assert same(batches, list(other.batches(4, shuffle=True, seed=1, epoch=2)))
    tail = list(split.batches(4, shuffle=True, seed=1, epoch=2).starting_at(3))
    assert same(batches[3:], tail)
    again = list(split.batches(4, shuffle=True, seed=1, epoch=3))
    assert [b.ids for b in again] != [b.ids for b in batches]
    ranks = [list(split.batches(4, shuffle=True, seed=1, epoch=2, rank=r, world_size=2)) for r in (0, 1)]
    assert sorted(i for part in ranks for b in part for i in b.ids) == sorted(i for b in batches for i in b.ids)


def test_a_broken_recording_is_named(esd, tmp_path):
    import shutil

    root = tmp_path / "ESD"
    shutil.copytree(esd, root)
    (root / "0012/Sad/0012_001101.wav").write_bytes(b"RIFFrubbish" * 100)
    for workers in (0, 2):
        split = ClipSplit(read_clips(root, MEDIA, workers=workers), "train")
        with pytest.raises(MediaError, match="0012_001101"):
            list(split.batches(4, shuffle=False))


def test_balanced_batches_hold_every_class_equally_often(esd):
    split = ClipSplit(read_clips(esd, {"text": "words"}), "train")
    counts = np.zeros(5)
    for epoch in range(40):
        for batch in split.batches(8, shuffle=True, balanced=True, seed=0, epoch=epoch):
            counts += np.bincount(batch.labels.flatten(), minlength=5)
    assert counts.sum() == 40 * len(split)
    assert counts.min() / counts.max() > 0.75
    plain = np.bincount(split.corpus.label[split.rows], minlength=5)
    assert plain.min() / plain.max() < 0.5
    draws = [b.ids for b in split.batches(8, shuffle=True, balanced=True, seed=0, epoch=1)]
    assert draws == [b.ids for b in split.batches(8, shuffle=True, balanced=True, seed=0, epoch=1)]


def test_weights_of_dialogues_are_means_of_their_utterances():
    labels, dialogue = np.array([0, 0, 0, 1, -100, -100]), np.array([0, 0, 1, 1, 1, 2])
    assert np.allclose(class_weights(labels, dialogue, 3), [1 / 3, (1 / 3 + 1) / 2, 0.0])
    assert np.allclose(class_weights(np.array([-100]), np.array([0]), 1), [1.0])
    assert not np.isnan(class_weights(np.array([1, 1]), np.array([0, 1]), 2)).any()
