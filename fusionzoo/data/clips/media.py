"""How the words, sound and pictures of one utterance are read: what a model's authors did before their encoder.

A medium is named by its `kind` in `data.media`, with options beside it:

    media:
      text: words
      audio: {kind: wave, rate: 16000, seconds: 6}
      visual: {kind: frames, frames: 30, crop: landmarks, augment: frame}

No torch here before something is read.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fusionzoo._options import check_choice, check_positive
from fusionzoo.data._npz_columns import open_npy
from fusionzoo.data.raw import RawUtterance
from fusionzoo.errors import DataError, MediaError, OptionError, close_matches_hint

AUGMENTATIONS = ("none", "clip", "frame")
CROPS = ("none", "speaker", "landmarks")


@dataclass(frozen=True)
class Medium:
    """Base class: what of an utterance is read, and how.

    medium : `"text"`, `"audio"` or `"video"`: what `RawUtterance.has` is asked for.
    width : of one step, as in a host's `dims`: 1 for a sample or a token, 3 for a picture (its colours).
    """

    kind: ClassVar[str] = ""
    medium: ClassVar[str] = ""

    def needs(self) -> str:
        """What `RawUtterance.has` must answer True for."""
        return self.medium

    def width(self, utterance: RawUtterance) -> int:
        """Width of one step, found on an utterance that has the medium."""
        return 1

    def num_bytes(self, utterance: RawUtterance) -> int | None:
        """Bytes that identify the recording beside its name, where they are cheap to know."""
        path = getattr(utterance, self.medium)
        return path.stat().st_size if isinstance(path, Path) and path.is_file() else None

    def read(self, utterance: RawUtterance, random: np.random.Generator | None) -> np.ndarray | str:
        """Steps first. random : source of augmentation in training; None otherwise.

        Raises `MediaError` for a broken file, `MissingDependency` that names the extra.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Words(Medium):
    """The words as they are written.

    clean : as MemoCMT: take out what stands in brackets, and superfluous white space.
    empty : what stands for no words.
    """

    kind: ClassVar[str] = "words"
    medium: ClassVar[str] = "text"
    clean: bool = False
    empty: str = ""

    def num_bytes(self, utterance: RawUtterance) -> int | None:
        return None

    def read(self, utterance: RawUtterance, random: np.random.Generator | None) -> str:
        text = utterance.text or ""
        if self.clean:
            text = " ".join(re.sub(r"[(\[].*?[)\]]", " ", text).split())
        return text or self.empty


@dataclass(frozen=True)
class Wave(Medium):
    """Samples from -1 to 1.

    rate : samples a second, those of the encoder.
    start : seconds left out at the beginning.
    seconds : the most that is read; None is all.
    """

    kind: ClassVar[str] = "wave"
    medium: ClassVar[str] = "audio"
    rate: int = 16000
    start: float = 0.0
    seconds: float | None = None

    def __post_init__(self) -> None:
        check_positive(self.rate, "rate", self)
        _check_seconds(self)

    def read(self, utterance: RawUtterance, random: np.random.Generator | None) -> np.ndarray:
        from fusionzoo.media import read_audio

        assert utterance.audio is not None
        start = (utterance.audio_start or 0.0) + self.start
        ends = [
            e for e in (utterance.audio_end, None if self.seconds is None else start + self.seconds) if e is not None
        ]
        return read_audio(utterance.audio, self.rate, start or None, min(ends, default=None))


@dataclass(frozen=True)
class Mfcc(Wave):
    """Mel-frequency cepstral coefficients, `(steps, coefficients)`, as CFN-SR and MSAF make them: 212 steps of 13.

    A shorter sound is extended by silence to `seconds`, so that every clip has as many steps.
    """

    kind: ClassVar[str] = "mfcc"
    rate: int = 44100
    start: float = 0.5
    seconds: float | None = 2.45
    coefficients: int = 13

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.coefficients, "coefficients", self)

    def width(self, utterance: RawUtterance) -> int:
        return self.coefficients

    def read(self, utterance: RawUtterance, random: np.random.Generator | None) -> np.ndarray:
        import torch

        from fusionzoo.encoders.mfccnet import mfcc

        wave = super().read(utterance, random)
        if self.seconds is not None:
            wanted = round(self.seconds * self.rate)
            wave = np.pad(wave[:wanted], (0, max(0, wanted - len(wave))))
        return mfcc(torch.from_numpy(wave), self.rate, self.coefficients).T.contiguous().numpy()


@dataclass(frozen=True)
class Frames(Medium):
    """Pictures, `(frames, 3, H, W)` uint8.

    frames : of each utterance, evenly spaced, fewer where there are fewer; None is all of them.
    seconds : the most that is looked at; None is all.
    size : height and width, by stretching a crop, and by the shortest side and the middle of a whole picture; None leaves the
        file's own.
    crop : `"speaker"`, the half of the picture that the release names; `"landmarks"`, the box around the 68 points of the
    release's csv, as MSAF and CFN-SR; `"none"`.
    screen : width and height that landmarks are given in.
    augment : in training, a random part (0.8 to 1.4 of the area, where it fits) and a random mirror image: `"frame"`
    draws for each picture by itself, as CFN-SR and MSAF; `"clip"` once a clip; `"none"`.
    colours : `"rgb"`, or `"bgr"`, the order in which CFN-SR and MSAF hand pictures to their network.
    """

    kind: ClassVar[str] = "frames"
    medium: ClassVar[str] = "video"
    frames: int | None = 16
    seconds: float | None = None
    size: int | None = 224
    crop: str = "none"
    screen: tuple[int, int] = (1280, 720)
    augment: str = "none"
    colours: str = "rgb"

    def __post_init__(self) -> None:
        for name in ("frames", "size"):
            if getattr(self, name) is not None:
                check_positive(getattr(self, name), name, self)
        _check_seconds(self)
        check_choice(self.crop, CROPS, "crop", self)
        check_choice(self.augment, AUGMENTATIONS, "augment", self)
        check_choice(self.colours, ("rgb", "bgr"), "colours", self)
        object.__setattr__(self, "screen", tuple(self.screen))

    def width(self, utterance: RawUtterance) -> int:
        return 3

    def read(self, utterance: RawUtterance, random: np.random.Generator | None) -> np.ndarray:
        from fusionzoo.media import read_pictures

        assert utterance.video is not None
        start = utterance.start
        ends = [utterance.end, None if self.seconds is None else (start or 0.0) + self.seconds]
        end = min((e for e in ends if e is not None), default=None)
        crop: Any = utterance.crop if self.crop == "speaker" else None
        if self.crop == "landmarks":
            crop = read_landmarks(utterance, self.screen)
        pictures = [np.moveaxis(p, -1, 0) for p in read_pictures(utterance.video, self.frames, start, end, crop)]
        if self.colours == "bgr":
            pictures = [p[::-1] for p in pictures]
        part = None
        out = []
        for i, picture in enumerate(pictures):
            if random is not None and self.augment != "none" and (i == 0 or self.augment == "frame"):
                part = _random_part(random)
            out.append(_resized(_taken(picture, part), self.size, stretch=self.crop == "landmarks" or part is not None))
        if len({p.shape for p in out}) > 1:
            raise MediaError(f"{utterance.video}: its pictures differ in size; give data.media a size")
        return np.stack(out)


@dataclass(frozen=True)
class Features(Medium):
    """Ready features of frames, `(frames, width)`: the release's `.npy` files, as Foal-Net's of CLIP.

    of : their name in `RawUtterance.features`.
    frames : the most that is read; None is all.
    """

    kind: ClassVar[str] = "features"
    of: str = "video"
    frames: int | None = None

    def needs(self) -> str:
        return self.of

    def width(self, utterance: RawUtterance) -> int:
        return int(self._open(utterance).shape[1])

    def num_bytes(self, utterance: RawUtterance) -> int | None:
        path = utterance.features.get(self.of)
        return path.stat().st_size if path is not None and path.is_file() else None

    def read(self, utterance: RawUtterance, random: np.random.Generator | None) -> np.ndarray:
        found = np.array(self._open(utterance)[: self.frames], dtype=np.float32)
        if not np.isfinite(found).all():
            raise MediaError(f"{utterance.features[self.of]}: holds values that are not finite")
        return found

    def _open(self, utterance: RawUtterance) -> np.ndarray:
        if self.of not in utterance.features:
            raise MediaError(
                f"{utterance.id}: has no ready features {self.of!r}; it has {', '.join(utterance.features) or 'none'}. Take "
                "another kind of medium, or name their folder to the reader"
            )
        path = utterance.features[self.of]
        try:
            found = open_npy(path)
        except DataError as error:
            raise MediaError(str(error)) from error
        if found.ndim != 2 or not len(found):
            raise MediaError(f"{path}: holds {found.shape}, expected (frames, width)")
        return found


KINDS: dict[str, type[Medium]] = {k.kind: k for k in (Words, Wave, Mfcc, Frames, Features)}
_DEFAULTS = {"text": "words", "audio": "wave", "video": "frames", "visual": "frames"}


def read_media(given: Any) -> dict[str, Medium]:
    """Modality -> medium of a configuration: a kind's name, or its options with `kind`, which has a default by modality."""
    if not isinstance(given, Mapping) or not given:
        raise OptionError(
            "data.media maps modalities to kinds of media, such as {text: words, audio: {kind: wave, rate: 16000}}, not "
            f"{given!r}"
        )
    return {str(m): _medium(str(m), how) for m, how in given.items()}


def _medium(modality: str, how: Any) -> Medium:
    options = {"kind": how} if isinstance(how, str) else dict(how or {})
    kind = options.pop("kind", _DEFAULTS.get(modality))
    if kind not in KINDS:
        hint = close_matches_hint(str(kind), KINDS) if kind else None
        raise OptionError(f"data.media.{modality}: there is no kind {kind!r}{hint or '.'} Kinds: {', '.join(KINDS)}.")
    known = [f.name for f in fields(KINDS[kind])]
    for name in options:
        if name not in known:
            raise OptionError(
                f"data.media.{modality}: {kind} has no option {name!r}{close_matches_hint(str(name), known) or '.'} It takes: "
                f"{', '.join(known)}."
            )
    return KINDS[kind](**options)


def read_landmarks(utterance: RawUtterance, screen: tuple[int, int]) -> list[tuple[float, float, float, float] | None]:
    """The box around the facial landmarks of each picture, as parts of it; None where nothing was tracked.

    The csv has columns `x_0` to `x_67` and `y_0` to `y_67`, as OpenFace writes them, in pixels of `screen`.
    """
    path = utterance.landmarks
    if path is None:
        raise MediaError(
            f"{utterance.id}: has no facial landmarks. Put the release's csv files in the folder `landmarks`, or take "
            "data.media.visual.crop=none"
        )
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream)
            header = [h.strip() for h in next(rows)]
            columns = [[i for i, h in enumerate(header) if re.fullmatch(axis + r"_\d+", h)] for axis in "xy"]
            points = [[[float(row[i]) for i in axis] for axis in columns] for row in rows if row]
    except (OSError, ValueError, IndexError, StopIteration, csv.Error) as error:
        raise MediaError(f"{path}: cannot be read as landmarks ({error})") from error
    if not all(columns):
        raise MediaError(f"{path}: has no columns x_0, x_1, ... and y_0, y_1, ...; expected OpenFace's landmarks")
    boxes: list[tuple[float, float, float, float] | None] = []
    for xs, ys in points:
        left, right = (min(max(v / screen[0], 0.0), 1.0) for v in (min(xs), max(xs)))
        top, bottom = (min(max(v / screen[1], 0.0), 1.0) for v in (min(ys), max(ys)))
        boxes.append((left, top, right, bottom) if right > left and bottom > top else None)
    return boxes


def _check_seconds(medium: Any) -> None:
    if medium.seconds is not None and not medium.seconds > 0:
        raise OptionError(f"{type(medium).__name__}: seconds must be positive or None, not {medium.seconds!r}")


@dataclass(frozen=True)
class _Part:
    """A part of a picture: a share of its area, width over height, where it lies (0 to 1), and whether it is mirrored.

    Ten tries, as torchvision's RandomResizedCrop, of which the first that fits is taken.
    """

    tries: tuple[tuple[float, float], ...]
    place: tuple[float, float]
    mirrored: bool


def _random_part(random: np.random.Generator) -> _Part:
    areas = random.uniform(0.8, 1.4, 10)
    ratios = np.exp(random.uniform(math.log(3 / 4), math.log(4 / 3), 10))
    x, y, coin = random.random(3)
    tries = tuple(zip(areas.tolist(), ratios.tolist(), strict=True))
    return _Part(tries, (float(x), float(y)), bool(coin < 0.5))


def _taken(picture: np.ndarray, part: _Part | None) -> np.ndarray:
    """`(3, H, W)` to the part of it."""
    if part is None:
        return picture
    height, width = picture.shape[1:]
    for area, ratio in part.tries:
        w, h = round(math.sqrt(height * width * area * ratio)), round(math.sqrt(height * width * area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(part.place[0] * (width - w + 1)), int(part.place[1] * (height - h + 1))
            picture = picture[:, top : top + h, left : left + w]
            break
    return picture[:, :, ::-1] if part.mirrored else picture


def _resized(picture: np.ndarray, size: int | None, stretch: bool) -> np.ndarray:
    """`(3, H, W)` uint8 to `(3, size, size)`: stretched, or by its shortest side and then the middle."""
    height, width = picture.shape[1:]
    if size is None or (height, width) == (size, size):
        return np.ascontiguousarray(picture)
    import torch
    from torch.nn import functional as F

    target = (size, size)
    if not stretch:
        factor = size / min(height, width)
        target = (max(size, round(height * factor)), max(size, round(width * factor)))
    x = torch.from_numpy(np.ascontiguousarray(picture)).unsqueeze(0).float()
    if target != (height, width):
        x = F.interpolate(x, size=target, mode="bilinear", antialias=True)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    x = x[0, :, top : top + size, left : left + size]
    return x.round().clamp(0, 255).to(torch.uint8).numpy()
