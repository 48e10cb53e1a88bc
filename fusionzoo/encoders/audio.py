"""Sound to frame states: HuBERT, wav2vec2, WavLM and their kin, with frame masks from sample masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._options import check_choice
from fusionzoo.encoders._base import Encoder
from fusionzoo.encoders.outputs import Encoded, check_layer, choose_layer
from fusionzoo.encoders.pretrained import ModelFiles, find_model, load_model, transformers
from fusionzoo.errors import ModelError, OptionError, ShapeError
from fusionzoo.numerics import zero_padded
from fusionzoo.plugin import plugin

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: How samples enter the model: `"auto"` as its preprocessor_config.json says; `"standard"`: zero mean and unit variance a
#: clip; `"unit"`: -1 to 1, as read; `"int16"`: -32768 to 32767, which MemoCMT feeds to a model made for `"unit"`.
SCALES = ("auto", "standard", "unit", "int16")


class AudioEncoder(Encoder):
    """A pretrained model of sound with a convolutional front end (HuBERT, wav2vec2, WavLM, data2vec, UniSpeech).

    A clip gives the same states alone and in any batch: padded samples take no part, neither in the normalisation of the
    samples, nor in the front end's group norm (where the model has one), nor in the attention. A clip shorter than one
    frame is extended to one by silence.

    Parameters
    ----------
    name : a local folder, or a model of the hub such as `"facebook/hubert-base-ls960"`.
    trainable : True fine-tunes all of it; `"transformer"` all but the convolutional front end (Foal-Net); False freezes it.
    train_mode : keep a frozen model's dropout active.
    layer : `"last"`, an index, `"mean4"` or `"views"`.
    scale : see `SCALES`.
    dropout : on the states (Foal-Net's final_dropout).
    spec_augment : leave the model's own masking of time steps in training on.
    revision : of a model of the hub.

    Shapes: wave `(B, N)` at `rate` samples a second, -1 to 1, and mask `(B, N)` -> states `(B, T, width)`, mask `(B, T)`.
    """

    medium = "audio"

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        trainable: bool | str = False,
        train_mode: bool = False,
        layer: str | int = "last",
        scale: str = "auto",
        dropout: float = 0.0,
        spec_augment: bool = False,
        revision: str | None = None,
    ):
        layer = check_layer(layer)
        files = find_model(name, revision)
        preprocessor = files.json("preprocessor_config.json")
        model = load_model(files)
        self._build(model, files, preprocessor, trainable, train_mode, layer, scale, dropout, spec_augment)

    def _build(
        self,
        model: Any,
        files: ModelFiles | None,
        preprocessor: dict[str, Any],
        trainable: bool | str,
        train_mode: bool,
        layer: str | int,
        scale: str,
        dropout: float,
        spec_augment: bool,
    ) -> None:
        if not (hasattr(model, "feature_extractor") and hasattr(model.config, "conv_kernel")):
            raise ModelError(
                f"{files.name if files else 'this configuration'}: {type(model).__name__} is not a model of raw sound that "
                f"AudioEncoder knows. Take a HuBERT, wav2vec2, WavLM, data2vec-audio or UniSpeech model."
            )
        if trainable not in (True, False, "transformer"):
            raise OptionError(f"AudioEncoder: trainable={trainable!r}; choices: True, False, 'transformer'")
        check_choice(scale, SCALES, "scale", AudioEncoder)
        super().__init__(model, files, bool(trainable), train_mode)
        if trainable == "transformer":
            model.feature_extractor.requires_grad_(False)
            model.feature_extractor._requires_grad = False
        model.config.apply_spec_augment = spec_augment
        if not spec_augment and hasattr(model, "masked_spec_embed"):
            model.masked_spec_embed.requires_grad_(False)  # what it stands in for never happens
        self.rate = int(preprocessor.get("sampling_rate", 16000))
        self.scale = scale
        if scale == "auto":
            self.scale = "standard" if preprocessor.get("do_normalize", True) else "unit"
        self.layer, self.dropout = layer, nn.Dropout(dropout)
        hidden: int = model.config.hidden_size
        self.width = 4 * hidden if layer == "views" else hidden
        kernels, strides = model.config.conv_kernel, model.config.conv_stride
        self._kernels = tuple(zip(kernels, strides, strict=True))
        self._norm = _mask_group_norm(model.feature_extractor)

    @classmethod
    def from_config(
        cls,
        config: PretrainedConfig,
        *,
        trainable: bool | str = False,
        train_mode: bool = False,
        layer: str | int = "last",
        scale: str = "standard",
        dropout: float = 0.0,
        spec_augment: bool = False,
    ) -> AudioEncoder:
        """With random weights from a transformers configuration."""
        encoder = cls.__new__(cls)
        model = transformers().AutoModel.from_config(config)
        encoder._build(model, None, {}, trainable, train_mode, check_layer(layer), scale, dropout, spec_augment)
        return encoder

    @property
    def shortest(self) -> int:
        """Samples that one frame needs."""
        needed = 1
        for kernel, stride in reversed(self._kernels):
            needed = (needed - 1) * stride + kernel
        return needed

    def frames(self, samples: Tensor) -> Tensor:
        """Frames that so many samples give, at least one."""
        samples = samples.clamp(min=self.shortest)
        for kernel, stride in self._kernels:
            samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
        return samples

    def collate(self, waves: Sequence[Tensor]) -> dict[str, Tensor]:
        """`wave` and bool `mask`, `(B, N)`, on the model's device, from clips of different lengths `(N_i,)`."""
        wave = nn.utils.rnn.pad_sequence([torch.as_tensor(w) for w in waves], batch_first=True)
        length = torch.tensor([len(w) for w in waves])
        mask = torch.arange(wave.shape[1]) < length.unsqueeze(1)
        return {"wave": wave.to(self.device), "mask": mask.to(self.device)}

    def forward(self, wave: Tensor, mask: Tensor | None = None) -> Encoded:
        """States of the frames and their mask, from samples and theirs."""
        if wave.dim() != 2:
            raise ShapeError(
                f"AudioEncoder takes waves (B, N), got {tuple(wave.shape)}; average the channels of stereo"
            )
        mask = torch.ones_like(wave, dtype=torch.bool) if mask is None else mask.bool()
        wave = _scaled(zero_padded(wave, mask), mask, self.scale)
        length = mask.sum(1)
        if wave.shape[1] < self.shortest:
            wave = F.pad(wave, (0, self.shortest - wave.shape[1]))
        samples = torch.arange(wave.shape[1], device=wave.device) < length.clamp(min=self.shortest).unsqueeze(1)
        frames = self.frames(length)
        even = bool(samples.all())
        every = self.layer != "last"
        if self._norm is not None:
            kernel, stride = self._kernels[0]
            self._norm.length = None if even else torch.div(samples.sum(1) - kernel, stride, rounding_mode="floor") + 1
        try:
            with self._gradients():
                out = self.model(
                    wave, attention_mask=None if even else samples.long(), output_hidden_states=every, return_dict=True
                )
        finally:
            if self._norm is not None:
                self._norm.length = None
        states = choose_layer(out.last_hidden_state, out.hidden_states if every else None, self.layer)
        frame_mask = torch.arange(states.shape[1], device=wave.device) < frames.unsqueeze(1)
        # An item without a sample has no frame, although silence went through the model in its place.
        frame_mask = frame_mask & (length > 0).unsqueeze(1)
        return Encoded(zero_padded(self.dropout(states), frame_mask), frame_mask)


def _scaled(wave: Tensor, mask: Tensor, scale: str) -> Tensor:
    """Samples as the model wants them; padded ones stay zero."""
    if scale == "unit":
        return wave
    if scale == "int16":
        return (wave * 32768.0).round()
    count = mask.sum(1, keepdim=True).clamp(min=1)
    mean = wave.sum(1, keepdim=True) / count
    centred = zero_padded(wave - mean, mask)
    variance = centred.square().sum(1, keepdim=True) / count
    return centred / torch.sqrt(variance + 1e-7)


class MaskedGroupNorm(nn.GroupNorm):
    """One group a channel, over the real steps only where `length (B,)` is set: `(B, C, T)`."""

    length: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over the real steps."""
        if self.length is None:
            return super().forward(input)
        real = (torch.arange(input.shape[-1], device=input.device) < self.length.unsqueeze(1)).unsqueeze(1)
        x = input.float()
        count = self.length.clamp(min=1).view(-1, 1, 1)
        mean = torch.where(real, x, 0.0).sum(-1, keepdim=True) / count
        centred = x - mean
        variance = torch.where(real, centred, 0.0).square().sum(-1, keepdim=True) / count
        normed = centred * torch.rsqrt(variance + self.eps)
        return (normed * self.weight.view(1, -1, 1) + self.bias.view(1, -1, 1)).to(input.dtype)


def _mask_group_norm(front_end: Any) -> MaskedGroupNorm | None:
    """The front end's group norm over time, made to know lengths; None where it has none. Names and weights stay."""
    norm = getattr(front_end.conv_layers[0], "layer_norm", None)
    if not isinstance(norm, nn.GroupNorm):
        return None
    norm.__class__ = MaskedGroupNorm
    assert isinstance(norm, MaskedGroupNorm)
    norm.length = None
    return norm


fusionzoo_register = plugin(
    AudioEncoder,
    name="audio",
    summary="sound to frame states by HuBERT, wav2vec2, WavLM, data2vec or UniSpeech",
)
