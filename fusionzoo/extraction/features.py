"""What is extracted of each medium: how long an utterance is, how it is read, and how a batch becomes vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionzoo._options import check_choice, check_positive
from fusionzoo.data.raw import RawUtterance
from fusionzoo.encoders.outputs import POOLINGS, Encoded, check_layer, pool
from fusionzoo.encoders.pretrained import ModelFiles, find_model
from fusionzoo.errors import MediaError, OptionError, close_matches_hint


@dataclass
class Feature:
    """How one modality is made. Subclasses say of which medium.

    model : a local folder or a model of the hub.
    revision : of the hub.
    layer : `"last"`, an index, `"mean4"`; `"views"`: the first position of each of the last four layers, side by side.
    pooling : `"mean"` over real steps, `"cls"`, `"max"`, `"min"`; `"auto"` is what a sentence-transformers model comes
        with, else the mean.
    normalise : scale vectors to length 1; `"auto"` as the model comes with, else no.
    batch_size : utterances that go through the model at a time.
    """

    modality: ClassVar[str] = ""
    medium: ClassVar[str] = ""

    model: str
    revision: str | None = None
    layer: str | int = "last"
    pooling: str = "auto"
    normalise: bool | str = "auto"
    batch_size: int = 8
    files: ModelFiles | None = field(default=None, repr=False)
    encoder: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.model = os.fspath(self.model)
        self.layer = check_layer(self.layer)
        check_choice(self.pooling, ("auto", *POOLINGS), "pooling", type(self))
        if isinstance(self.normalise, str):
            known = {"auto": "auto", "true": True, "yes": True, "false": False, "no": False}
            if self.normalise.lower() not in known:
                raise OptionError(f"normalise={self.normalise!r} of {self.modality}: choices are auto, true, false")
            self.normalise = known[self.normalise.lower()]
        check_positive(self.batch_size, "batch_size", type(self))

    # ------------------------------------------------------------------ the model

    def find(self) -> None:
        """Locate the model's files and settle what is `"auto"`; loads nothing."""
        self.files = find_model(self.model, self.revision)
        own = self.defaults(self.files)
        if self.layer == "views":
            own["pooling"] = "cls"
            if self.pooling not in ("auto", "cls"):
                raise OptionError(
                    f"layer='views' is of the first position, pooling={self.pooling!r} does not go with it"
                )
        self.pooling = own.get("pooling", "mean") if self.pooling == "auto" else self.pooling
        self.normalise = own.get("normalise", False) if self.normalise == "auto" else self.normalise

    def defaults(self, files: ModelFiles) -> dict[str, Any]:
        return {}

    def load(self, device: torch.device) -> None:
        """Load the model onto a device."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Every option that decides the features, JSON-able."""
        other = ("files", "encoder", "batch_size", "model", "revision")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in other}

    def facts(self) -> dict[str, Any]:
        """What the card says about the loaded model."""
        model = self.encoder.model
        count = sum(p.numel() for p in model.parameters())
        named = model if hasattr(model, "config") else model["vision"]
        return {"class": type(named).__name__, "architecture": named.config.model_type, "parameters": count}

    # ------------------------------------------------------------------ the utterances

    def size(self, utterance: RawUtterance) -> float:
        """A guess at its length, to put like with like."""
        raise NotImplementedError

    def identity(self, utterance: RawUtterance) -> Any:
        """JSON-able: changes when the recording does."""
        path = getattr(utterance, self.medium)
        start, end = self.span(utterance)
        state = path.stat() if path.is_file() else None
        return [utterance.id, state and state.st_size, state and state.st_mtime_ns, start, end]

    def span(self, utterance: RawUtterance) -> tuple[float | None, float | None]:
        return utterance.start, utterance.end

    def read(self, utterance: RawUtterance) -> Any:
        """What the batch is made of; runs in a thread. Raises `MediaError` for a bad file."""
        raise NotImplementedError

    def source(self, utterance: RawUtterance) -> str:
        """What a report of a bad one names."""
        return str(getattr(utterance, self.medium))

    def encode(self, batch: Sequence[Any]) -> Tensor:
        """`(B, width)`."""
        encoded: Encoded = self.states(batch)
        vectors = pool(encoded.states.float(), encoded.mask, self.pooling)
        return F.normalize(vectors, dim=-1) if self.normalise else vectors

    def states(self, batch: Sequence[Any]) -> Encoded:
        raise NotImplementedError


def _stretch(path: Path, start: float | None, end: float | None) -> float:
    """Seconds where they are known, else what the file's size suggests; the two are never compared in one release."""
    if start is not None and end is not None:
        return end - start
    return float(path.stat().st_size) if path.is_file() else 0.0


@dataclass
class TextFeature(Feature):
    """Of words.

    max_length : tokens, special ones included; None is what the model was made for.
    """

    modality = "text"
    medium = "text"
    batch_size: int = 32
    max_length: int | None = None

    def defaults(self, files: ModelFiles) -> dict[str, Any]:
        from fusionzoo.encoders.text import sentence_settings

        return sentence_settings(files)

    def load(self, device: torch.device) -> None:
        from fusionzoo.encoders.text import TextEncoder

        self.encoder = TextEncoder(self.model, layer=self.layer, max_length=self.max_length, revision=self.revision).to(
            device
        )

    def facts(self) -> dict[str, Any]:
        return super().facts() | {
            "max_length": self.encoder.max_length,
            "tokenizer": type(self.encoder.tokenizer).__name__,
        }

    def size(self, utterance: RawUtterance) -> float:
        return float(len(utterance.text or ""))

    def identity(self, utterance: RawUtterance) -> Any:
        return [utterance.id, utterance.text]

    def source(self, utterance: RawUtterance) -> str:
        return utterance.id

    def read(self, utterance: RawUtterance) -> str:
        if not (utterance.text or "").strip():
            raise MediaError(f"{utterance.id}: has no words")
        return utterance.text or ""

    def states(self, batch: Sequence[str]) -> Encoded:
        return self.encoder(**self.encoder.tokenize(batch))


@dataclass
class AudioFeature(Feature):
    """Of a sound.

    seconds : longer sounds are cut; None keeps all.
    scale : see `fusionzoo.encoders.audio.SCALES`.
    """

    modality = "audio"
    medium = "audio"
    seconds: float | None = None
    scale: str = "auto"

    def find(self) -> None:
        super().find()
        assert self.files is not None
        self.rate = int(self.files.json("preprocessor_config.json").get("sampling_rate", 16000))

    def load(self, device: torch.device) -> None:
        from fusionzoo.encoders.audio import AudioEncoder

        self.encoder = AudioEncoder(self.model, layer=self.layer, scale=self.scale, revision=self.revision).to(device)

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"sampling_rate": self.encoder.rate, "scale": self.encoder.scale}

    def span(self, utterance: RawUtterance) -> tuple[float | None, float | None]:
        return utterance.audio_start, utterance.audio_end

    def size(self, utterance: RawUtterance) -> float:
        assert utterance.audio is not None
        return _stretch(utterance.audio, *self.span(utterance))

    def read(self, utterance: RawUtterance) -> Tensor:
        from fusionzoo.media import read_audio

        assert utterance.audio is not None
        wave = read_audio(utterance.audio, self.rate, *self.span(utterance))
        return torch.from_numpy(wave if self.seconds is None else wave[: max(1, round(self.seconds * self.rate))])

    def states(self, batch: Sequence[Tensor]) -> Encoded:
        return self.encoder(**self.encoder.collate(batch))


@dataclass
class VideoFeature(Feature):
    """Of pictures.

    frames : of each utterance, evenly spaced.
    picture : see `fusionzoo.encoders.video.PICTURES`.
    """

    modality = "visual"
    medium = "video"
    frames: int | None = 16
    picture: str = "auto"

    def load(self, device: torch.device) -> None:
        from fusionzoo.encoders.video import VideoEncoder

        if self.layer != "last":
            raise OptionError(f"layer={self.layer!r}: a picture's vector is of the last layer; see the option picture")
        self.encoder = VideoEncoder(self.model, picture=self.picture, revision=self.revision).to(device)

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"picture": self.encoder.picture, "size": list(self.encoder.size)}

    def size(self, utterance: RawUtterance) -> float:
        assert utterance.video is not None
        return _stretch(utterance.video, *self.span(utterance))

    def identity(self, utterance: RawUtterance) -> Any:
        return [*super().identity(utterance), utterance.crop]

    def read(self, utterance: RawUtterance) -> Tensor:
        from fusionzoo.media import read_frames

        assert utterance.video is not None
        pictures = read_frames(utterance.video, self.frames, *self.span(utterance), utterance.crop)
        # In the thread, so that a batch waits as pictures of the model's size and not of the file's.
        return self.encoder.prepare(torch.from_numpy(pictures).permute(0, 3, 1, 2).to(self.encoder.device))

    def states(self, batch: Sequence[Tensor]) -> Encoded:
        mask = torch.nn.utils.rnn.pad_sequence(
            [torch.ones(len(c), dtype=torch.bool, device=c.device) for c in batch], batch_first=True
        )
        return self.encoder(torch.nn.utils.rnn.pad_sequence(list(batch), batch_first=True), mask, prepared=True)


KINDS: dict[str, type[Feature]] = {"text": TextFeature, "audio": AudioFeature, "video": VideoFeature}


def make_features(models: dict[str, Any], options: dict[str, Any]) -> list[Feature]:
    """The features of the media for which a model is named.

    options : name -> value for all media that know it, or medium -> value; None leaves the default.
    """
    wanted = {medium: model for medium, model in models.items() if model is not None}
    if not wanted:
        raise OptionError("nothing to extract: name a model for text, audio or video, e.g. text='roberta-large'")
    out = []
    for medium, model in wanted.items():
        cls, given = KINDS[medium], {}
        for name, value in options.items():
            if isinstance(value, dict):
                if unknown := [k for k in value if k not in KINDS]:
                    raise OptionError(
                        f"{name}: there is no medium {unknown[0]!r}{close_matches_hint(unknown[0], KINDS) or '.'} Media: "
                        f"{', '.join(KINDS)}."
                    )
                if idle := [k for k in value if k not in wanted]:
                    raise OptionError(f"{name} is given for {idle[0]}, but no model is named for {idle[0]}")
                value = value.get(medium)
            if value is not None and name in {f.name for f in fields(cls)}:
                given[name] = value
        out.append(cls(model, **given))
    return out
