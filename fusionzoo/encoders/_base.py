"""What the three encoders share: being frozen or trained, and where they come from."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from fusionzoo.encoders.pretrained import ModelFiles


class Encoder(nn.Module):
    """Base class; `model` is the pretrained module.

    trainable : False freezes everything: no gradient, no memory for one, and eval mode whatever `train()` says.
    train_mode : a frozen model nevertheless follows `train()`, so that its dropout is active, as in MemoCMT.
    """

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
