"""What encoders of pretrained models share: being frozen or trained, and where they come from."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import torch
from torch import nn

from fusionzoo.encoders.pretrained import ModelFiles


class Encoder(nn.Module):
    """Base class of encoders around a pretrained model; a plugin of kind `"encoder"` derives from it.

    A host of clips builds `cls(name, **options)` from a model's name or folder. What is called with a batch, and what is read
    off the instance besides `width`, follows from `medium`: `tokenize` for `"text"`, the samples `shortest` of one frame for
    `"audio"`, the picture's `size` for `"video"`.

    Parameters
    ----------
    model : the pretrained module.
    files : where it was found; None for random weights.
    trainable : False freezes everything: no gradient, no memory for one, and eval mode whatever `train()` says.
    train_mode : a frozen model nevertheless follows `train()`, so that its dropout is active, as in MemoCMT.
    """

    kind: ClassVar[str] = "encoder"
    handles: ClassVar[frozenset[str]] = frozenset({"pretrained"})
    #: What it encodes: `"text"`, `"audio"` or `"video"`.
    medium: ClassVar[str] = ""

    def __init__(self, model: nn.Module, files: ModelFiles | None, trainable: bool, train_mode: bool):
        super().__init__()
        self.model: Any = model
        self.files = files
        self.trainable, self.train_mode = trainable, train_mode
        model.requires_grad_(trainable)
        self.train(self.training)

    def train(self, mode: bool = True) -> Encoder:
        super().train(mode)
        if not (self.trainable or self.train_mode):
            self.model.eval()
        return self

    def _gradients(self) -> contextlib.AbstractContextManager[Any]:
        """Around the model: no graph where nothing of it is trained."""
        return contextlib.nullcontext() if self.trainable else torch.no_grad()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def extra_repr(self) -> str:
        name = self.files.name if self.files is not None else "random weights"
        return f"{name!r}, trainable={self.trainable}"
