"""The base of hosts that encode words, sounds and pictures in the training graph and classify each utterance by itself.

Their batches hold `clips` in the place of features (see `fusionzoo.batch.Clip`). The contract stays that of a host:
`out = host(batch)` with logits `(B, T, C)`. Given features instead, an utterance is a sequence of one step, so that such a
host also runs on ready vectors, and on any fusion.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from fusionzoo._options import accepted_options, check_choice, check_positive, check_probability
from fusionzoo._registry import registry
from fusionzoo.encoders.outputs import POOLINGS, Encoded, pool
from fusionzoo.errors import OptionError, ShapeError, close_matches_hint
from fusionzoo.fusion import Dims, Fused
from fusionzoo.host import FusionLike, Host, HostOutput
from fusionzoo.numerics import masked_mean, zero_padded
from fusionzoo.objective import zero_features
from fusionzoo.specs import plain_name

if TYPE_CHECKING:
    from fusionzoo._types import Options
    from fusionzoo.batch import Batch, Clip
    from fusionzoo.data.clips.media import Medium

#: An encoder as an option says it: a model's name, a mapping with its options, the encoder itself, or None for none.
EncoderLike: TypeAlias = "str | Options | nn.Module | None"

#: Kind of encoder by the usual names of modalities.
_KINDS = {"text": "text", "audio": "audio", "visual": "video", "video": "video"}


class ClipHost(Host):
    """Encoders, a fusion over their states, a head.

    Parameters
    ----------
    dims : modality -> width of a step of what comes in: 1 for words and samples, 3 for pictures, or the width of ready
        features (of frames, or of utterances).
    encoders : modality -> a pretrained model (a name of the hub or a local folder), or a mapping with `model` and the
        options of `fusionzoo.encoders.TextEncoder`, `AudioEncoder` or `VideoEncoder`; `kind` names the encoder (`"text"`,
        `"audio"`, `"video"`, or an installed plugin's) where the modality's name does not. What has no encoder enters the
        fusion as it is.
    pool : what becomes of a sequence where the fusion leaves one, or where there is one modality: `POOLINGS`.
    sequence_dropout : on the states.
    fusion_width : of the fusion's output; None is the fusion's own choice.

    How a fusion is used: one that takes unaligned sequences gets the states with their masks, and is built with its
    `for_sequences` where nothing else is said; any other gets the mean of each modality's real states. What it returns is
    pooled over the anchor's real steps if it has steps.

    Subclasses name their published fusion in `own` with its options in `own_options`, and build `self.head`; one whose
    `masked` is False reads and pools padding as well.
    """

    handles: ClassVar[frozenset[str]] = Host.handles | {"clips"}
    placements: ClassVar[tuple[str, ...]] = ("late",)
    own: ClassVar[str] = ""
    #: Whether it is known behind the encoders which steps are real.
    masked: ClassVar[bool] = True
    head: nn.Module
    fusion: Any
    encoders: nn.ModuleDict

    def __init__(
        self,
        dims: Dims,
        num_classes: int,
        num_speakers: int,
        fusion: FusionLike = "concat",
        placement: str | None = None,
        *,
        encoders: str | Mapping[str, EncoderLike] | None = None,
        pool: str = "mean",
        sequence_dropout: float = 0.0,
        fusion_width: int | None = None,
    ):
        super().__init__(dims, num_classes, num_speakers, fusion, placement)
        self.pool = check_choice(pool, POOLINGS, "pool", self)
        self.sequence_dropout = nn.Dropout(check_probability(sequence_dropout, "sequence_dropout", self))
        self.encoders = nn.ModuleDict(self.make_encoders(encoders or {}))
        self.widths = {m: int(getattr(self.encoder(m), "width", d)) for m, d in self.dims.items()}
        self.fusion_width = fusion_width
        if fusion_width is not None:
            check_positive(fusion_width, "fusion_width", self)
        self.fusion = None
        if len(self.dims) > 1:
            self.fusion_like = self._prepared(self.fusion_like, self.own_options())
            self.fusion = self.make_fusion(self._fused_dims(), fusion_width)
            self.fused_width = self.fusion.out_dim
        else:
            del self.fusion_like
            self.fused_width = next(iter(self._fused_dims().values()))

    def own_options(self) -> dict[str, Any]:
        """Options of the published fusion where nothing else is said."""
        return {"variant": self.variant}

    def make_encoders(self, given: Any) -> dict[str, nn.Module]:
        """Modality -> encoder with a `width`, from the option `encoders`."""
        if not isinstance(given, Mapping):
            raise OptionError(f"{type(self).__name__}: encoders maps modalities to models, not {given!r}")
        for name in given:
            if name not in self.dims:
                raise OptionError(
                    f"{type(self).__name__}: encoders names {name!r}{close_matches_hint(str(name), self.names) or ','} but the "
                    f"data have {', '.join(self.names)}"
                )
        return {m: make_encoder(m, how) for m, how in given.items() if how is not None}

    def encoder(self, name: str) -> Any:
        """The encoder of a modality; None for one that has none."""
        return self.encoders[name] if name in self.encoders else None  # noqa: SIM401  ModuleDict has no get

    def _fused_dims(self) -> dict[str, int]:
        """Widths of the streams that the fusion gets."""
        return self.widths

    def _prepared(self, fusion: FusionLike, own: dict[str, Any]) -> FusionLike:
        """A fusion's name with the options that make sense for clips, where it takes them and nothing else is said."""
        if isinstance(fusion, str):
            fusion = (fusion, {})
        if not isinstance(fusion, tuple) or len(fusion) != 2:
            return fusion
        name, given = fusion
        cls = registry.get(name)
        wanted = dict(getattr(cls, "for_sequences", {})) | (own if plain_name(name) == self.own else {})
        takes = accepted_options(cls)
        return name, {**{k: v for k, v in wanted.items() if k in takes}, **given}

    # -- what comes in ------------------------------------------------------------------------------------------------

    def sequences(self, batch: Batch) -> dict[str, Encoded | None]:
        """States `(B * T, S, d)` and masks `(B * T, S)` by modality; None for one that the whole batch lacks."""
        out: dict[str, Encoded | None] = {}
        if batch.clips:
            for m in self.names:
                clip = batch.clips.get(m)
                out[m] = None if clip is None else self._encoded(m, clip, batch)
        else:
            masks = batch.modality_masks()
            for m, x in self.standardize(batch.features).items():
                mask = masks[m] if isinstance(masks, Mapping) and m in masks else batch.mask
                flat = mask.reshape(-1, 1)
                out[m] = None if x is None else Encoded(zero_padded(x.flatten(0, 1).unsqueeze(1), flat), flat)
        return {m: None if e is None else Encoded(self.sequence_dropout(e.states), e.mask) for m, e in out.items()}

    def _encoded(self, name: str, clip: Clip, batch: Batch) -> Encoded:
        present = (batch.present or {}).get(name)
        real = batch.mask if present is None else batch.mask & present
        real = real.reshape(-1, 1)
        if name not in self.encoders:
            values = clip.values
            assert isinstance(values, Tensor)
            mask = real.expand(values.shape[:2]) if clip.mask is None else clip.mask & real
            return Encoded(zero_padded(values, mask), mask)
        encoder = self.encoder(name)
        if isinstance(clip.values, list):
            states, mask = encoder(**encoder.tokenize(clip.values))
        else:
            states, mask = encoder(clip.values, clip.mask)
        mask = mask & real
        return Encoded(zero_padded(states, mask), mask)

    def check_media(self, media: Mapping[str, Medium]) -> None:
        """Raise `OptionError` where clips read like this do not fit the encoders."""
        for name in self.encoders:
            encoder = self.encoder(name)
            rate, wanted = getattr(media.get(name), "rate", None), getattr(encoder, "rate", None)
            if rate is not None and wanted is not None and rate != wanted:
                raise OptionError(
                    f"data.media.{name} has {rate} samples a second, and the encoder "
                    f"{getattr(encoder, 'files', None) and encoder.files.name!r} was made for {wanted}; set "
                    f"data.media.{name}.rate={wanted}"
                )

    def frozen_encoders(self) -> set[str]:
        """Names of the parameters of pretrained encoders that do not learn."""
        out = set()
        for m, encoder in self.encoders.items():
            if getattr(encoder, "files", None) is not None and not getattr(encoder, "trainable", True):
                out |= {f"encoders.{m}.{name}" for name, _ in encoder.named_parameters()}
        return out

    def example(self) -> Batch:
        """One utterance of silence, a black picture, or zeros."""
        if not self.encoders:
            return zero_features(self)
        from fusionzoo.batch import Batch, Clip

        device = next((t.device for t in (*self.parameters(), *self.buffers())), torch.device("cpu"))
        zeros = torch.zeros(1, 1, dtype=torch.long, device=device)
        clips = {}
        for m, width in self.dims.items():
            medium = getattr(self.encoder(m), "medium", "")
            if medium == "text":
                clips[m] = Clip(["a"])
                continue
            values = self._example_values(m, medium, width, device)
            clips[m] = Clip(values, torch.ones(values.shape[:2], dtype=torch.bool, device=device))
        return Batch({}, zeros == 0, zeros, zeros, ["0"], None, [1], clips)

    def _example_values(self, name: str, medium: str, width: int, device: torch.device) -> Tensor:
        encoder = self.encoder(name)
        if medium == "audio":
            return torch.zeros(1, 4 * encoder.shortest, device=device)
        if medium == "video":
            return torch.zeros(1, 2, 3, *encoder.size, dtype=torch.uint8, device=device)
        return torch.zeros(1, 2, width, device=device)

    # -- forward ------------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> HostOutput:
        """Logits for every utterance of a batch of clips or of features."""
        self._check(batch)
        fused, masks = self.fuse(batch)
        logits = self.head(fused.fused)
        size = batch.size
        out = HostOutput(zero_padded(logits.view(*size, -1), batch.mask), losses=dict(fused.losses))
        out.attention = dict(fused.attention)
        for name, x in {"fused": fused.fused, **fused.streams}.items():
            mask = masks.get(name.partition(".")[0])
            if x.dim() == 3:
                mask = mask if mask is not None and mask.shape == x.shape[:2] else None
                out.sequences[name] = (x, mask)
                x = masked_mean(x, mask)
            out.streams[name] = zero_padded(x.view(*size, -1), batch.mask)
        return out

    def fuse(self, batch: Batch) -> tuple[Fused, dict[str, Tensor]]:
        """What the fusion made of a batch, `fused` as one vector per utterance `(B * T, d)`; and the masks of the states."""
        return self.fuse_sequences(self.sequences(batch))

    def fuse_sequences(self, encoded: Mapping[str, Encoded | None]) -> tuple[Fused, dict[str, Tensor]]:
        """The same from states."""
        encoded = _one_dtype(encoded)
        masks = {m: e.mask for m, e in encoded.items() if e is not None}
        if not self.masked:
            masks = {m: torch.ones_like(mask) for m, mask in masks.items()}
        if self.fusion is None:
            return self._alone(encoded[self.names[0]], masks), masks
        # An instance may have names of its own: it takes the streams in their order.
        names = dict(zip(self.names, self.fusion.names, strict=True))
        streams = {names[m]: None if e is None else self._stream(e, masks[m]) for m, e in encoded.items()}
        given = {
            names[m]: mask if streams[names[m]].shape[1] == mask.shape[1] else mask.any(1, keepdim=True)  # type: ignore[union-attr]
            for m, mask in masks.items()
        }
        fused = self.fusion.fuse(streams, given if self.masked else None, attention=self.keep_attention)
        back = {theirs: ours for ours, theirs in names.items()}
        fused.streams = {_renamed(k, back): v for k, v in fused.streams.items()}
        if fused.fused.dim() == 3:
            fused.fused = self._without_steps(fused.fused, given.get(self.fusion.anchor), given)
        return fused, masks

    def _alone(self, only: Encoded | None, masks: Mapping[str, Tensor]) -> Fused:
        """The only modality, for which there is no fusion."""
        name = self.names[0]
        if only is None:
            raise ShapeError(f"the batch has no {name!r}, the only modality of {type(self).__name__}")
        return Fused(pool(only.states, masks[name], self.pool), {name: only.states})

    def _stream(self, encoded: Encoded, mask: Tensor) -> Tensor:
        """What the fusion takes of a modality: its states, or, if it reads no sequences, their mean as one step."""
        x = encoded.states if getattr(self.fusion, "unaligned", False) else masked_mean(encoded.states, mask)
        return x if x.dim() == 3 else x.unsqueeze(1)

    def _without_steps(self, x: Tensor, anchor: Tensor | None, given: Mapping[str, Tensor]) -> Tensor:
        """The fusion's steps as one vector."""
        if x.shape[1] == 1:
            return x.squeeze(1)
        if anchor is None or anchor.shape[1] != x.shape[1]:
            return pool(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), self.pool)
        # An utterance without an anchor keeps what the others left at its steps.
        return pool(x, torch.where(anchor.any(1, keepdim=True), anchor, True), self.pool)

    def encode(self, features, mask, batch):
        raise NotImplementedError(f"{type(self).__name__} overrides forward")  # pragma: no cover

    def _check(self, batch: Batch) -> None:
        if not batch.clips:
            if self.encoders and any(m in self.encoders for m in batch.features):
                raise ShapeError(
                    f"{type(self).__name__} was built with encoders of {', '.join(self.encoders)} and takes clips, and this "
                    "batch has features; train on a release (data.media), or build it without encoders"
                )
            super()._check(batch)
            return
        rows = batch.mask.numel()
        for name, clip in batch.clips.items():
            if name not in self.dims:
                raise ShapeError(
                    f"the batch has clips of {name!r}, but {type(self).__name__} was built for {', '.join(self.names)}"
                )
            if len(clip) != rows:
                raise ShapeError(f"the batch has {len(clip)} clips of {name!r}, expected B * T = {rows}")
            if name in self.encoders or not isinstance(clip.values, Tensor):
                if name not in self.encoders:
                    raise ShapeError(
                        f"the clips of {name!r} are texts, which need an encoder: encoders={{{name!r}: ...}}"
                    )
                continue
            if clip.values.dim() != 3 or clip.values.shape[-1] != self.dims[name]:
                raise ShapeError(
                    f"the clips of {name!r} have shape {tuple(clip.values.shape)} and no encoder; expected features of frames "
                    f"(B * T, S, {self.dims[name]}), or name an encoder: encoders={{{name!r}: ...}}"
                )


def _one_dtype(encoded: Mapping[str, Encoded | None]) -> dict[str, Encoded | None]:
    """States of one dtype: under autocast one encoder ends in a norm, which gives single precision, another in a product."""
    there = [e for e in encoded.values() if e is not None]
    if len({e.states.dtype for e in there}) < 2:
        return dict(encoded)
    widest = there[0].states.dtype
    for e in there[1:]:
        widest = torch.promote_types(widest, e.states.dtype)
    return {m: None if e is None else Encoded(e.states.to(widest), e.mask) for m, e in encoded.items()}


def _renamed(stream: str, names: Mapping[str, str]) -> str:
    head, dot, rest = stream.partition(".")
    return names.get(head, head) + dot + rest


def make_encoder(name: str, how: Any) -> nn.Module:
    """The encoder of a modality from a model's name, or a mapping of its options (see `ClipHost`)."""
    if isinstance(how, nn.Module):
        return how
    options = {"model": how} if not isinstance(how, Mapping) else dict(how)
    kind = options.pop("kind", _KINDS.get(name))
    known = registry.names_that("encoder", handles="pretrained")
    if not isinstance(kind, str) or plain_name(kind) not in known:
        hint = close_matches_hint(str(kind), known) if kind else ""
        raise OptionError(
            f"encoders.{name}: kind={kind!r}{hint}{' Say' if hint else '; say'} which encoder the model is for: "
            f"{', '.join(known)}"
        )
    model = options.pop("model", None)
    if model is None:
        raise OptionError(f"encoders.{name}: lacks 'model', a local folder or a name of the Hugging Face hub")
    cls = registry.get(kind, "encoder")
    takes = [p for p in inspect.signature(cls.__init__).parameters if p not in ("self", "name")]
    for option in options:
        if option not in takes:
            raise OptionError(
                f"encoders.{name}: {cls.__name__} has no option {option!r}{close_matches_hint(str(option), takes) or '.'} It "
                f"takes: {', '.join(takes)}"
            )
    return cls(model, **options)
