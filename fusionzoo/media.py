"""Reading sounds and videos, with whichever of the usual libraries is installed; no torch.

Sound: soundfile, torchaudio, scipy (wav only) and the standard library's wave, in this order; sound in a video by PyAV.
Pictures: PyAV or OpenCV. Whatever a broken file makes them do comes out as a `MediaError` that names the file.
"""

from __future__ import annotations

import importlib
import math
import os
import wave as wave_module
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fusionzoo._options import check_positive
from fusionzoo.errors import FusionZooError, MediaError, MissingDependency

#: What holds pictures too, and is read by PyAV.
CONTAINERS = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".m4a", ".mpg", ".mpeg"})
_Sound = tuple[np.ndarray, int]
_Crop = tuple[float, float, float, float]
_Crops = _Crop | list[_Crop | None] | None


def read_audio(
    path: str | os.PathLike[str], rate: int = 16000, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """Samples `(N,)` float32 from -1 to 1 at `rate` a second; channels are averaged.

    start, end : seconds; None is the beginning or the end of the file.

    Raises `MediaError` for a file that cannot be read or has no sound in that span, `MissingDependency` where no library
    for its kind is installed.
    """
    path = Path(path)
    check_positive(rate, "rate", read_audio)
    samples, own = _decode(path)
    first = 0 if start is None else max(0, round(start * own))
    samples = samples[first : None if end is None else round(end * own)]
    if samples.ndim == 2:
        samples = samples.mean(1)
    if not len(samples):
        span = "" if start is None and end is None else f" between {start or 0} s and {end or 'the end'} s"
        raise MediaError(f"{path}: holds no sound{span}")
    if not np.isfinite(samples).all():
        raise MediaError(f"{path}: holds samples that are not finite")
    if own != rate:
        from scipy.signal import resample_poly

        common = math.gcd(own, rate)
        samples = resample_poly(samples, rate // common, own // common)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _decode(path: Path) -> _Sound:
    """`(N,)` or `(N, channels)` float32, and the file's own rate."""
    if not path.is_file():
        raise MediaError(f"{path}: there is no such file")
    readers: list[Callable[[Path], _Sound]]
    if path.suffix.lower() in CONTAINERS:
        readers = [_by_av]
    else:
        readers = [_by_soundfile, _by_torchaudio, _by_scipy, _by_wave, _by_av]
    reasons: list[str] = []
    missing: MissingDependency | None = None
    for reader in readers:
        try:
            return reader(path)
        except MissingDependency as error:
            missing = missing or error
        except FusionZooError as error:
            reasons.append(str(error))
        except Exception as error:  # each library fails in its own way
            reasons.append(f"{reader.__name__.removeprefix('_by_')}: {str(error).strip() or type(error).__name__}")
    # A wav that scipy and wave refuse is broken; another kind may only lack its library.
    if missing is not None and (not reasons or path.suffix.lower() != ".wav"):
        raise MissingDependency(missing.package, missing.extra, f"reading {path.name} ({path.suffix} files)")
    raise MediaError(f"{path}: cannot be read as sound ({_short(reasons[0])})")


def _short(text: str) -> str:
    line = text.splitlines()[0]
    return line if len(line) <= 200 else line[:200] + "..."


def _library(name: str, package: str, extra: str, purpose: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # also a library that is installed and broken, as torchaudio beside another torch
        raise MissingDependency(package, extra, purpose) from error


def _by_soundfile(path: Path) -> _Sound:
    library = _library("soundfile", "soundfile", "audio", "reading sound files")
    samples, rate = library.read(str(path), dtype="float32", always_2d=True)
    return samples, int(rate)


def _by_torchaudio(path: Path) -> _Sound:
    library = _library("torchaudio", "soundfile", "audio", "reading sound files")
    samples, rate = library.load(str(path))
    return samples.numpy().T, int(rate)


def _by_scipy(path: Path) -> _Sound:
    _only_wav(path)
    from scipy.io import wavfile

    rate, samples = wavfile.read(path)
    return _unit(samples), int(rate)


def _by_wave(path: Path) -> _Sound:
    _only_wav(path)
    with wave_module.open(str(path), "rb") as stream:
        width, channels, rate = stream.getsampwidth(), stream.getnchannels(), stream.getframerate()
        data = stream.readframes(stream.getnframes())
    kinds = {1: np.dtype("u1"), 2: np.dtype("<i2"), 4: np.dtype("<i4")}
    if width not in kinds:
        raise MediaError(f"{path}: has {8 * width}-bit samples, which the standard library does not read")
    return _unit(np.frombuffer(data, kinds[width]).reshape(-1, channels)), rate


def _only_wav(path: Path) -> None:
    if path.suffix.lower() != ".wav":
        raise MissingDependency("soundfile", "audio", f"reading {path.suffix} files")


def _unit(samples: np.ndarray) -> np.ndarray:
    """Integer samples to -1 to 1; floats as they are."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    return samples.astype(np.float32) / float(np.iinfo(samples.dtype).max + 1)


def _by_av(path: Path) -> _Sound:
    library = _library("av", "av", "video", "reading the sound of videos")
    chunks = []
    with library.open(str(path)) as container:
        if not container.streams.audio:
            raise MediaError(f"{path}: has no sound track")
        stream = container.streams.audio[0]
        rate = int(stream.rate)
        to_float = library.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        for frame in container.decode(stream):
            chunks += [f.to_ndarray() for f in to_float.resample(frame)]
        chunks += [f.to_ndarray() for f in to_float.resample(None)]
    if not chunks:
        raise MediaError(f"{path}: its sound track is empty")
    return np.concatenate(chunks, axis=1).T, rate


def read_frames(
    path: str | os.PathLike[str],
    frames: int | None = 16,
    start: float | None = None,
    end: float | None = None,
    crop: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Pictures `(F, H, W, 3)` uint8, red first.

    frames : so many, evenly spaced over the clip (fewer where it has fewer); None is all of them.
    start, end : seconds; None is the beginning or the end.
    crop : (left, top, right, bottom) as parts of the picture, 0 to 1.

    Raises `MediaError` for a file that cannot be read or has no picture in that span, `MissingDependency` where neither
    PyAV nor OpenCV is installed.
    """
    return np.stack(read_pictures(path, frames, start, end, crop))


def read_pictures(
    path: str | os.PathLike[str],
    frames: int | None = 16,
    start: float | None = None,
    end: float | None = None,
    crop: _Crops = None,
) -> list[np.ndarray]:
    """The same as a list of `(H, W, 3)`, for which `crop` may also be a list: one of each picture of the file, in order.

    A picture for which the list has nothing, or None, is not cropped; they then differ in size.
    """
    path = Path(path)
    if frames is not None:
        check_positive(frames, "frames", read_frames)
    if not path.is_file():
        raise MediaError(f"{path}: there is no such file")
    reader = _frames_by_av if _installed("av") else _frames_by_cv2
    try:
        pictures = reader(path, frames, start or 0.0, end, crop)
    except FusionZooError:
        raise
    except Exception as error:
        raise MediaError(
            f"{path}: cannot be read as video ({_short(str(error).strip() or type(error).__name__)})"
        ) from error
    if not pictures:
        span = "" if start is None and end is None else f" between {start or 0} s and {end or 'the end'} s"
        raise MediaError(f"{path}: holds no picture{span}")
    return pictures


def _installed(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:
        return False
    return True


def _choose(times: list[float], frames: int | None, start: float, end: float | None) -> list[int]:
    """Which of the pictures at these times are taken."""
    inside = [i for i, t in enumerate(times) if t >= start - 1e-6 and (end is None or t < end)]
    if frames is None or len(inside) <= frames:
        return inside
    places = (np.arange(frames) + 0.5) * len(inside) / frames
    return [inside[int(p)] for p in places]


def _cropped(picture: np.ndarray, crops: _Crops, index: int) -> np.ndarray:
    crop = (crops[index] if index < len(crops) else None) if isinstance(crops, list) else crops
    if crop is None:
        return picture
    height, width = picture.shape[:2]
    left, right = round(crop[0] * width), max(round(crop[2] * width), round(crop[0] * width) + 1)
    top, bottom = round(crop[1] * height), max(round(crop[3] * height), round(crop[1] * height) + 1)
    return np.ascontiguousarray(picture[top:bottom, left:right])


def _frames_by_av(path: Path, frames: int | None, start: float, end: float | None, crop: _Crops) -> list[np.ndarray]:
    """Two passes: the times of all pictures from the packets, which decodes nothing, then the chosen pictures."""
    library = importlib.import_module("av")
    with library.open(str(path)) as container:
        if not container.streams.video:
            raise MediaError(f"{path}: has no pictures")
        stream = container.streams.video[0]
        origin = (stream.start_time or 0) * stream.time_base if stream.time_base else 0
        stamps = sorted(p.pts for p in container.demux(stream) if p.pts is not None)
        times = [float(s * stream.time_base - origin) for s in stamps]
    wanted = {stamps[i]: i for i in _choose(times, frames, start, end)}
    if not wanted:
        return []
    last, taken = max(wanted), []
    with library.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # the caller reads several files at a time
        container.seek(min(wanted), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts in wanted:
                taken.append(_cropped(frame.to_ndarray(format="rgb24"), crop, wanted[frame.pts]))
            if frame.pts is not None and frame.pts >= last:
                break
    return taken


def _frames_by_cv2(path: Path, frames: int | None, start: float, end: float | None, crop: _Crops) -> list[np.ndarray]:
    library = _library("cv2", "av", "video", "reading videos")
    capture = library.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise MediaError(f"{path}: cannot be read as video")
        times: list[float] = []
        speed = capture.get(library.CAP_PROP_FPS) or 25.0
        while capture.grab():
            times.append(len(times) / speed)
        wanted = set(_choose(times, frames, start, end))
        capture.release()
        capture = library.VideoCapture(str(path))
        taken = []
        for index in range(max(wanted, default=-1) + 1):
            if not capture.grab():
                break
            if index in wanted:
                fine, picture = capture.retrieve()
                if fine:
                    taken.append(_cropped(library.cvtColor(picture, library.COLOR_BGR2RGB), crop, index))
        return taken
    finally:
        capture.release()


def versions() -> dict[str, str]:
    """The installed libraries that may have read the files."""
    found = {}
    for name in ("soundfile", "torchaudio", "scipy", "av", "cv2"):
        if _installed(name):
            found[name] = str(getattr(importlib.import_module(name), "__version__", "unknown"))
    return found
