"""Pictures to one state per frame: CLIP and any other transformers vision model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo._options import check_choice, check_positive
from fusionzoo.encoders._base import Encoder
from fusionzoo.encoders.outputs import Encoded
from fusionzoo.encoders.pretrained import ModelFiles, find_model, load_model, transformers
from fusionzoo.errors import ModelError, OptionError, ShapeError
from fusionzoo.plugin import plugin

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: Which of a picture's states is its vector: `"projection"` is CLIP's, in the space that it shares with text; `"pooled"`
#: what the model itself pools; `"mean"` over its patches; `"auto"` the first of these that the model has.
PICTURES = ("auto", "projection", "pooled", "mean")
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class VideoEncoder(Encoder):
    """A pretrained vision model (CLIP, SigLIP, ViT, DINOv2, ResNet, ...) run on each frame by itself.

    Parameters
    ----------
    name : a local folder, or a model of the hub such as `"openai/clip-vit-large-patch14"`.
    trainable, train_mode : see `Encoder`.
    picture : see `PICTURES`; for CLIP-large `"auto"` gives the projection, of width 768.
    chunk : frames that go through the model at a time, which bounds the memory.
    revision : of a model of the hub.

    Shapes: frames `(B, F, 3, H, W)`, uint8 or float 0 to 1, and mask `(B, F)` -> states `(B, F, width)` and the mask.
    Frames are resized, cropped and normalised here, as the model's preprocessor_config.json says.
    """

    medium = "video"

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        trainable: bool = False,
        train_mode: bool = False,
        picture: str = "auto",
        chunk: int = 64,
        revision: str | None = None,
    ):
        check_choice(picture, PICTURES, "picture", VideoEncoder)
        files = find_model(name, revision)
        self._build(
            load_model(files), files, files.json("preprocessor_config.json"), trainable, train_mode, picture, chunk
        )

    def _build(
        self,
        model: Any,
        files: ModelFiles | None,
        preprocessor: dict[str, Any],
        trainable: bool,
        train_mode: bool,
        picture: str,
        chunk: int,
    ) -> None:
        name = files.name if files is not None else "this configuration"
        vision = getattr(model, "vision_model", model)
        projection = getattr(model, "visual_projection", None)
        config = getattr(model.config, "vision_config", model.config)
        # What a model calls its vision_model is one; older releases of transformers do not say what it takes.
        if vision is model and getattr(vision, "main_input_name", "") != "pixel_values":
            raise ModelError(
                f"{name}: {type(model).__name__} is not a vision model; take CLIP, ViT, DINOv2 or the like."
            )
        if picture == "projection" and projection is None:
            raise OptionError(f"picture='projection': {name} has none; take 'pooled' or 'mean'")
        if picture == "auto":
            picture = "projection" if projection is not None else "pooled"
        # Only the half that sees is kept; a projection that is not used would be a weight without a gradient.
        parts: dict[str, Any] = {"vision": vision} | ({"projection": projection} if picture == "projection" else {})
        super().__init__(nn.ModuleDict(parts), files, trainable, train_mode)
        self.picture, self.chunk = picture, check_positive(chunk, "chunk", VideoEncoder)
        self.size, self.resize_to, self.resample = _sizes(config, preprocessor)
        means, deviations = _CLIP if "clip" in config.model_type else _IMAGENET
        mean = torch.tensor(preprocessor.get("image_mean", means))
        std = torch.tensor(preprocessor.get("image_std", deviations))
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.width = self._measure()

    @classmethod
    def from_config(
        cls,
        config: PretrainedConfig,
        *,
        trainable: bool = False,
        train_mode: bool = False,
        picture: str = "auto",
        chunk: int = 64,
    ) -> VideoEncoder:
        """With random weights from a transformers configuration."""
        check_choice(picture, PICTURES, "picture", VideoEncoder)
        encoder = cls.__new__(cls)
        encoder._build(transformers().AutoModel.from_config(config), None, {}, trainable, train_mode, picture, chunk)
        return encoder

    @torch.no_grad()
    def _measure(self) -> int:
        """The width, by looking at a black picture; statistics of normalisation layers are left as they are."""
        was = self.model.training
        self.model.eval()
        width = self._look(torch.zeros(1, 3, *self.size)).shape[-1]
        self.model.train(was)
        return width

    def prepare(self, frames: Tensor) -> Tensor:
        """`(N, 3, H, W)` uint8 or float 0 to 1 to the model's size, float, normalised."""
        x = frames.float() / 255.0 if frames.dtype == torch.uint8 else frames.float()
        height, width = x.shape[-2:]
        if isinstance(self.resize_to, int):
            factor = self.resize_to / min(height, width)
            target = (max(self.resize_to, int(height * factor)), max(self.resize_to, int(width * factor)))
        else:
            target = self.resize_to
        if target != (height, width):
            x = F.interpolate(x, size=target, mode=self.resample, antialias=True).clamp(0, 1)
        top, left = (x.shape[-2] - self.size[0]) // 2, (x.shape[-1] - self.size[1]) // 2
        if top < 0 or left < 0:
            x = F.pad(x, (max(0, -left), max(0, -left), max(0, -top), max(0, -top)))
            top, left = max(0, top), max(0, left)
        x = x[..., top : top + self.size[0], left : left + self.size[1]]
        return (x - self.mean.to(x.device)) / self.std.to(x.device)

    def collate(self, clips: Sequence[Tensor]) -> dict[str, Tensor]:
        """`frames (B, F, 3, h, w)`, prepared, and bool `mask (B, F)`, on the model's device, from clips `(F_i, 3, H, W)`."""
        prepared = [self.prepare(torch.as_tensor(c)) for c in clips]
        frames = nn.utils.rnn.pad_sequence(prepared, batch_first=True)
        mask = torch.arange(frames.shape[1]) < torch.tensor([len(c) for c in prepared]).unsqueeze(1)
        return {"frames": frames.to(self.device), "mask": mask.to(self.device)}

    def forward(self, frames: Tensor, mask: Tensor | None = None, *, prepared: bool = False) -> Encoded:
        """States of the frames and their mask; `prepared` says that they come from `collate` or `prepare`."""
        if frames.dim() != 5 or frames.shape[2] != 3:
            raise ShapeError(f"VideoEncoder takes frames (B, F, 3, H, W), got {tuple(frames.shape)}")
        mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device) if mask is None else mask.bool()
        real = frames[mask]
        with self._gradients():
            parts = [
                self._look(part if prepared else self.prepare(part)) for part in real.split(self.chunk) if len(part)
            ]
        states = torch.zeros(*mask.shape, self.width, device=frames.device, dtype=parts[0].dtype if parts else None)
        if parts:
            states = states.masked_scatter(mask.unsqueeze(-1), torch.cat(parts))
        return Encoded(states, mask)

    def _look(self, pictures: Tensor) -> Tensor:
        """`(N, 3, h, w)` prepared -> `(N, width)`."""
        out = self.model["vision"](pixel_values=pictures)
        pooled = getattr(out, "pooler_output", None)
        if self.picture == "mean" or pooled is None:
            last = out.last_hidden_state
            return last.flatten(2).mean(-1) if last.dim() == 4 else last.mean(1)
        pooled = pooled.flatten(1)
        return self.model["projection"](pooled) if self.picture == "projection" else pooled


def _sizes(config: Any, preprocessor: dict[str, Any]) -> tuple[tuple[int, int], int | tuple[int, int], str]:
    """What the model sees, what is resized before it is cropped (a shortest side, or both), and the interpolation."""
    size = getattr(config, "image_size", None) or 224
    own = (size, size) if isinstance(size, int) else tuple(size)
    crop = preprocessor.get("crop_size") if preprocessor.get("do_center_crop") else None
    resize = preprocessor.get("size", own[0])
    if isinstance(resize, dict):
        resize = resize.get("shortest_edge") or (resize.get("height", own[0]), resize.get("width", own[1]))
    if isinstance(crop, dict):
        own = (crop["height"], crop["width"])
    elif isinstance(crop, int):
        own = (crop, crop)
    elif isinstance(resize, tuple):
        own = resize
    return own, resize, "bilinear" if preprocessor.get("resample") == 2 else "bicubic"


fusionzoo_register = plugin(
    VideoEncoder,
    name="video",
    summary="pictures to one state per frame by CLIP, SigLIP, ViT, DINOv2, ResNet and their kin",
)
