"""Reading sounds and videos: what was written comes back, spans, and files that are broken."""

from __future__ import annotations

import importlib.util
import sys
import wave

import numpy as np
import pytest

from fusionzoo import media
from fusionzoo.errors import DataError, MediaError, MissingDependency
from fusionzoo.extraction import read_audio, read_frames

RATE = 8000


def tone(seconds=1.0, hertz=440.0, rate=RATE):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write_wav(path, samples, rate=RATE, channels=1):
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(channels)
        stream.setsampwidth(2)
        stream.setframerate(rate)
        stream.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())
    return path


def write_video(path, frames=20, sound=True, size=(48, 32)):
    """Frame n is as grey as 10 n; ten frames a second."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for n in range(frames):
            picture = np.full((size[1], size[0], 3), min(250, 10 * n), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if audio is not None:
            samples = tone(frames / 10, 300.0, 16000).astype(np.float32)
            for i in range(0, len(samples), 1024):
                frame = av.AudioFrame.from_ndarray(samples[None, i : i + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, i
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
        container.mux(video.encode(None))
    return path


@pytest.mark.parametrize("reader", ["_by_soundfile", "_by_scipy", "_by_wave"])
def test_each_library_reads_the_same(tmp_path, reader):
    if reader == "_by_soundfile" and importlib.util.find_spec("soundfile") is None:
        pytest.skip("soundfile is not installed")
    samples, rate = getattr(media, reader)(write_wav(tmp_path / "a.wav", tone()))
    assert rate == RATE
    assert np.allclose(np.asarray(samples).ravel(), tone(), atol=1e-4)


def test_rate_channels_and_span(tmp_path):
    stereo = np.stack([tone(), np.zeros(RATE)], axis=1)
    path = write_wav(tmp_path / "a.wav", stereo.ravel(), channels=2)
    assert np.allclose(read_audio(path, RATE), tone() / 2, atol=1e-4)
    doubled = read_audio(path, 2 * RATE)
    assert doubled.shape == (2 * RATE,)
    assert np.allclose(doubled[2000:-2000:2], tone()[1000:-1000] / 2, atol=1e-2)
    assert np.allclose(read_audio(path, RATE, 0.25, 0.5), tone()[2000:4000] / 2, atol=1e-4)
    with pytest.raises(MediaError, match=r"no sound between 5\.0 s"):
        read_audio(path, RATE, 5.0, 6.0)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a sound" * 50])
def test_a_broken_sound_is_a_sentence(tmp_path, content):
    path = tmp_path / "b.wav"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"b\.wav"):
        read_audio(path)
    assert issubclass(MediaError, DataError)


def test_without_a_library_the_extra_is_named(tmp_path, monkeypatch):
    for name in ("soundfile", "torchaudio", "av", "cv2"):
        monkeypatch.setitem(sys.modules, name, None)
    path = write_wav(tmp_path / "a.wav", tone())
    assert len(read_audio(path, RATE)) == RATE
    other = tmp_path / "a.flac"
    other.write_bytes(b"fLaC")
    with pytest.raises(MissingDependency, match=r"fusionzoo\[audio\]"):
        read_audio(other)
    video = tmp_path / "a.mp4"
    video.write_bytes(b"x")
    with pytest.raises(MissingDependency, match=r"fusionzoo\[video\]"):
        read_frames(video)
    with pytest.raises(MissingDependency, match=r"fusionzoo\[video\]"):
        read_audio(video)


def test_frames_are_evenly_spaced_and_cropped(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    frames = read_frames(path, 4)
    assert frames.shape == (4, 32, 48, 3)
    assert np.allclose(frames.mean((1, 2, 3)), [20, 70, 120, 170], atol=6)
    assert len(read_frames(path, None)) == 20
    late = read_frames(path, None, 1.0, 1.5)
    assert np.allclose(late.mean((1, 2, 3)), [100, 110, 120, 130, 140], atol=6)
    assert read_frames(path, 2, crop=(0.5, 0.0, 1.0, 0.5)).shape == (2, 16, 24, 3)
    with pytest.raises(MediaError, match="no picture between"):
        read_frames(path, 2, 50.0, 60.0)


def test_sound_of_a_video(tmp_path):
    sound = read_audio(write_video(tmp_path / "a.mp4"), 16000)
    assert abs(len(sound) - 32000) < 3000
    assert 0.2 < np.abs(sound[4000:-4000]).max() < 0.8
    with pytest.raises(MediaError, match="no sound track"):
        read_audio(write_video(tmp_path / "b.mp4", sound=False))


def test_a_broken_video_is_a_sentence(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / "b.mp4"
    path.write_bytes(b"\0" * 2000)
    with pytest.raises(MediaError, match=r"b\.mp4"):
        read_frames(path)
